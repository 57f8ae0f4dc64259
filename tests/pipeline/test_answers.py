"""Responses become answer rows: typed, and in the pixels of the original, upright image."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model import image as model_image
from model.config import Config
from model.engine import Completion, Usage
from model.primitives import format_boxes, format_points, parse, well_formed
from model.prompt import END_THINK, THINK
from model.tasks.suite import to_pixels
from pipeline.answers import Author, answer_row, error_row, response_of
from pipeline.decoding import check, decode
from pipeline.engines.views import NativeView
from pipeline.rows import ANSWERS
from tests.model.test_primitives import FRAGMENTS, boxes, points
from tests.pipeline.pictures import encoded, found_box, picture, turned

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
CONFIG = Config(vision_min_pixels=126 * 126, vision_max_n_token=384)
AUTHOR = Author("run-1", "tiny", "cafe", NativeView(CONFIG))


def image_row(width: int, height: int, *questions: str | None) -> dict[str, Any]:
    return {
        "image_id": "i", "image_uri": "i.png", "image_sha256": "00", "image_width": width, "image_height": height,
        "questions": list(questions or ("Where?",)), "notes": ["turned by its EXIF orientation"],
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


AUTHOR_OF = {
    frame: replace(AUTHOR, view=NativeView(replace(CONFIG, primitive_frame=frame))) for frame in ("image", "canvas")
}


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (20, 3000), (8000, 31), (701, 1)])
def test_extreme_shapes_map_into_the_picture(size: tuple[int, int]) -> None:
    header = check(encoded(picture(*size, (0, 0, 1, 1))), 10**9, 10**9)
    for author in AUTHOR_OF.values():
        text = f"</think>{format_boxes('all', [(0, 0, 999, 999)])}"
        row = answer_row(author, image_row(header.width, header.height), 0, completion(text), NOW)
        (found,) = row["primitives"]
        assert [found[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([0, 0, *size])


@pytest.mark.parametrize(
    ("size", "notes"),
    [((60, 40), ["enlarged for the model"]), ((4000, 3000), ["reduced for the model"]),
     ((3000, 100), ["reduced for the model", "squeezed for the model"]), ((252, 252), [])],
)  # fmt: skip
def test_what_was_done_to_the_image_stands_in_its_row(size: tuple[int, int], notes: list[str]) -> None:
    row = typed(answer_row(AUTHOR, image_row(*size), 0, completion("3"), NOW, shared=True))
    assert row["image_notes"] == ["turned by its EXIF orientation", *notes] and row["usage"]["shared_answer"]
    error = {"stage": "decode", "kind": "crashed", "message": "https://a:secret@h", "attempts": 2}
    failed = typed(error_row(AUTHOR, image_row(*size), 0, error, NOW))
    assert failed["image_notes"] == ["turned by its EXIF orientation"]
    assert failed["error"]["message"] == "https://***@h"


# ---- the response that a row was made of

pieces = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.builds(format_boxes, st.none() | st.just("red mug"), boxes),
    st.builds(format_points, points),
)
responses = st.lists(pieces, max_size=16).map("".join)


def test_an_answer_is_kept_with_its_tags_and_so_is_whether_thinking_ended() -> None:
    ended, open_ = (typed(answer_row(AUTHOR, image_row(9, 9), 0, completion(text), NOW)) for text in ("</think>2", "2"))
    assert (ended["answer"], ended["answer_markup"], ended["reasoning"]) == ("2", "2", "")
    assert (open_["answer"], open_["answer_markup"], open_["reasoning"]) == ("2", "2", None)
    assert (response_of(ended), response_of(open_)) == ("</think>2", "2")


@settings(deadline=None, max_examples=300)
@example(text="<think><think>doubled</think>2")
@example(text="<think>once</think>2")
@given(text=responses)
def test_a_response_comes_back_from_its_row_but_for_the_think_that_opens_it(text: str) -> None:
    """Malformed responses as well as good ones: nothing is mended on the way."""
    back = response_of(typed(answer_row(AUTHOR, image_row(64, 48), 0, completion(text), NOW)))
    assert back in (text, text.removeprefix(THINK))
    assert well_formed(back) == well_formed(text) and (END_THINK in back) == (END_THINK in text)
    assert parse(back) == parse(text)


@settings(deadline=None, max_examples=100)
@example(text="</think><｜box｜>[[990,5,980,9]]<｜/box｜>", size=(100, 700))  # turned round, in the padding
@example(text="</think><｜box｜>[[010,5,20,9]]<｜/box｜>", size=(40, 100))
@given(text=responses, size=st.tuples(st.integers(30, 400), st.integers(30, 400)))
def test_numbers_of_the_canvas_become_the_images_and_nothing_is_mended(text: str, size: tuple[int, int]) -> None:
    config = replace(CONFIG, primitive_frame="canvas")
    view = NativeView(config)
    moved = view.judged(text, size)
    assert well_formed(moved) == well_formed(text)
    assert NativeView(CONFIG).judged(text, size) == text
    if not well_formed(text):
        return
    row = typed(answer_row(replace(AUTHOR, view=view), image_row(*size), 0, completion(text), NOW))
    for found, pixels in zip(parse(moved), row["primitives"], strict=True):
        due = [pixels[name] for name in ("x1", "y1", "x2", "y2") if pixels[name] is not None]
        assert to_pixels(found.frame, size) == pytest.approx(due, abs=max(size) / 999)
