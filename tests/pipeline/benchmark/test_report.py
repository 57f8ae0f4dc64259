"""The table, for a terminal and for a card."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.training.card import write_figures
from pipeline.benchmark.paper import FIGURES, MODELS, SENTENCE
from pipeline.benchmark.report import CLOSING, OPENING, as_markdown, as_text, carded
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.test_card import FIGURES as TRAINING_FIGURES

MEASURED = {
    "cases": 1200, "errors": 0, "score": 0.61234, "exact_percent": 55.55, "count_exact_percent": None,
    "mean_iou": None, "path_valid_percent": 12.5, "well_formed_percent": 100.0, "output_tokens": 88.4,
    "kv_entries": 31.6, "blind_exact_percent": 50.0, "blind_score": 0.25,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "model": "mine", "model_revision": "cafe", "engine": "native", "split": "test", "case_dir": None, "greyed": False,
    "cases": 2400, "answers_per_second": 31.25, "errors": {},
    "suites": [{"suite": "maze", **MEASURED}],
    "groups": [{"suite": "maze", "level": level, **MEASURED} for level in ("easy", "hard")],
}  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_for_each_group_and_no_column_that_is_empty() -> None:
    lines = as_text(RECORD).splitlines()
    assert lines[0] == "mine cafe, engine native: 2,400 cases of the test split, 31.2 answers/s"
    blind = as_text(RECORD | {"greyed": True}).splitlines()[0]
    assert blind == "mine cafe, engine native: 2,400 cases of the test split, their images greyed out, 31.2 answers/s"
    titles = re.split(r"  +", lines[2].strip())
    assert titles[:4] == ["suite", "level", "n", "errors"] and "path %" in titles
    assert "IoU" not in titles and "count %" not in titles
    row = dict(zip(titles, lines[4].split(), strict=True))
    assert (row["suite"], row["level"], row["n"], row["score"]) == ("maze", "easy", "1,200", "0.612")
    assert (row["blind score"], row["blind %"], row["tokens"], row["KV entries"]) == ("0.250", "50.0", "88", "32")


def test_the_papers_figures_stand_beside_those_suites_that_were_asked_with_their_sentence() -> None:
    text = as_text(RECORD)
    assert SENTENCE in text and "DS_Maze_Navigation" in text and "66.9" in text
    assert "DS_Path_Tracing" not in text and "CountQA" not in text
    without = as_text(RECORD | {"suites": [{"suite": "reading", **MEASURED}]})
    assert SENTENCE not in without and "Gemini" not in without


def test_every_figure_of_the_paper_has_a_model() -> None:
    assert all(len(values) == len(MODELS) for sets in FIGURES.values() for values in sets.values())
    assert all(0 < value < 100 for sets in FIGURES.values() for values in sets.values() for value in values)


def test_errors_are_told_below_the_table() -> None:
    failed = RECORD | {"errors": {"generate/too_large": 3, "missing": 1}}
    assert "no answer, counted as wrong: generate/too_large 3, missing 1" in as_text(failed)
    assert "counted as wrong" not in as_text(RECORD)


def test_markdown_has_the_same_cells_and_the_command() -> None:
    lines = as_markdown(RECORD, "python jobs/benchmark.py --suite maze").splitlines()
    tables = [cells(line) for line in lines if line.startswith("|")]
    assert tables[0][:3] == ["suite", "level", "n"] and tables[2][:4] == ["maze", "easy", "1,200", "0"]
    assert len({len(row) for row in tables[:4]}) == 1
    assert lines[-1] == "    python jobs/benchmark.py --suite maze"


def test_a_card_keeps_its_words_and_the_block_is_replaced(tmp_path: Path) -> None:
    card = tmp_path / "CARD.md"
    shutil.copy(DEFAULT_CHECKPOINT / "CARD.md", card)
    words = card.read_text()
    card.write_text(carded(card, "once"))
    card.write_text(carded(card, "second"))
    text = card.read_text()
    assert f"{OPENING}\n\nsecond\n\n{CLOSING}" in text and "\nonce\n" not in text
    if OPENING not in words:
        assert text.startswith(words.rstrip())
    write_figures(card, TRAINING_FIGURES, "measure it")  # the training's own marks are as they were
    assert "second" in card.read_text()


def test_a_checkpoint_without_a_card_gets_one_that_training_can_write_into_too(tmp_path: Path) -> None:
    card = tmp_path / "CARD.md"
    card.write_text(carded(card, "ours"))
    write_figures(card, TRAINING_FIGURES, "measure it")
    assert "ours" in card.read_text() and "measure it" in card.read_text()


@pytest.mark.parametrize("text", [OPENING, f"{CLOSING}\n{OPENING}", f"{OPENING}{OPENING}{CLOSING}"])
def test_a_card_with_broken_marks_is_refused(text: str, tmp_path: Path) -> None:
    card = tmp_path / "CARD.md"
    card.write_text(text)
    with pytest.raises(ValueError, match="the figures go between them"):
        carded(card, "ours")
