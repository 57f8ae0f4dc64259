"""Traces: polylines said to follow a line. Where to set the points of a good one, and how well any one follows.

All points are x, y in pixels. A trace jumps straight from point to point, and is judged all along these jumps.
"""

from __future__ import annotations

import math

import numpy as np

from model.tasks.curves import Floats, arc_lengths, at_lengths, curvatures, distances, resampled
from model.tasks.layouts import Points

_STEP_PX = 2.0  # between the places where a trace and a line are held against each other
_MOST_PLACES = 4096  # of them, on a trace that runs to and fro for ever
_FEWEST = 6  # points of a trace, the two ends included
_CROSSING_REACH_PX = 10.0  # within which a crossing draws points near
_CROSSING_PULL = 0.8  # how many times denser than on a bend of the radius below
_BEND_PX = 40.0  # the radius at which a bend asks for as many points as a crossing
_LEAST_BEND = 0.25  # straight stretches get points too, as if they bent this much less


def waypoints(line: Points, crossings: Points, off_px: float) -> Points:
    """Points [W, 2] from one end of a line to the other, denser where it bends and near the `crossings` [X, 2].

    As few as keep the trace within `off_px` of the line all along.
    """
    step = float(arc_lengths(line)[-1]) / (len(line) - 1)
    along = arc_lengths(line)
    # A chord of length l on radius r lies l * l / 8 r off: equal error means points as dense as the root of the bend.
    density = np.sqrt(np.maximum(curvatures(line, step) * _BEND_PX, _LEAST_BEND**2))
    if len(crossings):
        near = np.sqrt(((line[:, None] - crossings) ** 2).sum(axis=2)).min(axis=1)
        density += _CROSSING_PULL * np.exp(-((near / _CROSSING_REACH_PX) ** 2))
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(along))])
    count = _FEWEST
    while True:
        where = np.interp(np.linspace(0, share[-1], count), share, along)
        points = at_lengths(line, along, where)
        off = float(distances(line, points).max())
        if off <= off_px or count >= len(line):
            return points
        count = math.ceil(count * min(1.5, max(1.1, 0.9 * math.sqrt(off / off_px))))


def deviations(trace: Points, line: Points) -> tuple[Floats, Floats]:
    """How far the trace strays from the line, at places all along it, and the line from the trace, in pixels."""
    return distances(_places(trace), line), distances(_places(line), trace)


def _places(polyline: Points) -> Points:
    if len(polyline) == 1:
        return polyline
    return resampled(polyline, max(_STEP_PX, float(arc_lengths(polyline)[-1]) / _MOST_PLACES))


def nearness(distance: Floats | float, full_px: float, none_px: float) -> Floats:
    """1 up to a distance of `full_px`, then evenly down to 0 at `none_px`."""
    return np.clip((none_px - np.asarray(distance, dtype=np.float64)) / (none_px - full_px), 0, 1)
