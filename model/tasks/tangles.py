"""Tangles: n smooth lines, each from a start of its own to an end of its own, that a human can still follow.

Who is joined to whom is given, and where starts and ends stand in relation to each other is drawn once; only lines,
and small shifts of the places, are drawn again until they keep the rules. So no arrangement is likelier for being
easier to draw, and no place betrays whose end it is. The rules, in pixels of the image:

- no line comes near another line's start or end, nor back to its own;
- where a line comes nearer than the clearance to another, or to itself, it crosses at `MIN_CROSSING_DEGREES` or more:
  no two run side by side, none touch, and no crossing is so shallow that one could leave it on the wrong line;
- no line bends tighter than its level allows, or leaves the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.tasks.curves import Floats, chain, directions, points_of, resampled, shallow, tightest_radii
from model.tasks.layouts import Points

CLEARANCE_PX = 8.0  # twice the thickest line: the ground between two lines is never thinner than a line
MIN_CROSSING_DEGREES = 35.0
STEP_PX = 3.0  # between the points of a line; below half the clearance, so that no approach slips through

_CANDIDATES = 24  # lines tried at once for one pair of places
_TURNS_A_LINE = 30  # tries, on average, before the places shift
_PER_PIECE = 24
_SINE = math.sin(math.radians(MIN_CROSSING_DEGREES))
_EDGE_PX = 5.0  # of ground between a line's middle and the image's edge


@dataclass(frozen=True)
class Form:
    """How a level's lines run.

    `knots` between start and end, both numbers included; `swerve`: how far a knot may lie off its place on the straight
    way, to each side in x and y, as a share of the image's shorter side; `min_radius_px`: the tightest bend.
    """

    knots: tuple[int, int]
    swerve: float
    min_radius_px: float


@dataclass(frozen=True)
class Tangle:
    """`lines[i]` runs from the centre `starts[i]` to the centre `ends[leads_to[i]]`, in steps of at most `STEP_PX`."""

    lines: tuple[Points, ...]
    starts: Points
    ends: Points
    leads_to: tuple[int, ...]


@dataclass(frozen=True)
class _Places:
    """Centres of starts and ends [n, 2] and the unit vectors along which lines leave them, away from the edge."""

    starts: Points
    ends: Points
    out_of_starts: Floats
    out_of_ends: Floats


def draw_tangle(
    rng: np.random.Generator, size: tuple[int, int], leads_to: Sequence[int], icon_px: float, form: Form
) -> Tangle:
    """Lines on an image of width x height pixels, from start i to end `leads_to[i]`, with room for icons at both.

    An icon may fill the square of side `icon_px` around its centre.
    """
    n = len(leads_to)
    facing, side, order = rng.random() < 0.5, int(rng.integers(4)), rng.permutation(2 * n)
    while True:
        places = _facing(rng, size, n, icon_px, side) if facing else _around(rng, size, n, icon_px, order)
        lines = _lines(rng, size, places, leads_to, icon_px, form)
        if lines is not None:
            return Tangle(lines, places.starts, places.ends, tuple(leads_to))


# ---- places


def _facing(rng: np.random.Generator, size: tuple[int, int], n: int, icon_px: float, side: int) -> _Places:
    """Starts along one side of the image (left, right, top, bottom), ends along the opposite one."""
    length, depth = (size[1], size[0]) if side < 2 else size
    inset = _inset(icon_px)
    pitch = (length - 2 * inset) / n
    play = max(0.0, pitch - 1.5 * icon_px) / 2
    columns = []
    for _ in range(2):
        along = inset + (np.arange(n) + 0.5) * pitch + rng.uniform(-play, play, size=n)
        columns.append((along, inset + rng.uniform(0, 0.05, size=n) * depth))
    (along, near), (along_ends, far) = columns
    inward = np.tile([1.0, 0.0], (n, 1))
    starts, ends = np.stack([near, along], axis=1), np.stack([depth - far, along_ends], axis=1)
    if side % 2:
        starts, ends, inward = ends, starts, -inward
    if side >= 2:
        starts, ends, inward = starts[:, ::-1], ends[:, ::-1], inward[:, ::-1]
    return _Places(starts, ends, inward, -inward)


def _around(
    rng: np.random.Generator, size: tuple[int, int], n: int, icon_px: float, order: NDArray[np.int64]
) -> _Places:
    """Starts and ends around the image; `order` is a permutation of its 2n places, the starts' first."""
    inset = _inset(icon_px)
    w, h = size[0] - 2 * inset, size[1] - 2 * inset
    pitch = 2 * (w + h) / (2 * n)
    play = min(0.25 * pitch, max(0.0, pitch - 1.5 * icon_px) / 2)
    along = (np.arange(2 * n) + rng.random()) * pitch + rng.uniform(-play, play, size=2 * n)
    corners = np.array([0.0, w, w + h, 2 * w + h, 2 * (w + h)])
    x = np.interp(along, corners, [0, w, w, 0, 0], period=2 * (w + h))
    y = np.interp(along, corners, [0, 0, h, h, 0], period=2 * (w + h))
    centers = np.stack([x, y], axis=1) + inset
    inward = np.array(size) / 2 - centers
    inward /= np.sqrt((inward * inward).sum(axis=1, keepdims=True))
    # Among themselves, starts and ends are numbered around the image, as they are along a side.
    first, second = np.sort(order[:n]), np.sort(order[n:])
    return _Places(centers[first], centers[second], inward[first], inward[second])


def _inset(icon_px: float) -> float:
    return icon_px / 2 + 3


