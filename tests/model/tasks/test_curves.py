from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.tasks import curves
from model.tasks.curves import (
    arc_lengths,
    at_lengths,
    chain,
    crossings,
    curvatures,
    directions,
    distances,
    points_of,
    resampled,
    shallow,
    tightest_radii,
)

COORDINATES = st.integers(0, 300).map(float)


def polylines(least: int = 2, most: int = 7) -> st.SearchStrategy[np.ndarray]:
    return st.integers(least, most).flatmap(lambda n: arrays(np.float64, (n, 2), elements=COORDINATES))


def circle(radius: float, steps: int = 200) -> np.ndarray:
    angles = np.linspace(0, math.tau, steps + 1)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def slow_distance(point: np.ndarray, polyline: np.ndarray) -> float:
    best = min(math.dist(point, corner) for corner in polyline)
    for a, b in pairwise(polyline):
        length = math.dist(a, b)
        if length > 0:
            ahead = float((point - a) @ (b - a)) / length
            if 0 <= ahead <= length:
                aside = abs((b - a)[0] * (point - a)[1] - (b - a)[1] * (point - a)[0]) / length
                best = min(best, aside)
    return best


@settings(deadline=None, max_examples=60)
@given(points=polylines(1), polyline=polylines(1))
def test_distances_are_those_to_the_nearest_corner_or_side(points: np.ndarray, polyline: np.ndarray) -> None:
    slow = [slow_distance(point, polyline) for point in points]
    assert np.allclose(distances(points, polyline), slow, atol=1e-6)


def test_many_points_are_measured_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points, polyline = rng.random((101, 2)) * 300, rng.random((14, 2)) * 300
    whole = distances(points, polyline)
    monkeypatch.setattr(curves, "_PAIRS_AT_ONCE", 50)
    assert np.array_equal(distances(points, polyline), whole)


@settings(deadline=None, max_examples=60)
@given(polyline=polylines(), step=st.floats(1, 40))
def test_resampling_keeps_ends_and_stays_on_the_line_in_even_steps(polyline: np.ndarray, step: float) -> None:
    points = resampled(polyline, step)
    assert np.array_equal(points[[0, -1]], polyline[[0, -1]])
    assert distances(points, polyline).max() < 1e-6
    assert np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1)).max() <= step + 1e-6


@settings(deadline=None, max_examples=50)
@given(polyline=polylines())
def test_arc_lengths_add_up_side_by_side(polyline: np.ndarray) -> None:
    along = arc_lengths(polyline)
    sides = [math.dist(a, b) for a, b in pairwise(polyline)]
    assert along[0] == 0 and math.isclose(along[-1], sum(sides), abs_tol=1e-6)
    if min(sides) > 0:
        assert np.allclose(at_lengths(polyline, along, along), polyline)


@settings(deadline=None, max_examples=60)
@given(a=polylines(), b=polylines())
def test_crossings_are_those_of_every_pair_of_sides(a: np.ndarray, b: np.ndarray) -> None:
    # Moved off the grid, no corner lies on another line, where it would be a matter of taste.
    b = b + np.array([0.37, 0.23])
    slow = []
    for p, r in zip(a[:-1], np.diff(a, axis=0), strict=True):
        for q, s in zip(b[:-1], np.diff(b, axis=0), strict=True):
            if abs(np.linalg.det(np.stack([r, -s], axis=1))) > 1e-9:
                t, u = np.linalg.solve(np.stack([r, -s], axis=1), q - p)
                if 0 <= t < 1 and 0 <= u < 1:
                    slow.append(p + t * r)
    found = crossings(a, b)
    assert len(found) == len(slow)
    assert np.allclose(found, np.array(slow).reshape(-1, 2), atol=1e-6)


def test_a_circle_bends_alike_everywhere() -> None:
    points = circle(40.0)
    step = float(arc_lengths(points)[1])
    assert np.allclose(curvatures(points, step)[2:-2], 1 / 40, rtol=0.01)
    assert np.allclose((directions(points) * points).sum(axis=1)[1:-1], 0, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    knots=arrays(np.float64, (2, 3, 2), elements=COORDINATES),
    velocities=arrays(np.float64, (2, 3, 2), elements=COORDINATES),
)
def test_a_chain_passes_its_knots_with_their_velocities(knots: np.ndarray, velocities: np.ndarray) -> None:
    points = points_of(chain(knots, velocities), 2001)
    assert np.allclose(points[:, [0, 2001, -1]], knots)
    leaving = (points[:, 1] - points[:, 0]) * 2000
    arriving = (points[:, 2000] - points[:, 1999]) * 2000
    assert np.allclose(leaving, velocities[:, 0], atol=1.5)
    assert np.allclose(arriving, velocities[:, 1], atol=1.5)


def test_the_tightest_radius_of_a_quarter_circle_is_its_radius() -> None:
    knots = np.array([[[50.0, 0.0], [0.0, 50.0]]])
    speed = 50 * 4 * (math.sqrt(2) - 1)
    controls = chain(knots, np.array([[[0.0, speed], [-speed, 0.0]]]))
    assert math.isclose(tightest_radii(controls, 30)[0], 50, rel_tol=0.02)


def test_a_tighter_bend_anywhere_in_a_chain_counts() -> None:
    knots = np.array([[[0.0, 0.0], [100.0, 0.0], [100.0, 10.0]], [[0.0, 0.0], [100.0, 0.0], [200.0, 0.0]]])
    velocities = np.array([[[100.0, 0.0], [100.0, 0.0], [-10.0, 0.0]], [[100.0, 0.0]] * 3])
    hairpin, straight = tightest_radii(chain(knots, velocities), 24)
    assert hairpin < 10 and straight > 1000


@settings(deadline=None, max_examples=60)
@given(a=polylines(2, 3), b=polylines(2, 3), reach=st.floats(2, 20), degrees=st.floats(5, 60))
def test_shallow_finds_every_near_pair_of_points_that_run_alike(
    a: np.ndarray, b: np.ndarray, reach: float, degrees: float
) -> None:
    a, b = resampled(a, 5.0), resampled(b, 5.0)
    da, db, sine = directions(a), directions(b), math.sin(math.radians(degrees))
    slow = {
        j
        for i in range(len(a))
        for j in range(len(b))
        if math.dist(a[i], b[j]) < reach - 1e-6 and abs(da[i, 0] * db[j, 1] - da[i, 1] * db[j, 0]) < sine - 1e-9
    }
    assert slow <= set(shallow(a, da, b, db, reach, sine).tolist())
    if not slow:
        assert not shallow(a, da, b, db, reach - 1e-3, sine - 1e-6).size


def test_lines_side_by_side_are_shallow_and_a_cross_is_not() -> None:
    level = resampled(np.array([[0.0, 50.0], [100.0, 50.0]]), 3.0)
    near, far, upright = level + np.array([0, 5]), level + np.array([0, 12]), level[:, ::-1]
    sine = math.sin(math.radians(30))

    def found(other: np.ndarray) -> int:
        return len(shallow(level, directions(level), other, directions(other), 8.0, sine))

    assert found(near) and not found(far) and not found(upright)


def test_a_line_is_not_shallow_to_itself_but_where_it_returns() -> None:
    straight = resampled(np.array([[0.0, 0.0], [200.0, 0.0]]), 3.0)
    back = resampled(np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 5.0], [0.0, 5.0]]), 3.0)
    assert not shallow(straight, directions(straight), straight, directions(straight), 8.0, 0.5, apart=9).size
    assert shallow(back, directions(back), back, directions(back), 8.0, 0.5, apart=9).size
