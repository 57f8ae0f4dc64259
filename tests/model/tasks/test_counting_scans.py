"""The order in which a reference response of the suite "counting" goes through what might count."""

from __future__ import annotations

from model.primitives import parse
from model.tasks.counting import SUITE
from model.tasks.suite import Case


def some(count: int) -> list[Case]:
    return [SUITE.case(seed, "medium", "train") for seed in range(count)]


def test_a_collage_is_scanned_from_the_left_and_what_stands_above_one_another_in_any_order() -> None:
    strict = near = turned = 0
    for case in some(200):
        if case.kind != "shelf":
            frames = [primitive.frame for primitive in parse(case.response)]
            for i, (left, *_) in enumerate(frames):
                for later, *_ in frames[i + 1 :]:
                    assert left - later <= 2 * 0.03 * 999 + 1
                    near, turned = near + (abs(left - later) < 15), turned + (0 < left - later < 15)
                    strict += later - left > 60
    assert strict > 1000 and 0.25 < turned / near < 0.5  # of those nearly above one another, each order


def test_a_shelf_is_scanned_board_by_board() -> None:
    boards = 0
    for case in some(100):
        if case.kind == "shelf":
            frames = [primitive.frame for primitive in parse(case.response)]
            assert [(y2, x1) for x1, _, _, y2 in frames] == sorted((y2, x1) for x1, _, _, y2 in frames)
            boards += len({y2 for *_, y2 in frames}) > 1
    assert boards > 5
