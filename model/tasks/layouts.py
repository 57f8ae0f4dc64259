"""Where the things of a scene go: families of placements, some of them kept from training.

A layout takes the extents (width, height) of the boxes to place and returns their corners (x1, y1), in the order of
the extents, or None where it sees that they do not fit. Units: pixels. `place` checks every proposal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# The test split's families never appear in training (see `shapes`).
TRAINING_LAYOUTS = ("uniform", "row")
HELD_OUT_LAYOUTS = ("grid", "circle", "diagonal", "cluster")

Extent = tuple[float, float]
Corners = list[tuple[float, float]]
Points = NDArray[np.float64]  # [n, 2] as x, y
_Box = tuple[float, float, float, float]
_Layout = Callable[[np.random.Generator, Sequence[Extent], int, int, float], Corners | None]

_CANDIDATES = 48  # positions tried for one box before a free placement gives up


def place(
    rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, layouts: Sequence[str]
) -> Corners | None:
    """Corners for all extents inside width x height, no two boxes touching, by the first layout where all fit.

    `layouts` are tried in the order given, each once; None when none of them succeeds.
    """
    if not extents:
        return []
    margin = max(2.0, 0.015 * min(width, height))
    for name in layouts:
        corners = LAYOUTS[name](rng, extents, width, height, margin)
        if corners is not None and _apart(corners, extents, width, height, margin):
            return corners
    return None


def _apart(corners: Corners, extents: Sequence[Extent], width: int, height: int, margin: float) -> bool:
    """Whether all boxes lie inside the image and no two come nearer than the margin."""
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, extents, strict=True)]
    if any(x1 < 0 or y1 < 0 or x2 > width or y2 > height for x1, y1, x2, y2 in boxes):
        return False
    return all(
        a[0] >= b[2] + margin or b[0] >= a[2] + margin or a[1] >= b[3] + margin or b[1] >= a[3] + margin
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


def _first_free(candidates: Points, extent: Extent, placed: list[_Box], margin: float) -> tuple[float, float] | None:
    """The first candidate corner whose box keeps the margin to every placed box."""
    free = np.ones(len(candidates), dtype=bool)
    for x1, y1, x2, y2 in placed:
        free &= (
            (candidates[:, 0] >= x2 + margin)
            | (candidates[:, 0] + extent[0] + margin <= x1)
            | (candidates[:, 1] >= y2 + margin)
            | (candidates[:, 1] + extent[1] + margin <= y1)
        )
    first = int(free.argmax())
    return (float(candidates[first, 0]), float(candidates[first, 1])) if free[first] else None


def _scatter(extents: Sequence[Extent], margin: float, candidates: Callable[[Extent], Points]) -> Corners | None:
    """Place one after the other, each at its first free candidate."""
    placed: list[_Box] = []
    for extent in extents:
        corner = _first_free(candidates(extent), extent, placed, margin)
        if corner is None:
            return None
        placed.append((*corner, corner[0] + extent[0], corner[1] + extent[1]))
    return [(x1, y1) for x1, y1, _, _ in placed]


def _uniform(
    rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, margin: float
) -> Corners | None:
    def candidates(extent: Extent) -> Points:
        return rng.random((_CANDIDATES, 2)) * (width - extent[0], height - extent[1])

    return _scatter(extents, margin, candidates)


def _cluster(
    rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, margin: float
) -> Corners | None:
    center = rng.uniform(0.2, 0.8, size=2) * (width, height)
    spread = np.linspace(0.05, 0.5, _CANDIDATES)[:, None] * min(width, height)  # near first, then further out

    def candidates(extent: Extent) -> Points:
        corners = center + rng.standard_normal((_CANDIDATES, 2)) * spread - np.array(extent) / 2
        return np.clip(corners, 0, (width - extent[0], height - extent[1]))

    return _scatter(extents, margin, candidates)


def _row(rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, margin: float) -> Corners | None:
    spare = width - sum(w for w, _ in extents) - margin * (len(extents) - 1)
    if spare < 0:
        return None
    gaps = rng.dirichlet(np.ones(len(extents) + 1)) * spare
    tallest = max(h for _, h in extents)
    middle = rng.uniform(tallest / 2, height - tallest / 2)
    corners, x = [], 0.0
    for (w, h), gap in zip(extents, gaps, strict=False):
        x += gap
        corners.append((float(x), float(middle - h / 2)))
        x += w + margin
    return corners


def _around(centers: Points, extents: Sequence[Extent], width: int, height: int) -> Corners:
    """Corners of boxes centred on the given points, pushed inside the image."""
    size = np.array(extents)
    corners = np.clip(centers - size / 2, 0, np.array([width, height]) - size)
    return [(float(x), float(y)) for x, y in corners]


def _grid(
    rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, margin: float
) -> Corners | None:
    n = len(extents)
    columns = max(1, min(n, round(math.sqrt(n * width / height)) + int(rng.integers(0, 2))))
    rows = math.ceil(n / columns)
    cells = rng.permutation(columns * rows)[:n]
    cell = np.array([width / columns, height / rows])
    centers = (np.stack([cells % columns, cells // columns], axis=1) + 0.5) * cell
    return _around(centers + rng.uniform(-0.04, 0.04, size=(n, 2)) * cell, extents, width, height)


def _circle(
    rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, margin: float
) -> Corners | None:
    n = len(extents)
    angles = rng.uniform(0, math.tau) + np.arange(n) * (math.tau / n)
    reach = rng.uniform(0.3, 0.4) * np.array([width, height])
    centers = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach + np.array([width, height]) / 2
    return _around(centers, extents, width, height)


def _diagonal(
    rng: np.random.Generator, extents: Sequence[Extent], width: int, height: int, margin: float
) -> Corners | None:
    n = len(extents)
    along = (np.arange(n) + 0.5) / n + rng.uniform(-0.03, 0.03, size=n)
    down = along if rng.random() < 0.5 else 1 - along
    return _around(np.stack([along * width, down * height], axis=1), extents, width, height)


LAYOUTS: dict[str, _Layout] = {
    "uniform": _uniform,
    "row": _row,
    "grid": _grid,
    "circle": _circle,
    "diagonal": _diagonal,
    "cluster": _cluster,
}