# ---- lines


def _lines(
    rng: np.random.Generator, size: tuple[int, int], places: _Places, leads_to: Sequence[int], icon_px: float,
    form: Form,
) -> tuple[Points, ...] | None:  # fmt: skip
    """All lines, in any order, or None where they find no way; a line takes the place of those it can't run beside."""
    n = len(leads_to)
    drawn: dict[int, _Line] = {}
    due = rng.permutation(n).tolist()
    for _ in range(_TURNS_A_LINE * n):
        if not due:
            return tuple(drawn[i].points for i in range(n))
        i = due.pop(0)
        line, unseated = _line(rng, size, places, i, leads_to[i], icon_px, form, drawn)
        for other in unseated:
            del drawn[other]
        if line is None:
            due.append(i)
        else:
            drawn[i] = line
        due += unseated
    return None


@dataclass(frozen=True)
class _Line:
    """Points [P, 2] at even steps, and the unit tangents there."""

    points: Points
    along: Floats


def _line(
    rng: np.random.Generator, size: tuple[int, int], places: _Places, start: int, end: int, icon_px: float,
    form: Form, drawn: dict[int, _Line],
) -> tuple[_Line | None, list[int]]:  # fmt: skip
    """A line that keeps the rules and the drawn lines that it breaks them with, as few as can be; None if none does."""
    controls = _candidates(rng, size, places, start, end, icon_px, form)
    dense = points_of(controls, _PER_PIECE)
    good = tightest_radii(controls, _PER_PIECE) >= form.min_radius_px
    good &= ((dense >= _EDGE_PX) & (dense <= np.array(size) - _EDGE_PX)).all(axis=(1, 2))
    others = np.concatenate([np.empty((0, 2)), *(line.points for line in drawn.values())])
    others_along = np.concatenate([np.empty((0, 2)), *(line.along for line in drawn.values())])
    owners = np.repeat(list(drawn), [len(line.points) for line in drawn.values()])
    best: _Line | None = None
    fewest = list(drawn)
    for curve in dense[good]:
        points = resampled(curve, STEP_PX)
        if not _clear_of_icons(points, places, start, end, icon_px):
            continue
        line = _Line(points, directions(points))
        if _meets_itself(line):
            continue
        broken = set(owners[shallow(points, line.along, others, others_along, CLEARANCE_PX, _SINE)].tolist())
        if best is None or len(broken) < len(fewest):
            best, fewest = line, sorted(broken)
        if not fewest:
            break
    return best, fewest if best is not None else []


def _meets_itself(line: _Line) -> bool:
    loop = math.ceil(math.pi * CLEARANCE_PX / STEP_PX)  # points nearer along the line lie in one bend
    return shallow(line.points, line.along, line.points, line.along, CLEARANCE_PX, _SINE, apart=loop).size > 0


def _candidates(
    rng: np.random.Generator, size: tuple[int, int], places: _Places, start: int, end: int, icon_px: float, form: Form
) -> Floats:
    """Controls of random chains from a start to an end, that leave both nearly straight."""
    inner = int(rng.integers(form.knots[0], form.knots[1] + 1))
    first, last = places.starts[start], places.ends[end]
    knots = np.empty((_CANDIDATES, inner + 2, 2))
    share = np.linspace(0, 1, inner + 2)[:, None]
    knots[:] = first + share * (last - first)
    # By way of the middle, more or less: neighbours need room to turn between them, and lines must meet to tangle.
    detour = np.array(size) / 2 - (first + last) / 2
    knots += 2 * share * (1 - share) * detour * rng.random((_CANDIDATES, 1, 1))
    reach = form.swerve * min(size)
    knots[:, 1:-1] += rng.uniform(-reach, reach, size=(_CANDIDATES, inner, 2))
    velocities = np.empty_like(knots)
    gaps = np.sqrt((np.diff(knots, axis=1) ** 2).sum(axis=2, keepdims=True))
    through = knots[:, 2:] - knots[:, :-2]
    # As fast as the way is long: a quarter circle takes 1.17 times its chord.
    speed = (gaps[:, 1:] + gaps[:, :-1]) / 2 * rng.uniform(0.9, 1.4, size=(_CANDIDATES, inner, 1))
    velocities[:, 1:-1] = through * speed / np.sqrt((through * through).sum(axis=2, keepdims=True))
    swing = rng.uniform(-0.5, 0.5, size=(2, _CANDIDATES))
    pull = rng.uniform(0.8, 1.6, size=(2, _CANDIDATES, 1))
    velocities[:, 0] = _turned(places.out_of_starts[start], swing[0]) * gaps[:, 0] * pull[0]
    velocities[:, -1] = -_turned(places.out_of_ends[end], swing[1]) * gaps[:, -1] * pull[1]
    return chain(knots, velocities)


def _turned(direction: Floats, angles: Floats) -> Floats:
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([direction[0] * cos - direction[1] * sin, direction[0] * sin + direction[1] * cos], axis=1)


def _clear_of_icons(points: Points, places: _Places, start: int, end: int, icon_px: float) -> bool:
    """Whether a line keeps away from all icons, but for its own at its two ends."""
    zone = icon_px * math.sqrt(0.5) + CLEARANCE_PX / 2
    centers = np.concatenate([places.starts, places.ends])
    near = ((points[:, None] - centers) ** 2).sum(axis=2) < zone * zone  # [P, 2n]
    leaving = math.ceil(1.6 * zone / STEP_PX)
    near[:leaving, start] = False
    near[-leaving:, len(places.starts) + end] = False
    return not near.any()
