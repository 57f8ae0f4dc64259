from __future__ import annotations

import numpy as np
import pytest

from model.tasks.layouts import HELD_OUT_LAYOUTS, LAYOUTS, TRAINING_LAYOUTS, place

SMALL = [(24.0, 24.0)] * 4


def centers(layout: str, seed: int, n: int = 4) -> np.ndarray:
    corners = place(np.random.default_rng(seed), SMALL[:1] * n, 168, 168, (layout,))
    assert corners is not None
    return np.array(corners) + 12


def test_held_out_layouts_are_none_of_training() -> None:
    assert not set(TRAINING_LAYOUTS) & set(HELD_OUT_LAYOUTS)
    assert set(LAYOUTS) == {*TRAINING_LAYOUTS, *HELD_OUT_LAYOUTS}


@pytest.mark.parametrize("seed", range(5))
def test_each_family_has_its_form(seed: int) -> None:
    assert np.ptp(centers("row", seed)[:, 1]) < 1e-6
    x, y = centers("diagonal", seed).T
    assert abs(np.corrcoef(x, y)[0, 1]) > 0.95
    radii = np.linalg.norm(centers("circle", seed, 6) - 84, axis=1)
    assert np.ptp(radii) < 2 and radii.min() > 45
    steps = np.diff(np.sort(centers("grid", seed, 9)[:, 0]))
    assert np.all((steps < 8) | (steps > 25))  # within a column, or on to the next


def test_a_cluster_lies_closer_together_than_free_things() -> None:
    def spread(layout: str) -> float:
        return float(np.mean([centers(layout, seed).std(axis=0).mean() for seed in range(60)]))

    assert spread("cluster") < 0.8 * spread("uniform")


def test_boxes_that_can_not_fit_have_no_place() -> None:
    too_many = [(100.0, 100.0)] * 4
    assert all(place(np.random.default_rng(0), too_many, 168, 168, (name,)) is None for name in LAYOUTS)


def test_a_layout_that_fails_hands_over_to_the_next() -> None:
    wide = [(50.0, 30.0)] * 4  # 200 pixels in a row of 168
    assert place(np.random.default_rng(0), wide, 168, 168, ("row",)) is None
    assert place(np.random.default_rng(0), wide, 168, 168, ("row", "grid")) is not None
