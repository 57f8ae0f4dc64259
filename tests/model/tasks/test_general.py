"""Cases of other people's: the answer, or one of those accepted; boxes reported."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from model.primitives import format_boxes
from model.tasks.general import judge, number_in, same
from model.tasks.suite import Case, to_frame

A, B = (0.0, 0.0, 100.0, 50.0), (100.0, 50.0, 200.0, 100.0)


def case(answer: str, **more: Any) -> Case:
    return Case("theirs", "given", "open", Image.new("RGB", (200, 100)), "What?", answer, f"</think>{answer}", **more)


def boxed(*boxes: tuple[float, ...]) -> str:
    return format_boxes("it", [to_frame(box, (200, 100)) for box in boxes])


@pytest.mark.parametrize(
    ("answer", "number"),
    [("3", 3), (" 3. ", 3), ("-2.5", -2.5), ("1,200", 1200), ("1,20", None), ("three", None),
     ("3 cats", None), ("", None), ("nan", None)],
)  # fmt: skip
def test_an_answer_is_a_number_when_it_is_nothing_else(answer: str, number: float | None) -> None:
    assert number_in(answer) == number


@pytest.mark.parametrize(
    ("given", "due", "equal"),
    [("3", "3", True), ("3.", "3.0", True), ("1,200", "1200", True), (" Red  mug. ", "red mug", True),
     ("4", "3", False), ("", "no", False), (None, "no", False), ("mug", "red mug", False)],
)  # fmt: skip
def test_answers_are_equal_as_numbers_or_as_words(given: str | None, due: str, equal: bool) -> None:
    assert same(given, due) is equal


def test_an_accepted_alternative_is_as_good_as_the_answer() -> None:
    mug = case("mug", truth={"accepted": ["cup", "2"]})
    scores = {text: judge(mug, f"</think>{text}").score for text in ("mug", "Cup.", "2.0", "glass")}
    assert scores == {"mug": 1, "Cup.": 1, "2.0": 1, "glass": 0}


def test_a_response_that_never_ends_its_thinking_has_no_answer() -> None:
    assert not judge(case("mug"), "mug").exact and judge(case("mug"), "a mug?</think>mug").exact


def test_boxes_are_reported_where_the_case_has_some_and_cost_nothing() -> None:
    two = case("2", boxes=(A, B))
    assert judge(two, f"{boxed(A, B)}</think>2").iou == pytest.approx(1, abs=0.02)
    half = judge(two, f"{boxed(A)}</think>2")
    assert half.score == 1 and half.iou == pytest.approx(0.5, abs=0.01)
    assert judge(two, "</think>2").iou == 0
    assert judge(case("2"), f"{boxed(A)}</think>2").iou is None


def test_the_thinkings_boxes_count_only_when_the_answer_has_none() -> None:
    one = case("1", boxes=(A,))
    assert judge(one, f"{boxed(B)}</think>{boxed(A)}1").iou == pytest.approx(1, abs=0.02)
    assert judge(one, f"{boxed(A)}</think>1").iou == pytest.approx(1, abs=0.02)
