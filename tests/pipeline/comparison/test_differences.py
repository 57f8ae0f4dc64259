"""Differences: the answers side by side in a table, and each engine's boxes on a picture of its own."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.comparison.comparer import PICTURE
from pipeline.comparison.comparison import Difference
from pipeline.comparison.differences import differences_sheet, differences_table
from tests.pipeline.pictures import encoded, picture

ENGINES = ("native seed=1", "openai")


def row(answer: str | None, *boxes: tuple[float, ...]) -> dict[str, Any]:
    found = {"kind": "box", "label": "it", "part": "answer", "group": 0, "item": 0, "frame": None, "valid": True}
    primitives = [found | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)) for box in boxes]
    error = None if answer else {"stage": "generate", "kind": "hung", "message": "no answer", "attempts": 1}
    return {
        "image_id": "i", "image_uri": "i.png", "question_id": "1", "question": "How many?", "image_width": 120,
        "image_height": 160, "status": "ok" if answer else "error", "answer": answer, "primitives": primitives or None,
        "reasoning": None, "error": error,
    }  # fmt: skip


def difference(a: dict[str, Any], b: dict[str, Any], picture_bytes: bytes | None = None) -> Difference:
    return Difference(
        2.0,
        "i",
        "1",
        {name: row | {"engine": name} for name, row in zip(ENGINES, (a, b), strict=True)},
        "2",
        picture_bytes,
    )


def test_the_table_has_both_answers_side_by_side() -> None:
    made = differences_table([difference(row("2", (1, 2, 3, 4)), row(None))], ENGINES)
    (found,) = made.to_pylist()
    assert (found["difference"], found["image_uri"], found["question_id"], found["gold_answer"]) == (
        2,
        "i.png",
        "1",
        "2",
    )
    assert (found["engine_a"], found["answer_a"], found["primitives_a"][0]["x2"]) == ("native seed=1", "2", 3)
    assert (found["engine_b"], found["answer_b"], found["error_b"]["kind"]) == ("openai", None, "hung")


def test_no_differences_are_a_table_without_rows_and_an_empty_sheet() -> None:
    assert differences_table([], ENGINES).num_rows == 0
    assert differences_table([], ENGINES).schema.field("answer_b").type == pa.string()
    with Image.open(io.BytesIO(differences_sheet([], ENGINES))) as sheet:
        assert sheet.height == 1


def test_each_engine_gets_the_picture_with_its_own_boxes_scaled_to_it() -> None:
    jpeg = encoded(picture(60, 40), "JPEG")  # half as wide as the original and a quarter as high
    boxed = row("2", (20, 80, 100, 140))

    def halves(a: dict[str, Any], b: dict[str, Any]) -> list[Image.Image]:
        with Image.open(io.BytesIO(differences_sheet([difference(a, b, jpeg)], ENGINES))) as opened:
            sheet = opened.convert("RGB")
        assert sheet.width == 2 * PICTURE + 36
        corners = (sheet.width // 2 - 6 - PICTURE, sheet.width // 2 + 6)
        return [sheet.crop((x, 48, x + PICTURE, 48 + PICTURE)) for x in corners]

    plain, drawn = halves(row("2"), boxed)
    assert plain.tobytes() != drawn.tobytes() and halves(boxed, row("2"))[0].tobytes() == drawn.tobytes()
    left, top = (PICTURE - 60) // 2, (PICTURE - 40) // 2
    for edge in ((left + 50, top + 30), (left + 30, top + 35)):  # on the box's right side, and on its lower one
        assert drawn.getpixel(edge) == (0xD5, 0x5E, 0x00) and plain.getpixel(edge) != drawn.getpixel(edge)


def test_without_a_picture_a_difference_is_in_the_table_alone() -> None:
    with Image.open(io.BytesIO(differences_sheet([difference(row("2"), row(None))], ENGINES))) as sheet:
        assert sheet.height == 1
