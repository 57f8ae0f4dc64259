"""The figures of a checkpoint's card are those that were measured, and only they change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model.training.card import CLOSING, OPENING, figures_table, write_figures
from model.training.command import main
from tests.conftest import DEFAULT_CHECKPOINT

KINDS = ("count", "locate", "exists", "list")
SEEING = {f"{kind}_exact_percent": 80.0 + place for place, kind in enumerate(KINDS)}
FIGURES = {
    "seeing": SEEING | {"mean_iou": 0.8073, "well_formed_percent": 100.0, "questions": 2000.0},
    "blind": {name: 20.0 for name in SEEING} | {"mean_iou": 0.0, "well_formed_percent": 100.0, "questions": 2000.0},
    "best_constant": {name: 30.0 for name in SEEING},
}


def test_the_table_has_a_row_for_each_figure_with_its_columns() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in figures_table(FIGURES).splitlines()]
    assert len({len(row) for row in rows}) == 1
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["count exactly right"] == ["80.0 %", "20.0 %", "30.0 %", "80 %", "97 %"]
    assert by_name['"is there" right'][0] == "82.0 %"
    assert by_name["mean IoU of the boxes, matched one to one"] == ["0.807", "0.000", "", "0.75", "0.90"]


def test_writing_again_replaces_the_figures_and_leaves_the_words(tmp_path: Path) -> None:
    card = tmp_path / "CARD.md"
    card.write_text(f"# Mine\n\nbefore\n\n{OPENING}\nold\n{CLOSING}\n\nafter\n")
    write_figures(card, FIGURES, "measure it")
    once = card.read_text()
    write_figures(card, FIGURES, "measure it")
    assert card.read_text() == once
    assert once.startswith("# Mine\n\nbefore\n") and once.endswith("\n\nafter\n")
    assert "old" not in once and "    measure it\n" in once and "2,000 questions" in once


@pytest.mark.parametrize("text", ["# no marks\n", f"{CLOSING} {OPENING}", f"{OPENING}{OPENING}{CLOSING}"])
def test_a_card_without_a_place_for_figures_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    card = tmp_path / "CARD.md"
    card.write_text(text)
    with pytest.raises(ValueError, match="the figures go between them"):
        write_figures(card, FIGURES, "measure it")
    assert card.read_text() == text


def test_scoring_writes_the_card_of_a_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    shutil.copytree(tiny_checkpoint, folder)
    main(["--score", "--card", "--checkpoint", str(folder), "--scenes", "2", "--threads", "1"])
    text = (folder / "CARD.md").read_text()
    assert "Over 8 questions" in text and "--scenes 2" in text and "| well-formed primitives | 100.0 % |" in text


def test_the_default_card_has_a_place_for_its_figures(tmp_path: Path) -> None:
    copy = tmp_path / "CARD.md"
    shutil.copy(DEFAULT_CHECKPOINT / "CARD.md", copy)
    write_figures(copy, FIGURES, "measure it")
    assert "80.0 %" in copy.read_text()
