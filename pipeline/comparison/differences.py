"""The questions on which engines differ most, as a table with the answers side by side, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from model.tasks.general import same

from ..benchmark.contact_sheet import wrapped
from ..drawing import draw
from ..redaction import printable
from ..rows import ERROR, PRIMITIVE
from .comparer import PICTURE
from .comparison import Difference, Row

MOST_ENGINES = len(ascii_lowercase)
_MARGIN, _LINE, _PICTURES_ACROSS = 12, 18, 6
_INK, _SOFT, _PAPER, _RIGHT, _WRONG = "#1a1a1a", "#6b6b6b", "#ffffff", "#00694a", "#b3261e"
_OF_EACH = (
    ("engine", pa.string()),
    ("status", pa.string()),
    ("answer", pa.string()),
    ("primitives", pa.list_(pa.field("element", PRIMITIVE))),
    ("reasoning", pa.string()),
    ("error", ERROR),
)


def letters(engines: Sequence[str]) -> dict[str, str]:
    """A letter for each engine, in their order: what tables call it."""
    return dict(zip(engines, ascii_lowercase, strict=False))


def differences_table(differences: Sequence[Difference], engines: Sequence[str]) -> pa.Table:
    """One row for each question; columns ending in _a, _b, ... are of the engine that `engine_a`, ... names."""
    columns = [
        ("difference", pa.float64()), ("image_id", pa.string()), ("image_uri", pa.string()),
        ("question_id", pa.string()), ("question", pa.string()), ("gold_answer", pa.string()),
    ]  # fmt: skip
    columns += [(f"{name}_{letter}", kind) for letter in letters(engines).values() for name, kind in _OF_EACH]
    rows = []
    for found in differences:
        first = found.rows[engines[0]]
        row = {name: first[name] for name in ("image_id", "image_uri", "question_id", "question")}
        row |= {"difference": found.size, "gold_answer": found.gold_answer}
        for engine, letter in letters(engines).items():
            row |= {f"{name}_{letter}": found.rows[engine][name] for name, _ in _OF_EACH}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema(columns))


def differences_sheet(differences: Sequence[Difference], engines: Sequence[str]) -> bytes:
    """The same as PNG: the question and what is right, and below it each engine's answer on a picture of its own."""
    shown = [found for found in differences if found.picture is not None]
    width = PICTURE * len(engines) + _MARGIN * (len(engines) + 1)
    height = PICTURE + 5 * _LINE + 2 * _MARGIN
    across = max(1, min(_PICTURES_ACROSS // len(engines), len(shown)))
    picture = Image.new("RGB", (width * across, max(height * -(-len(shown) // across), 1)), _PAPER)
    for number, found in enumerate(shown):
        _place(picture, (number % across * width + _MARGIN, number // across * height + _MARGIN), found, engines)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _place(sheet: Image.Image, corner: tuple[int, int], found: Difference, engines: Sequence[str]) -> None:
    (left, top), canvas, font = corner, ImageDraw.Draw(sheet), ImageFont.load_default(14)
    room = PICTURE * len(engines) + _MARGIN * (len(engines) - 1)
    gold = "" if found.gold_answer is None else f"   gold: {found.gold_answer}"
    question = f"{found.image_id}  {found.rows[engines[0]]['question']}{gold}"
    for number, line in enumerate(wrapped(printable(question), font, room, 2)):
        canvas.text((left, top + number * _LINE), line, _INK, font)
    top += 2 * _LINE
    for place, (engine, letter) in enumerate(letters(engines).items()):
        x, row = left + place * (PICTURE + _MARGIN), found.rows[engine]
        shown = _drawn(found.picture or b"", row)
        sheet.paste(shown, (x + (PICTURE - shown.width) // 2, top + (PICTURE - shown.height) // 2))
        ink, said = _said(row, found.gold_answer)
        lines = [(f"{letter.upper()}  {engine}", _SOFT), (said, ink)]
        for number, (text, colour) in enumerate(lines):
            for line in wrapped(printable(text), font, PICTURE, 1):
                canvas.text((x, top + PICTURE + 4 + number * _LINE), line, colour, font)


def _said(row: Row, gold: str | None) -> tuple[str, str]:
    if row["status"] != "ok":
        return _WRONG, f"no answer: {row['error']['stage']}/{row['error']['kind']}"
    return _INK if gold is None else _RIGHT if same(row["answer"], gold) else _WRONG, row["answer"] or "(nothing)"


def _drawn(jpeg: bytes, row: Row) -> Image.Image:
    """The small picture with the answer's primitives, which are in pixels of the original."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        picture = opened.convert("RGB")
    across, down = picture.width / row["image_width"], picture.height / row["image_height"]
    return draw(picture, [_scaled(found, across, down) for found in row["primitives"] or ()])


def _scaled(found: Mapping[str, Any], across: float, down: float) -> dict[str, Any]:
    scales = {"x1": across, "x2": across, "y1": down, "y2": down}
    numbers = {name: None if found[name] is None else found[name] * scale for name, scale in scales.items()}
    return {**found, **numbers}
