"""The order in which a reference response of the suite "counting" goes through what might count."""

from __future__ import annotations

from itertools import pairwise

from model.primitives import parse
from model.tasks.counting import SUITE
from model.tasks.suite import Case


def some(count: int) -> list[Case]:
    return [SUITE.case(seed, "medium", "train") for seed in range(count)]


def test_a_collage_is_scanned_line_by_line_and_a_line_from_the_left() -> None:
    beside = below = 0
    for case in some(200):
        if case.kind != "shelf":
            height = case.image.height
            frames = [primitive.frame for primitive in parse(case.response)]
            for (x1, y1, x2, y2), (later1, later2, later3, later4) in pairwise(frames):
                middle, next_middle = ((a + b) / 2 / 999 * height for a, b in ((y1, y2), (later2, later4)))
                assert next_middle // 84 >= middle // 84 or abs(middle % 84 - 42) > 41  # rounded to a 999th
                if next_middle // 84 == middle // 84:
                    assert later1 + later3 >= x1 + x2 - 2
                    beside += 1
                below += next_middle // 84 > middle // 84
    assert beside > 100 and below > 100


def test_a_shelf_is_scanned_board_by_board() -> None:
    boards = 0
    for case in some(100):
        if case.kind == "shelf":
            frames = [primitive.frame for primitive in parse(case.response)]
            assert [(y2, x1) for x1, _, _, y2 in frames] == sorted((y2, x1) for x1, _, _, y2 in frames)
            boards += len({y2 for *_, y2 in frames}) > 1
    assert boards > 5
