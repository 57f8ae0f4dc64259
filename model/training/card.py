"""The table of figures in a checkpoint's CARD.md, written by the command that measured them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

OPENING, CLOSING = "<!-- figures -->", "<!-- end of figures -->"
NEW_CARD = f"# A checkpoint\n\n{OPENING}\n{CLOSING}\n"

# What a card says of a checkpoint: the figure's name, what it is called, and the floor and the goal of the default one.
_ROWS = (
    ("count_exact_percent", "count exactly right", "80 %", "97 %"),
    ("locate_exact_percent", "found the right number (locate)", "", ""),
    ("exists_exact_percent", '"is there" right', "90 %", "99 %"),
    ("list_exact_percent", "list: right number", "", ""),
    ("mean_iou", "mean IoU of the boxes, matched one to one", "0.75", "0.90"),
    ("well_formed_percent", "well-formed primitives", "100 %", "100 %"),
)


def figures_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table of `evaluate`'s figures: the checkpoint, the same blind, the best constant answer."""
    lines = [
        "| figure | this checkpoint | the same, images greyed out | best constant answer | floor | goal |",
        "|---|---|---|---|---|---|",
    ]
    for name, called, floor, goal in _ROWS:
        measured = (_shown(name, figures[column].get(name)) for column in ("seeing", "blind", "best_constant"))
        lines.append("| " + " | ".join((called, *measured, floor, goal)) + " |")
    return "\n".join(lines)


def write_figures(card: Path, figures: Mapping[str, Mapping[str, float]], command: str) -> None:
    """Replace what stands between the marks of a CARD.md; a folder without one gets a short one.

    ValueError when the card has no marks, or more than one pair.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else NEW_CARD
    questions = round(figures["seeing"]["questions"])
    block = f"{figures_table(figures)}\n\nOver {questions:,} questions, by\n\n    {command}"
    card.write_text(replace_between(text, OPENING, CLOSING, block, str(card)), encoding="utf-8")


def replace_between(text: str, opening: str, closing: str, block: str, name: str) -> str:
    """The text with the block in place of what stood between the marks. ValueError without one pair of them."""
    if text.count(opening) != 1 or text.count(closing) != 1 or text.index(opening) > text.index(closing):
        raise ValueError(f"{name} must have one {opening} and, after it, one {closing}: the figures go between them")
    before, rest = text.split(opening)
    _, after = rest.split(closing)
    return f"{before}{opening}\n\n{block}\n\n{closing}{after}"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f} %" if name.endswith("_percent") else f"{value:.3f}"
