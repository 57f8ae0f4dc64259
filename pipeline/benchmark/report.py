"""A benchmark's record as a table: for a terminal, and as Markdown for a checkpoint's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.training.card import NEW_CARD, replace_between

from .paper import FIGURES, MODELS, SENTENCE

OPENING, CLOSING = "<!-- benchmark -->", "<!-- end of benchmark -->"

# Title, where it stands in a group's record, and how it is written.
_COLUMNS = (
    ("n", "cases", "{:,}"),
    ("errors", "errors", "{:,}"),
    ("score", "score", "{:.3f}"),
    ("blind score", "blind_score", "{:.3f}"),
    ("exact %", "exact_percent", "{:.1f}"),
    ("blind %", "blind_exact_percent", "{:.1f}"),
    ("count %", "count_exact_percent", "{:.1f}"),
    ("IoU", "mean_iou", "{:.3f}"),
    ("path %", "path_valid_percent", "{:.1f}"),
    ("formed %", "well_formed_percent", "{:.1f}"),
    ("tokens", "output_tokens", "{:,.0f}"),
    ("KV entries", "kv_entries", "{:,.0f}"),
)
_LEGEND = """\
score: all that a suite judges, weighted, 0..1; exact: the final answer alone; blind: the best constant answer to each
kind of question; count: exact where the answer is a whole number; path: valid where one was due; formed: every
primitive well formed; tokens and KV entries: an answer's mean. An error counts as wrong in all of them."""


def as_text(record: Mapping[str, Any]) -> str:
    """The table, what it was measured with, and the paper's figures for reading."""
    parts = [_headline(record), aligned(_rows(record)), _LEGEND, *_errors(record)]
    if paper := _paper_rows(record):
        parts += [aligned(paper), SENTENCE]
    return "\n\n".join(parts)


def as_markdown(record: Mapping[str, Any], command: str) -> str:
    """The same for a card, with the command that made it."""
    parts = [_headline(record), _piped(_rows(record)), _LEGEND, *_errors(record)]
    if paper := _paper_rows(record):
        parts += [_piped(paper), SENTENCE]
    return "\n\n".join([*parts, f"By\n\n    {command}"])


def carded(card: Path, block: str) -> str:
    """The text of a CARD.md with the block between the benchmark's marks; a card without marks gets them at its end.

    ValueError when it has one mark without the other, or more than one pair.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else NEW_CARD
    if OPENING not in text and CLOSING not in text:
        text = f"{text.rstrip()}\n\n## Benchmark\n\n{OPENING}\n{CLOSING}\n"
    return replace_between(text, OPENING, CLOSING, block, str(card))


def _headline(record: Mapping[str, Any]) -> str:
    source = f"of {record['case_dir']}" if record["case_dir"] else f"of the {record['split']} split"
    seen = ", their images greyed out" if record["greyed"] else ""
    return (
        f"{record['model']} {record['model_revision']}, engine {record['engine']}: {record['cases']:,} cases"
        f" {source}{seen}, {record['answers_per_second']:.1f} answers/s"
    )


def _rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Titles first; a column that no group has anything in is left out."""
    groups = record["groups"]
    shown = [column for column in _COLUMNS if any(group.get(column[1]) is not None for group in groups)]
    rows = [["suite", "level", *(title for title, _, _ in shown)]]
    for group in groups:
        cells = (group.get(name) for _, name, _ in shown)
        written = ["" if v is None else form.format(v) for v, (_, _, form) in zip(cells, shown, strict=True)]
        rows.append([group["suite"], group["level"], *written])
    return rows


def _errors(record: Mapping[str, Any]) -> list[str]:
    if not record["errors"]:
        return []
    return ["no answer, counted as wrong: " + ", ".join(f"{name} {count}" for name, count in record["errors"].items())]


def _paper_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Each suite's exact percent over all its levels, beside the paper's figures for the same skill."""
    rows = [["suite", "exact %", "the paper's set", *MODELS]]
    for suite in record["suites"]:
        for name, values in FIGURES.get(suite["suite"], {}).items():
            ours = f"{suite['exact_percent']:.1f}"
            rows.append([suite["suite"], ours, name, *(f"{value:.1f}" for value in values)])
    return rows if len(rows) > 1 else []


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal, its titles first; columns of numbers are flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(_is_number(row[i]) for row in rows[1:]) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _is_number(cell: str) -> bool:
    return not cell or cell.removeprefix("~").replace(",", "").replace(".", "", 1).isdecimal()


def _piped(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
