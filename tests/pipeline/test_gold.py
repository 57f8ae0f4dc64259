"""Scores against gold answers."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.gold import boxes_of, score


def row(answer: str | None, *boxes: tuple[float, ...], part: str = "answer", valid: bool = True) -> dict[str, Any]:
    return {
        "answer": answer,
        "primitives": [
            {"kind": "box", "part": part, "valid": valid, **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
            for box in boxes
        ],
    }


@pytest.mark.parametrize(
    ("answer", "gold", "exact"),
    [("3", "3", True), ("3.", "3.0", True), (" Yes. ", "yes", True), ("4", "3", False),
     ("", "no", False), (None, "no", False)],
)  # fmt: skip
def test_an_answer_is_exact_as_a_number_or_as_words(answer: str | None, gold: str, exact: bool) -> None:
    assert score(row(answer), gold, None) == (exact, None)


def test_boxes_are_matched_one_to_one_and_a_missed_or_surplus_one_counts_as_nothing() -> None:
    a, b = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)
    assert score(row("2", b, a), None, [a, b]).iou == 1
    assert score(row("1", a), None, [a, b]).iou == 0.5
    assert score(row("2", a, a), None, [a]).iou == 0.5
    assert score(row(None), None, [a]).iou == 0
    assert score(row("0"), None, []).iou is None
    assert score(row("2", a), None, [[1.0, 2.0]]).iou is None


def test_the_reasonings_boxes_count_only_when_the_answer_has_none() -> None:
    a, b = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)
    both = {"primitives": row(None, a)["primitives"] + row(None, b, part="reasoning")["primitives"]}
    assert boxes_of(both) == [a]
    assert boxes_of(row(None, b, part="reasoning")) == [b]
    assert boxes_of(row(None, a, valid=False)) == []
    assert boxes_of({"primitives": None}) == []
