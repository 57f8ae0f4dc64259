from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.matching import Box, hits, iou, mean_iou

A: Box = (0.0, 0.0, 10.0, 10.0)
B: Box = (20.0, 0.0, 30.0, 10.0)


def test_iou_of_known_boxes() -> None:
    assert iou(A, A) == 1.0
    assert iou(A, B) == 0.0
    assert iou(A, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("bad", [(5.0, 5.0, 5.0, 5.0), (10.0, 10.0, 0.0, 0.0), (0.0, 10.0, 10.0, 0.0)])
def test_a_box_without_area_or_inside_out_overlaps_nothing(bad: Box) -> None:
    assert iou(A, bad) == 0.0 and iou(bad, bad) == 0.0


def test_missing_and_surplus_boxes_count_as_zero() -> None:
    assert mean_iou([A], [A, B]) == pytest.approx(0.5)
    assert mean_iou([A, A, B], [A, B]) == pytest.approx(2 / 3)
    assert mean_iou([], [A]) == 0.0 and mean_iou([A], []) == 0.0
    assert mean_iou([], []) is None


def random_boxes(seed: int, n: int) -> list[Box]:
    low = np.random.default_rng(seed).uniform(0, 12, size=(n, 2))
    size = np.random.default_rng(seed + 1).uniform(4, 12, size=(n, 2))
    return [(float(x), float(y), float(x + w), float(y + h)) for (x, y), (w, h) in zip(low, size, strict=True)]


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
def test_the_matching_is_the_best_of_all_permutations(seed: int, n: int, m: int) -> None:
    few, many = sorted((random_boxes(seed, n), random_boxes(seed + 2, m)), key=len)
    best = max(
        sum(iou(a, b) for a, b in zip(few, chosen, strict=True)) for chosen in itertools.permutations(many, len(few))
    )
    assert mean_iou(few, many) == pytest.approx(best / len(many))
    assert mean_iou(many, few) == pytest.approx(best / len(many))


def test_many_boxes_are_matched_one_to_one_too() -> None:
    boxes: list[Box] = [(i * 20.0, 0.0, i * 20.0 + 10, 10.0) for i in range(30)]
    assert mean_iou(boxes[::-1], boxes) == pytest.approx(1.0)
    assert mean_iou([*boxes, *boxes], boxes) == pytest.approx(0.5)


def test_a_target_is_hit_once_however_many_boxes_lie_on_it() -> None:
    near = (1.0, 0.0, 11.0, 10.0)
    assert hits([A, A, near], [A, B], 0.5) == 1
    assert hits([near, B], [A, B], 0.5) == 2 and hits([near, B], [A, B], 0.9) == 1
    assert hits([], [A], 0.5) == 0 and hits([A], [], 0.5) == 0
