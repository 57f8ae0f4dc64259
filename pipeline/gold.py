"""Answers against gold answers: exact share, and the boxes' IoU matched one to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from model.tasks.general import same
from model.tasks.matching import Box, mean_iou


class Score(NamedTuple):
    """One answer row's score; None where the catalog has no gold, or there was nothing to match."""

    exact: bool | None
    iou: float | None


def score(row: Mapping[str, Any], gold_answer: str | None, gold_boxes: Sequence[Sequence[float]] | None) -> Score:
    """An answer row's score; an error row with gold is wrong, and so are its boxes.

    The boxes that count are those of the answer, or, when it has none, those of the reasoning. Gold boxes that are not
    four numbers each are not scored.
    """
    exact = None if gold_answer is None else same(row["answer"], gold_answer)
    iou = None
    if gold_boxes is not None and all(len(box) == 4 for box in gold_boxes):
        iou = mean_iou(boxes_of(row), [(box[0], box[1], box[2], box[3]) for box in gold_boxes])
    return Score(exact, iou)


def boxes_of(row: Mapping[str, Any]) -> list[Box]:
    """The valid boxes that an answer row stands by, in pixels."""
    boxes = [found for found in row["primitives"] or () if found["kind"] == "box" and found["valid"]]
    part = "answer" if any(box["part"] == "answer" for box in boxes) else "reasoning"
    return [(box["x1"], box["y1"], box["x2"], box["y2"]) for box in boxes if box["part"] == part]
