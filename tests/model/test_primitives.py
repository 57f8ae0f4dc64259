from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.primitives import Primitive, format_boxes, format_points, parse, split, strip, well_formed

number = st.integers(0, 999)
points = st.lists(st.tuples(number, number), min_size=1, max_size=5)
boxes = st.lists(
    st.tuples(number, number, number, number).map(
        lambda n: (min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]), max(n[1], n[3]))
    ),
    min_size=1,
    max_size=5,
)
labels = (
    st.text(st.characters(exclude_characters="<>｜", exclude_categories=("Cc", "Cs")), min_size=1)
    .map(str.strip)
    .filter(bool)
)
FRAGMENTS = [
    *("<｜ref｜>", "<｜/ref｜>", "<｜box｜>", "<｜/box｜>", "<｜point｜>", "<｜/point｜>", "<think>", "</think>"),
    *(
        "[[",
        "]]",
        "],[",
        ",",
        "1",
        "12",
        "-3",
        "1000",
        "9" * 30,
        "٣",
        "[[1,2,3,4]]",
        "[[1,2]]",
        "red",
        " ",
        "\n",
        "<｜",
        "｜>",
    ),
]
responses = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=24).map("".join)

TWO_PARTS = (
    "<｜ref｜>red mug<｜/ref｜><｜box｜>[[1,2,30,40],[50,6,70,80]]<｜/box｜> at <｜point｜>[[7,8]]<｜/point｜></think>"
    "There are 2: <｜ref｜>mug<｜/ref｜><｜box｜>[[1,2,30,40]]<｜/box｜>."
)


def test_a_response_is_read_with_labels_parts_groups_and_items() -> None:
    assert parse(TWO_PARTS) == [
        Primitive("box", "red mug", "reasoning", 0, 0, (1, 2, 30, 40), True),
        Primitive("box", "red mug", "reasoning", 0, 1, (50, 6, 70, 80), True),
        Primitive("point", None, "reasoning", 1, 0, (7, 8), True),
        Primitive("box", "mug", "answer", 2, 0, (1, 2, 30, 40), True),
    ]


def test_without_an_end_of_thinking_everything_is_answer() -> None:
    assert split("<｜point｜>[[1,2]]<｜/point｜>") == ("", "<｜point｜>[[1,2]]<｜/point｜>")
    assert parse("<｜point｜>[[1,2]]<｜/point｜>")[0].part == "answer"


def test_the_first_end_of_thinking_parts_the_response() -> None:
    assert split("<think>a</think>b</think>c") == ("a", "b</think>c")


@pytest.mark.parametrize(
    ("entry", "frame"),
    [
        ("[[1000,2,1001,4]]", (1000, 2, 1001, 4)),
        ("[[-1,2,3,4]]", (-1, 2, 3, 4)),
        ("[[9,2,3,4]]", (9, 2, 3, 4)),
        ("[[1,9,3,4]]", (1, 9, 3, 4)),
        ("[[1,2,99999999999,-99999999999]]", (1, 2, 32767, -32768)),
    ],
)
def test_impossible_numbers_are_kept_but_marked_invalid(entry: str, frame: tuple[int, ...]) -> None:
    assert parse(f"<｜box｜>{entry}<｜/box｜>") == [Primitive("box", None, "answer", 0, 0, frame, False)]


@pytest.mark.parametrize("entry", ["[[1,2,3]]", "[[1,2,3,4,5]]", "[[a,2,3,4]]", "[[1.5,2,3,4]]", "[[]]", "", "1,2,3,4"])
def test_what_is_not_integers_of_the_right_number_is_left_out(entry: str) -> None:
    assert parse(f"<｜box｜>{entry}<｜/box｜><｜point｜>[[5,6]]<｜/point｜>") == [
        Primitive("point", None, "answer", 1, 0, (5, 6), True)
    ]


