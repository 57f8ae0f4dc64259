"""Frames: numbers of every family come back as pixels of the original, and no text is too odd to be read."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.primitives import FRAME_MAX, format_boxes, format_points
from pipeline.engines.frames import FRAMES, JsonFrame, Located, Size, fitted, frame_of

ALL = sorted(FRAMES)
JSON_FRAMES = [name for name in ALL if isinstance(FRAMES[name], JsonFrame)]
ORIGINAL, SENT = (640, 480), (640, 480)
MAX_PIXELS = 400_000

sizes = st.tuples(st.integers(56, 4000), st.integers(56, 4000))
shares = st.tuples(*[st.floats(0.0, 1.0)] * 4).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)
odd_texts = st.text() | st.lists(
    st.sampled_from(
        ['{"bbox_2d": [1, 2, 3, 4]}', '{"box": [', "[[", "]]", "{", "}", "```json\n", "```", "Answer:", "\n",
         "</think>", '"label": "x"', '{"point": [1e999, NaN]}', '{"objects": null, "answer": ["x"]}', "9" * 5000,
         "-1", "[[[[[[", '{"box_2d": "12, 5"}', "<｜box｜>[[1,2", "\x00", "\ud800"]
    )
).map("".join)  # fmt: skip


def written(name: str, share: tuple[float, ...], sent: Size) -> str:
    """A response of this family that points at a box given in shares of the image, by the book."""
    x1, y1, x2, y2 = share
    if name == "deepseek":
        return format_boxes("cup", [[round(value * FRAME_MAX) for value in share]]) + "</think>1"
    thousandths: list[float] = [round(value * 1000) for value in share]
    special: dict[str, list[float]] = {
        "qwen2.5-vl": [round(value * sent[axis % 2]) for axis, value in enumerate(share)],
        "gemini": [round(value * 1000) for value in (y1, x1, y2, x2)],
        "unit": [round(value, 3) for value in share],
    }
    values = special.get(name, thousandths)
    key = {"qwen2.5-vl": "bbox_2d", "qwen3-vl": "bbox_2d", "gemini": "box_2d"}.get(name, "box")
    things: list[dict[str, Any]] = [{key: values, "label": "cup"}]
    if name == "json":
        return json.dumps({"objects": things, "answer": "1"})
    return f"```json\n{json.dumps(things)}\n```\nAnswer: 1"


def boxes(name: str, text: str, original: Size = ORIGINAL, sent: Size = SENT) -> list[Located]:
    return list(frame_of(name).read(text, original, sent).primitives)


@pytest.mark.parametrize("name", ALL)
@given(original=sizes, share=shares)
def test_a_box_comes_back_in_original_pixels_on_any_size(name: str, original: Size, share: tuple[float, ...]) -> None:
    frame = frame_of(name)
    sent = frame.sent_size(original, MAX_PIXELS)
    reading = frame.read(written(name, share, sent), original, sent)
    (box,) = reading.primitives
    assert (box.kind, box.label, box.valid, reading.answer) == ("box", "cup", True, "1")
    assert box.pixels is not None
    for axis, (found, due) in enumerate(zip(box.pixels, share, strict=True)):
        assert abs(found / original[axis % 2] - due) <= 0.015


@pytest.mark.parametrize("name", ALL)
@given(text=odd_texts)
@example(text='{"point": [' + "9" * 400 + ", 1]}")
@example(text="[" * 20_000)
@example(text='{"box": {"box": [1, 2, 3, 4]}}')
def test_no_text_is_too_odd_to_be_read(name: str, text: str) -> None:
    reading = frame_of(name).read(text, ORIGINAL, SENT)
    for found in reading.primitives:
        assert (found.pixels is not None) == found.valid
        if found.pixels is not None:
            assert all(0 <= value <= ORIGINAL[axis % 2] for axis, value in enumerate(found.pixels))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen2.5-vl", '{"bbox_2d": [10, 20, 641, 90]}'),  # beyond the right edge of what was sent
        ("qwen2.5-vl", '{"bbox_2d": [0.1, 0.2, 0.5, 0.9]}'),  # shares of the image
        ("qwen3-vl", '{"bbox_2d": [10, 20, 1001, 90]}'),
        ("qwen3-vl", '{"bbox_2d": [0.1, 0.2, 0.5, 0.9]}'),
        ("qwen3-vl", '{"bbox_2d": [50, 20, 10, 90]}'),  # corners in the wrong order
        ("qwen3-vl", '{"bbox_2d": [50, 20, 10]}'),
        ("qwen3-vl", '{"bbox_2d": "50, 20, 60, 90"}'),
        ("qwen3-vl", '{"bbox_2d": [-1, 20, 60, 90]}'),
        ("qwen3-vl", '{"bbox_2d": [true, 20, 60, 90]}'),
        ("gemini", '{"box_2d": [10, 60, 20, 50]}'),
        ("unit", '{"box": [10, 20, 300, 400]}'),
        ("json", '{"objects": [{"box": [1, 2, NaN, 4]}]}'),
        ("deepseek", "<｜box｜>[[500,20,10,90]]<｜/box｜>"),
    ],
)  # fmt: skip
def test_what_lies_outside_or_looks_like_another_frame_is_flagged_and_never_guessed(name: str, text: str) -> None:
    (found,) = boxes(name, text)
    assert not found.valid
    assert found.pixels is None


def test_the_first_number_of_gemini_is_y() -> None:
    (box,) = boxes("gemini", '[{"box_2d": [100, 200, 300, 400], "label": "cup"}]', (1000, 500))
    assert box.frame == (200, 100, 400, 300)
    assert box.pixels == (200.0, 50.0, 400.0, 150.0)


def test_pixels_of_the_image_as_sent_become_pixels_of_the_original() -> None:
    (point,) = boxes("qwen2.5-vl", '{"point_2d": [28, 56], "label": "cup"}', original=(1000, 800), sent=(560, 448))
    assert (point.kind, point.frame, point.pixels) == ("point", (28, 56), (50.0, 100.0))


def test_the_frame_column_keeps_fractions_as_thousandths() -> None:
    (box,) = boxes("unit", '{"box": [0.25, 0.5, 0.75, 1.0]}')
    assert box.frame == (250, 500, 750, 1000)


def test_several_lists_are_groups_and_their_entries_items() -> None:
    text = (
        '[{"bbox_2d": [0, 0, 9, 9]}, {"bbox_2d": [9, 9, 20, 20]}] and [{"point_2d": [[5, 5], [6, 6]], "label": "path"}]'
    )
    places = [(found.kind, found.group, found.item) for found in boxes("qwen3-vl", text)]
    assert places == [("box", 0, 0), ("box", 0, 1), ("point", 1, 0), ("point", 1, 1)]


def test_what_is_whole_in_a_list_that_broke_off_is_kept() -> None:
    text = '[{"bbox_2d": [0, 0, 9, 9], "label": "cup"}, {"bbox_2d": [9, 9, 2'
    assert [found.frame for found in boxes("qwen3-vl", text)] == [(0, 0, 9, 9)]


def test_boxes_in_the_thinking_are_told_from_those_in_the_answer() -> None:
    text = '<think>{"bbox_2d": [0, 0, 9, 9]}</think>{"bbox_2d": [1, 1, 8, 8]}'
    assert [(found.part, found.group) for found in boxes("qwen3-vl", text)] == [("reasoning", 0), ("answer", 1)]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Two cups.", "Two cups."),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n```\nAnswer: -2', "-2"),
        ('[{"bbox_2d": [1, 2, 3, 4]}]\n**Final answer:** $3.50', "$3.50"),
        ('Answer: 1\nno, wait\n**Answer: 2**', "2"),
        ("I see [1] and [2].", "I see [1] and [2]."),
        ('[{"bbox_2d": [1, 2, 3, 4]}]', ""),
    ],
)  # fmt: skip
def test_the_answer_is_what_follows_the_last_answer_mark_or_the_words_around_the_json(text: str, answer: str) -> None:
    assert frame_of("qwen3-vl").read(text, ORIGINAL, SENT).answer == answer


def test_the_answer_of_a_wrapped_object_is_its_own_field() -> None:
    text = 'I look.</think>{"objects": [{"box": [1, 2, 3]}], "answer": 4}'
    assert frame_of("json").read(text, ORIGINAL, SENT).answer == "4"
    assert frame_of("json").read("Two.", ORIGINAL, SENT).answer == "Two."


def test_tags_are_read_as_the_native_model_writes_them() -> None:
    text = format_boxes("cup", [(0, 0, 999, 999)]) + "</think>" + format_points([(0, 999)])
    box, point = boxes("deepseek", text)
    assert (box.pixels, box.part) == ((0.0, 0.0, 640.0, 480.0), "reasoning")
    assert (point.pixels, point.part) == ((0.0, 480.0), "answer")


@pytest.mark.parametrize("name", ALL)
def test_a_question_that_need_not_point_is_asked_as_it_is(name: str) -> None:
    assert frame_of(name).ask("What is this?", point=False) == "What is this?"
    assert frame_of(name).ask("What is this?", point=True).startswith("What is this?\n")


@pytest.mark.parametrize("name", JSON_FRAMES)
def test_the_words_that_ask_to_point_name_the_key_that_is_read(name: str) -> None:
    frame = FRAMES[name]
    assert isinstance(frame, JsonFrame)
    assert f'"{frame.box_key}"' in frame.ask("Where?", point=True)


@given(original=sizes, grid=st.sampled_from([1, 14, 28, 32]), max_pixels=st.integers(1024, 10**7))
def test_what_is_sent_fits_the_limit_and_the_grid(original: Size, grid: int, max_pixels: int) -> None:
    width, height = fitted(original, max_pixels, grid)
    assert width * height <= max_pixels
    assert min(width, height) >= grid
    assert width % grid == height % grid == 0
    assert width <= original[0] + grid / 2
    assert height <= original[1] + grid / 2


def test_a_limit_below_one_cell_and_an_unknown_frame_are_refused() -> None:
    with pytest.raises(ValueError, match="less than one cell of 28 x 28"):
        fitted((100, 100), 100, 28)
    with pytest.raises(ValueError, match="choose from deepseek"):
        frame_of("owl")


def test_a_response_held_to_the_contract_is_one_that_the_frame_reads() -> None:
    frame = frame_of("json")
    schema = frame.schema(True)
    assert schema is not None
    response = {"objects": [{"box": [10, 20, 500, 1000], "label": "cup"}], "answer": "one"}
    jsonschema.validate(response, schema)
    (box,) = boxes("json", json.dumps(response))
    assert box.valid and box.label == "cup"
    short = {"objects": [{"box": [1, 2, 3], "label": "x"}], "answer": ""}
    broken: list[dict[str, Any]] = [{"objects": []}, short, {**response, "x": 1}]
    for each in broken:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(each, schema)


@pytest.mark.parametrize("name", ALL)
def test_only_a_frame_that_is_json_alone_has_a_schema_and_only_where_it_points(name: str) -> None:
    assert (frame_of(name).schema(True) is not None) == (name == "json")
    assert frame_of(name).schema(False) is None
