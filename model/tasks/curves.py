"""Curves as chains of cubic Bezier pieces, and the polylines they are measured by.

Shapes: K curves, M knots, P and Q points of polylines; a point is x, y in pixels. Arrays are float64.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from model.tasks.layouts import Points

Floats = NDArray[np.float64]

_PAIRS_AT_ONCE = 1 << 19  # of points and segments, so that a long trace needs no more memory than a short one


# ---- Bezier chains


def chain(knots: Floats, velocities: Floats) -> Floats:
    """Control points [K, M - 1, 4, 2] of the curves through `knots` [K, M, 2], smooth in each knot.

    `velocities` [K, M, 2]: the derivative in each knot, where each piece takes one unit of time.
    """
    first, last = knots[:, :-1], knots[:, 1:]
    return np.stack([first, first + velocities[:, :-1] / 3, last - velocities[:, 1:] / 3, last], axis=2)


def points_of(controls: Floats, per_piece: int) -> Floats:
    """Points [K, (M - 1) * per_piece, 2] of chains, from their first knot to their last, dense by time."""
    return _weighed(_bases(per_piece)[0], controls).reshape(len(controls), -1, 2)


def tightest_radii(controls: Floats, per_piece: int) -> Floats:
    """The smallest radius of curvature of each chain [K], over the points that `points_of` gives."""
    _, first, second = _bases(per_piece)
    v, a = _weighed(first, controls), _weighed(second, controls)
    vx, vy = v[..., 0], v[..., 1]
    bend = np.abs(vx * a[..., 1] - vy * a[..., 0])
    square = vx * vx + vy * vy
    return (square * np.sqrt(square) / np.maximum(bend, 1e-9)).min(axis=(1, 2))


def _weighed(basis: Floats, controls: Floats) -> Floats:
    """[T, 4] of [K, M - 1, 4, 2] -> [K, M - 1, T, 2]."""
    return np.matmul(basis, controls)


@cache
def _bases(per_piece: int) -> tuple[Floats, Floats, Floats]:
    """What the four control points weigh [per_piece, 4] in a piece's points, derivatives and second derivatives."""
    t = np.linspace(0, 1, per_piece)
    s = 1 - t
    zero = np.zeros_like(t)
    return (
        np.stack([s**3, 3 * s * s * t, 3 * s * t * t, t**3], axis=1),
        3 * np.stack([-s * s, s * s - 2 * s * t, 2 * s * t - t * t, t * t], axis=1),
        6 * np.stack([s, t - 2 * s, s - 2 * t, t + zero], axis=1),
    )


# ---- polylines


def arc_lengths(points: Points) -> Floats:
    """How far along the polyline each of its points [P] lies, in pixels from the first."""
    steps = np.diff(points, axis=0)
    return np.concatenate([[0.0], np.cumsum(np.sqrt((steps * steps).sum(axis=1)))])


def resampled(points: Points, step_px: float) -> Points:
    """Points [Q, 2] evenly along the polyline, at most `step_px` apart; its first and last stay."""
    along = arc_lengths(points)
    return at_lengths(points, along, np.linspace(0, along[-1], max(2, math.ceil(along[-1] / step_px) + 1)))


def at_lengths(points: Points, along: Floats, where: Floats) -> Points:
    """The points [Q, 2] of a polyline at the arc lengths `where` [Q], given its own `arc_lengths`."""
    return np.stack([np.interp(where, along, points[:, 0]), np.interp(where, along, points[:, 1])], axis=1)


def directions(points: Points) -> Floats:
    """Unit tangents [P, 2] of a polyline of evenly spaced points."""
    tangents = np.empty_like(points)
    tangents[1:-1] = points[2:] - points[:-2]
    tangents[0], tangents[-1] = points[1] - points[0], points[-1] - points[-2]
    return tangents / np.maximum(np.sqrt((tangents * tangents).sum(axis=1, keepdims=True)), 1e-12)


def curvatures(points: Points, step_px: float) -> Floats:
    """One over the radius [P] at each point of a polyline whose points lie `step_px` apart."""
    turns = directions(points)
    change = np.empty_like(turns)
    change[1:-1] = (turns[2:] - turns[:-2]) / 2
    change[0], change[-1] = change[1], change[-2]
    return np.sqrt((change * change).sum(axis=1)) / step_px


def distances(points: Points, polyline: Points) -> Floats:
    """How far each point [P] is from a polyline [Q, 2], in pixels; a polyline may be a single point."""
    if len(polyline) == 1:
        return np.sqrt(((points - polyline) ** 2).sum(axis=1))
    rows = max(1, _PAIRS_AT_ONCE // (len(polyline) - 1))
    return np.concatenate([_distances(points[i : i + rows], polyline) for i in range(0, len(points), rows)])


def _distances(points: Points, polyline: Points) -> Floats:
    ax, ay = polyline[:-1, 0], polyline[:-1, 1]
    bx, by = polyline[1:, 0] - ax, polyline[1:, 1] - ay
    px, py = points[:, :1] - ax, points[:, 1:] - ay  # [P, Q - 1]
    share = np.clip((px * bx + py * by) / np.maximum(bx * bx + by * by, 1e-12), 0, 1)
    px -= share * bx
    py -= share * by
    return np.sqrt((px * px + py * py).min(axis=1))


def crossings(a: Points, b: Points) -> Points:
    """Where two polylines cross: points [X, 2], in the order of `a`."""
    r, s = np.diff(a, axis=0), np.diff(b, axis=0)
    gap_x, gap_y = b[:-1, 0] - a[:-1, :1], b[:-1, 1] - a[:-1, 1:]  # [P - 1, Q - 1]
    turn = r[:, :1] * s[:, 1] - r[:, 1:] * s[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (gap_x * s[:, 1] - gap_y * s[:, 0]) / turn
        u = (gap_x * r[:, 1:] - gap_y * r[:, :1]) / turn
    i, j = np.nonzero((t >= 0) & (t < 1) & (u >= 0) & (u < 1))
    return a[i] + t[i, j][:, None] * r[i]


def shallow(
    a: Points, along_a: Floats, b: Points, along_b: Floats, reach_px: float, sine: float, apart: int = 0
) -> NDArray[np.intp]:
    """The points of `b`, as indices, that come nearer than `reach_px` to `a` at less than the angle of this sine.

    That is where two lines run side by side, touch, or cross at too small an angle; `along_a` and `along_b` are their
    `directions`. For a line against itself, `apart` leaves out points less than so many apart.
    """
    # |a - b|^2 as one product: this runs for every line that is tried, beside all that are drawn.
    left = np.column_stack([a, (a * a).sum(axis=1), np.ones(len(a))])
    right = np.column_stack([-2 * b, np.ones(len(b)), (b * b).sum(axis=1)])
    i, j = np.divmod(np.flatnonzero(left @ right.T < reach_px * reach_px), len(b))
    if apart:
        keep = np.abs(i - j) >= apart
        i, j = i[keep], j[keep]
    across = along_a[i, 0] * along_b[j, 1] - along_a[i, 1] * along_b[j, 0]
    return j[np.abs(across) < sine]