def test_a_box_cut_by_length_keeps_its_whole_entries() -> None:
    assert [p.frame for p in parse("<｜box｜>[[1,2,3,4],[5,6")] == [(1, 2, 3, 4)]


def test_a_label_belongs_only_to_the_tag_directly_after_it() -> None:
    assert [p.label for p in parse("<｜ref｜>mug<｜/ref｜> here: <｜point｜>[[1,2]]<｜/point｜>")] == [None]


def test_stripped_text_reads_as_words() -> None:
    assert strip(TWO_PARTS.partition("</think>")[2]) == "There are 2: mug."
    assert strip("<｜ref｜>mug<｜/ref｜>none") == "mug none"
    assert strip("one <｜point｜>[[1,2]]<｜/point｜> , two") == "one, two"
    assert strip("seen <｜box｜>[[1,2,3,4]] twice") == "seen twice"


@given(boxes=boxes, label=st.none() | labels)
def test_formatted_boxes_are_read_back(boxes: list[tuple[int, ...]], label: str | None) -> None:
    text = format_boxes(label, boxes)
    assert well_formed(text)
    assert parse(text) == [Primitive("box", label, "answer", 0, i, box, True) for i, box in enumerate(boxes)]


@given(points=points, label=st.none() | labels)
def test_formatted_points_are_read_back(points: list[tuple[int, ...]], label: str | None) -> None:
    text = format_points(points, label)
    assert well_formed(text)
    assert parse(text) == [Primitive("point", label, "answer", 0, i, point, True) for i, point in enumerate(points)]


@pytest.mark.parametrize(
    ("label", "boxes"),
    [("a", []), ("a", [(1, 2, 3)]), ("a", [(3, 2, 1, 4)]), ("a", [(0, 0, 0, 1000)]), (" ", [(1, 2, 3, 4)])],
)
def test_a_box_that_is_none_is_not_formatted(label: str, boxes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError):
        format_boxes(label, boxes)


@given(text=responses)
def test_no_text_makes_reading_fail(text: str) -> None:
    for primitive in parse(text):
        assert len(primitive.frame) == (4 if primitive.kind == "box" else 2)
        assert all(-32768 <= n <= 32767 for n in primitive.frame)
    bare = strip(text)
    assert not any(tag in bare for tag in FRAGMENTS[:8])
    assert bare == bare.strip()
    well_formed(text)


@given(text=responses)
def test_a_well_formed_text_holds_only_valid_primitives(text: str) -> None:
    if well_formed(text):
        groups = {p.group for p in parse(text)}
        assert len(groups) == text.count("<｜box｜>") + text.count("<｜point｜>")
        assert all(p.valid for p in parse(text))


@pytest.mark.parametrize(
    "text", ["", "plain [[1,2]] text", TWO_PARTS, "<think>hm</think>2", "<｜ref｜>mug<｜/ref｜>none"]
)
def test_correct_responses_are_well_formed(text: str) -> None:
    assert well_formed(text)


@pytest.mark.parametrize(
    "text",
    [
        "<｜box｜>[[1,2,3,4]]",
        "[[1,2,3,4]]<｜/box｜>",
        "<｜box｜>[[1,2,3,4]]<｜/point｜>",
        "<｜box｜>[[1,2]]<｜/box｜>",
        "<｜box｜>[[1,2,3,4],]<｜/box｜>",
        "<｜box｜>[[01,2,3,4]]<｜/box｜>",
        "<｜box｜>[[9,2,3,4]]<｜/box｜>",
        "<｜point｜>[[1000,2]]<｜/point｜>",
        "<｜point｜>[[1, 2]]<｜/point｜>",
        "<｜ref｜><｜/ref｜>",
        "<｜ref｜>a<｜box｜>[[1,2,3,4]]<｜/box｜><｜/ref｜>",
        "<｜ref｜>a</think>",
        "a</think>b</think>c",
        "a<think>b</think>c",
    ],
)
def test_faulty_responses_are_not_well_formed(text: str) -> None:
    assert not well_formed(text)
