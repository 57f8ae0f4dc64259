from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.curves import chain, distances, points_of, resampled
from model.tasks.traces import deviations, nearness, waypoints

NOTHING = np.empty((0, 2))


def wave(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    knots = np.array([[10.0, 150.0], [100.0, 60.0], [200.0, 240.0], [290.0, 150.0]]) + rng.uniform(-20, 20, (4, 2))
    return resampled(points_of(chain(knots[None], rng.uniform(-200, 200, (1, 4, 2))), 40)[0], 3.0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), off=st.sampled_from([0.3, 0.6, 1.5]))
def test_waypoints_keep_to_the_line_from_end_to_end(seed: int, off: float) -> None:
    line = wave(seed)
    points = waypoints(line, NOTHING, off)
    assert np.array_equal(points[[0, -1]], line[[0, -1]])
    assert len(points) >= len(line) or distances(line, points).max() <= off


def test_waypoints_are_denser_in_a_bend_and_near_a_crossing() -> None:
    quarter = np.linspace(-math.pi / 2, 0, 50)
    bend = np.stack([200 + 30 * np.cos(quarter), 30 + 30 * np.sin(quarter)], axis=1)
    line = resampled(np.concatenate([[[0.0, 0.0]], bend, [[230.0, 230.0]]]), 3.0)

    def gaps(points: np.ndarray, x: float, y: float) -> float:
        """Mean step of the points within 40 px of a place."""
        steps = np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1))
        middles = (points[1:] + points[:-1]) / 2
        return float(steps[np.hypot(*(middles - (x, y)).T) < 40].mean())

    plain = waypoints(line, NOTHING, 0.3)
    assert gaps(plain, 220, 10) < 0.5 * gaps(plain, 100, 0)
    crossed = waypoints(line, np.array([[100.0, 0.0]]), 0.3)
    assert gaps(crossed, 100, 0) < 0.8 * gaps(crossed, 230, 160)


def test_a_stricter_trace_has_more_points() -> None:
    line = wave(3)
    few, many = (len(waypoints(line, NOTHING, off)) for off in (1.5, 0.2))
    assert few < many


def test_a_trace_is_judged_along_its_jumps_and_not_only_at_its_points() -> None:
    arc = np.linspace(0, math.pi, 60)
    line = np.stack([100 - 80 * np.cos(arc), 80 * np.sin(arc)], axis=1)
    there, back = deviations(line[[0, -1]], line)
    assert there.max() > 60 and back.max() > 70
    there, back = deviations(line[: len(line) // 2], line)
    assert there.max() < 0.1 and back.max() > 70  # a trace that stops half-way strays nowhere, but leaves a part out
    assert all(side.max() < 1e-6 for side in deviations(line, line))


def test_a_single_point_is_a_trace() -> None:
    line = np.array([[0.0, 0.0], [100.0, 0.0]])
    there, back = deviations(np.array([[0.0, 3.0]]), line)
    assert there.tolist() == [3.0] and math.isclose(back.max(), math.hypot(100, 3))


def test_a_trace_without_end_is_measured_in_bounded_steps() -> None:
    there, _ = deviations(np.tile([[0.0, 0.0], [300.0, 300.0]], (3000, 1)), np.array([[0.0, 0.0], [300.0, 300.0]]))
    assert len(there) < 5000


@given(distance=st.floats(0, 100), full=st.floats(0, 5), more=st.floats(0.1, 20))
def test_nearness_falls_from_one_to_nothing(distance: float, full: float, more: float) -> None:
    near = float(nearness(distance, full, full + more))
    assert near == 1 if distance <= full else near == 0 if distance >= full + more else 0 <= near <= 1
