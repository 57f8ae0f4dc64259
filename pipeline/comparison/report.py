"""A comparison's record as text: a line for each engine and each pair, and some of what they differ on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..benchmark.report import aligned
from ..gold import boxes_of
from ..redaction import printable, redacted
from .comparison import Difference
from .differences import letters

_SHOWN = 5  # differences
_CELL = 40  # characters of an answer or a question
# Title, where it stands in an engine's figures, and how it is written; shares as percent.
_OF_ENGINES = (
    ("answered", "answered", "{:,}"),
    ("gold %", "gold_exact", "{:.1%}"),
    ("gold IoU", "gold_iou", "{:.3f}"),
    ("invalid %", "invalid_primitives", "{:.1%}"),
    ("tokens in", "prompt_tokens_per_answer", "{:,.0f}"),
    ("out", "output_tokens_per_answer", "{:,.1f}"),
    ("KV bytes", "kv_bytes_per_image", "{:,.0f}"),
    ("answers/s", "answers_per_second", "{:,.1f}"),
    ("price", "price_per_1000_answers", "{:.4f}"),
)
_OF_PAIRS = (
    ("both answered", "both_answered", "{:,}"),
    ("agree %", "agreement", "{:.1%}"),
    ("IoU", "primitives_iou", "{:.3f}"),
)
_LEGEND = """\
gold: exact answers, and IoU of the boxes, of all questions that have gold; an error is wrong; invalid: share of the
primitives; tokens: an answer's mean; KV bytes: of an image with its questions{predicted}; price: of 1,000 answers."""
_PREDICTED = " (~: computed from the model's public shape)"


def as_text(record: Mapping[str, Any], differences: Sequence[Difference]) -> str:
    """The table, the legend, and the first of the differences."""
    counts, names = record["counts"], letters(list(record["engines"]))
    head = (
        f"{counts['images']:,} images, {counts['questions']:,} questions, {len(names)} engines:"
        f" {counts['rows']:,} rows in {record['seconds']:.1f} s"
    )
    predicted = any(engine["kv_bytes_predicted"] for engine in record["engines"].values())
    parts = [
        head,
        aligned(_engine_rows(record, names)),
        aligned(_pair_rows(record, names)),
        _LEGEND.format(predicted=_PREDICTED if predicted else ""),
        *_errors(record, names),
        _differences(record, differences, names),
        f"written  {printable(redacted(record['output']))}",
    ]
    return "\n\n".join(parts)


def _engine_rows(record: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    """Titles first; a column that no engine has anything in is left out."""
    engines = record["engines"]
    shown = [column for column in _OF_ENGINES if any(engine[column[1]] is not None for engine in engines.values())]
    rows = [["", "engine", *(title for title, _, _ in shown)]]
    for name, letter in names.items():
        cells = [_cell(engines[name][key], form) for _, key, form in shown]
        if engines[name]["kv_bytes_predicted"]:
            place = [key for _, key, _ in shown].index("kv_bytes_per_image")
            cells[place] = f"~{cells[place]}"
        rows.append([letter.upper(), printable(redacted(name)), *cells])
    return rows


def _pair_rows(record: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    rows = [["pair", *(title for title, _, _ in _OF_PAIRS)]]
    for pair in record["pairs"]:
        cells = [_cell(pair[key], form) for _, key, form in _OF_PAIRS]
        rows.append([" ".join(names[name].upper() for name in pair["engines"]), *cells])
    return rows


def _errors(record: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    lines = []
    for name, letter in names.items():
        if errors := record["engines"][name]["errors"]:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in errors.items())
            lines.append(f"errors of {letter.upper()}: {kinds}")
    return ["\n".join(lines)] if lines else []


def _differences(record: Mapping[str, Any], differences: Sequence[Difference], names: Mapping[str, str]) -> str:
    differing = record["counts"]["differing"]
    if not differing:
        return "no question on which they differ"
    rows = [["differ by", "image", "question", "gold", *(letter.upper() for letter in names.values())]]
    for found in differences[:_SHOWN]:
        question = next(iter(found.rows.values()))["question"]
        texts = [found.image_id, question or "-", "-" if found.gold_answer is None else found.gold_answer]
        texts += [_answer(found.rows[name]) for name in names]
        rows.append([f"{found.size:.2f}", *(_short(printable(text)) for text in texts)])
    return f"they differ on {differing:,} questions; most on\n\n{aligned(rows)}"


def _answer(row: Mapping[str, Any]) -> str:
    if row["status"] != "ok":
        return f"({row['error']['stage']}/{row['error']['kind']})"
    boxes = " ".join("[" + " ".join(f"{value:.0f}" for value in box) + "]" for box in boxes_of(row))
    return f"{row['answer']} {boxes}".strip() or "(nothing)"


def _short(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _cell(value: Any, form: str) -> str:
    return "" if value is None else form.format(value).rstrip("%")
