"""Responses become answer rows: typed, and in the pixels of the original, upright image."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import image as model_image
from model.config import Config
from model.engine import Completion, Usage
from model.primitives import format_boxes, format_points
from pipeline.answers import Author, answer_row, error_row, number_in
from pipeline.decoding import check, decode
from pipeline.rows import ANSWERS
from tests.pipeline.pictures import encoded, found_box, picture, turned

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
CONFIG = Config(vision_min_pixels=126 * 126, vision_max_n_token=384)
AUTHOR = Author("run-1", "tiny", "cafe", CONFIG)


def image_row(width: int, height: int, *questions: str | None) -> dict[str, Any]:
    return {
        "image_id": "i", "image_uri": "i.png", "image_sha256": "00", "image_width": width, "image_height": height,
        "questions": list(questions or ("Where?",)),
    }  # fmt: skip


def completion(text: str) -> Completion:
    return Completion(text, (1, 2), "stop", 0.5, Usage(46, 60, 12, 11, 9000, False))


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """The row as it comes back from the answers table."""
    (back,) = pa.Table.from_pylist([row], schema=ANSWERS).to_pylist()
    return back


def test_a_response_becomes_a_typed_row() -> None:
    text = f"I see {format_boxes('red square', [(0, 0, 999, 999)])}</think>There is 1 at {format_points([(500, 250)])}."
    row = typed(answer_row(AUTHOR, image_row(200, 100), 0, completion(text), NOW))
    assert (row["run_id"], row["image_id"], row["question_id"], row["question"]) == ("run-1", "i", "0", "Where?")
    assert (row["status"], row["error"], row["answer"]) == ("ok", None, "There is 1 at.")
    assert row["reasoning"] == text.split("</think>")[0]
    box, point = row["primitives"]
    assert (box["kind"], box["label"], box["part"], box["group"]) == ("box", "red square", "reasoning", 0)
    assert (box["x1"], box["y1"], box["x2"], box["y2"]) == (0, 0, 200, 100)
    assert (point["kind"], point["part"], point["x2"], point["y2"]) == ("point", "answer", None, None)
    assert (point["x1"], point["y1"]) == pytest.approx((100, 25), abs=0.2)
    assert (box["frame"], point["frame"]) == ([0, 0, 999, 999], [500, 250, None, None])
    assert row["usage"]["kv_entries"] == 11 and row["answered_at"] == NOW and row["model_revision"] == "cafe"


def test_an_error_row_has_the_same_columns_and_says_why() -> None:
    error = {"stage": "fetch", "kind": "missing", "message": "gone", "attempts": 3}
    row = typed(error_row(AUTHOR, image_row(200, 100, "a?", None), 1, error, NOW))
    assert (row["status"], row["error"], row["question"], row["question_id"]) == ("error", error, None, "1")
    assert row["answer"] is None and row["usage"] is None and row["prompt_sha256"] is None


def test_the_schema_names_its_version() -> None:
    assert ANSWERS.metadata == {b"deixis.schema_version": b"2"}


def test_a_wrong_box_is_kept_and_marked() -> None:
    row = answer_row(AUTHOR, image_row(100, 100), 0, completion("</think><｜box｜>[[900,1,100,5000]]<｜/box｜>"), NOW)
    (box,) = typed(row)["primitives"]
    assert (box["valid"], box["frame"], box["y2"]) == (False, [900, 1, 100, 5000], 100)


@pytest.mark.parametrize(
    ("answer", "number"),
    [("3", 3), (" 3. ", 3), ("-2.5", -2.5), ("1,200", 1200), ("1,20", None), ("three", None),
     ("3 cats", None), ("", None), ("nan", None)],
)  # fmt: skip
def test_an_answer_is_a_number_when_it_is_nothing_else(answer: str, number: float | None) -> None:
    assert number_in(answer) == number


sizes = st.tuples(st.integers(40, 900), st.integers(40, 900))
shares = st.tuples(*[st.floats(0.02, 0.98)] * 4)


@settings(deadline=None, max_examples=40)
@given(size=sizes, share=shares, orientation=st.integers(1, 8), frame=st.sampled_from(["image", "canvas"]))
def test_a_known_box_comes_back_through_odd_sizes_and_orientations(
    size: tuple[int, int], share: tuple[float, ...], orientation: int, frame: Any
) -> None:
    """What a model sees of a turned, resized, padded picture, pointed at in its frame, lands on the original."""
    config = replace(CONFIG, primitive_frame=frame)
    width, height = size
    x1, x2 = sorted((round(share[0] * width), round(share[2] * width)))
    y1, y2 = sorted((round(share[1] * height), round(share[3] * height)))
    box = (x1, y1, max(x2, x1 + 6), max(y2, y1 + 6))
    data = turned(picture(width, height, box), orientation, "PNG")
    header, upright = check(data, 10**9, 10**9), decode(data)
    if frame == "canvas":
        seen = model_image.to_canvas(upright, model_image.plan(*upright.size, config))
    else:
        seen = upright
    numbers = [round(value / seen.size[axis % 2] * 999) for axis, value in enumerate(found_box(seen))]
    text = f"</think>{format_boxes('thing', [numbers])}"
    row = answer_row(AUTHOR_OF[frame], image_row(header.width, header.height), 0, completion(text), NOW)
    (found,) = row["primitives"]
    got = [found[name] for name in ("x1", "y1", "x2", "y2")]
    assert (header.width, header.height) == size
    edges = (width, height, width, height)
    clipped = [min(value, edge) for value, edge in zip(box, edges, strict=True)]
    assert np.abs(np.subtract(got, clipped) / edges).max() <= 0.015


AUTHOR_OF = {frame: replace(AUTHOR, config=replace(CONFIG, primitive_frame=frame)) for frame in ("image", "canvas")}


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (20, 3000), (8000, 31), (701, 1)])
def test_extreme_shapes_map_into_the_picture(size: tuple[int, int]) -> None:
    header = check(encoded(picture(*size, (0, 0, 1, 1))), 10**9, 10**9)
    for author in AUTHOR_OF.values():
        text = f"</think>{format_boxes('all', [(0, 0, 999, 999)])}"
        row = answer_row(author, image_row(header.width, header.height), 0, completion(text), NOW)
        (found,) = row["primitives"]
        assert [found[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([0, 0, *size])
