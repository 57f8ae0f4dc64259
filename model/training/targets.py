"""Dense targets: what is where, asked of every patch and every image token.

Shapes: B images, N places (patches of the tower, or cells of the language model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..tasks.scenes import COLORS, SIZES
from .facts import CHARACTERS, DIRECTIONS, NOUNS, UNKNOWN, Facts

CLASSES = (len(NOUNS), len(COLORS), len(SIZES), len(CHARACTERS), len(CHARACTERS))
FAR_PATCHES = 3.0  # as far as a free way is told
Array = np.ndarray


@dataclass(frozen=True)
class DenseTargets:
    """What each place of a grid is asked, of one image [N, ..] or of several [B, N, ..].

    `present` float: is a thing here (-1: not asked); `classes` int64 [.., 5]: noun, colour, size, and the characters of
    a price that are printed here, at a quarter of the width and at three (`UNKNOWN`: not asked); `boxes` float [.., 4]:
    its box, as shares of the grid's extent; `share` float: one over the number of places that it fills (0: no thing).

    Of mazes: `middle` float [.., 3]: is the middle of a maze's cell here (-1: not asked), and how far from the place's
    own middle, in places; `degree` int64: how many ways lead out of it (`UNKNOWN`: not asked); `exits` float
    [.., DIRECTIONS]: does one lead out of it to there (-1: not asked); `passage` float: is what lies here open (1),
    closed (0), or not asked (-1); `rays` float [.., DIRECTIONS]: how far it is to the next wall in each direction, as a
    share of `FAR_PATCHES` and at most 1 (-1: not asked).

    Of tangles: `stroke` float [.., 3]: does a line run here (-1: not asked), and cosine and sine of twice its angle
    (0, 0: not asked); `leads` float [.., 4]: the middles of the icons at its ends, as boxes are (-1 in all: not asked).
    """

    present: Tensor
    classes: Tensor
    boxes: Tensor
    share: Tensor
    middle: Tensor
    degree: Tensor
    exits: Tensor
    passage: Tensor
    rays: Tensor
    stroke: Tensor
    leads: Tensor

    @staticmethod
    def stack(images: list[DenseTargets]) -> DenseTargets:
        """Those of several images of one grid."""
        columns = ([getattr(image, field.name) for image in images] for field in fields(DenseTargets))
        return DenseTargets(*(torch.stack(column) for column in columns))

    def in_order(self, order: Tensor) -> DenseTargets:
        """The places of one image in another order."""
        return DenseTargets(*(getattr(self, field.name)[order] for field in fields(self)))


class _Grid:
    """`rows` x `columns` places; `scale`: what a pixel is, as a share of the grid's extent (x, y)."""

    def __init__(self, scale: tuple[float, float], rows: int, columns: int) -> None:
        self.scale, self.rows, self.columns = scale, rows, columns
        y, x = np.divmod(np.arange(rows * columns), columns)
        self.centre_x, self.centre_y = (x + 0.5) / columns, (y + 0.5) / rows

    def at(self, x: float, y: float) -> tuple[int, float, float]:
        """The place of a point in pixels, and how far from its middle it is, in places."""
        x, y = x * self.scale[0] * self.columns, y * self.scale[1] * self.rows
        column, row = min(int(x), self.columns - 1), min(int(y), self.rows - 1)
        return row * self.columns + column, x - column - 0.5, y - row - 0.5

    def shares(self, box: Sequence[float]) -> Array:
        """x, y, x, y in pixels as shares of the grid's extent."""
        return np.array(box, np.float32) * (self.scale * 2)

    def inside(self, box: Sequence[float], owns_centre: bool) -> Array:
        """The places of a box: those whose centre lies in it, or with `owns_centre` the one that has its centre."""
        if owns_centre:
            return np.array([self.at((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)[0]])
        x1, y1, x2, y2 = self.shares(box)
        wide, high = (self.centre_x >= x1) & (self.centre_x <= x2), (self.centre_y >= y1) & (self.centre_y <= y2)
        return np.flatnonzero(wide & high)


def targets_of(
    facts: Facts | None, scale: tuple[float, float], rows: int, columns: int, owns_centre: bool
) -> DenseTargets:
    """Targets on a `rows` x `columns` grid; `scale`: what a pixel is, as a share of the grid's extent (x, y).

    A patch belongs to the thing that its centre lies in; with `owns_centre`, a (larger) cell to the thing whose centre
    lies in it. Of two things the later has it; of two lines neither, but the place is asked whether a line is there.
    Without facts nothing is asked.
    """
    grid, count = _Grid(scale, rows, columns), rows * columns
    present = np.full(count, -1 if facts is None else 0, np.float32)
    facts = facts or Facts()
    classes, boxes = np.full((count, len(CLASSES)), UNKNOWN, np.int64), np.zeros((count, 4), np.float32)
    share = np.zeros(count, np.float32)
    for fact in facts.things:
        inside = grid.inside(fact.box, owns_centre)
        present[inside], boxes[inside], share[inside] = 1, grid.shares(fact.box), 1 / max(len(inside), 1)
        classes[inside, :3] = (fact.noun, fact.color, fact.size)
        if fact.print and not owns_centre:
            ends, characters = zip(*fact.print, strict=True)
            left, _, right, _ = grid.shares(fact.box)
            for side, beside in ((3, -0.25), (4, 0.25)):  # two, since small print has two characters on a patch
                along = (grid.centre_x[inside] + beside / columns - left) / (right - left)
                classes[inside, side] = np.array([*characters, UNKNOWN])[np.searchsorted(ends, along)]
    middle = np.full((count, 3), -1 if not facts.middles else 0, np.float32)
    exits, passage = np.full((count, DIRECTIONS), -1, np.float32), np.full(count, -1, np.float32)
    degree = np.full(count, UNKNOWN, np.int64)
    for (x, y), number, ways in zip(facts.middles, facts.degrees, facts.exits, strict=True):
        place, *off = grid.at(x, y)
        middle[place], degree[place], exits[place] = (1, *off), number, ways
    for x, y, is_open in facts.passages:
        passage[grid.at(x, y)[0]] = is_open
    asked_rays = bool(facts.walls) and not owns_centre
    rays = _rays(facts, grid) if asked_rays else np.full((count, DIRECTIONS), -1, np.float32)
    targets = (
        present, classes, boxes, share, middle, degree, exits, passage, rays, *_lines(facts, grid, owns_centre)
    )  # fmt: skip
    return DenseTargets(*(torch.from_numpy(array) for array in targets))


def _rays(facts: Facts, grid: _Grid) -> Array:
    """The free way from the middle of each place in each direction, from all that is closed."""
    walls = np.array(facts.walls, np.float64) * (grid.scale * 2) * ((grid.columns, grid.rows) * 2)  # in places
    x, y = grid.centre_x * grid.columns, grid.centre_y * grid.rows
    ax, ay = walls[:, 0] - x[:, None], walls[:, 1] - y[:, None]  # [N, walls], seen from the place
    dx, dy = walls[:, 2] - walls[:, 0], walls[:, 3] - walls[:, 1]
    free = np.full((len(x), DIRECTIONS), FAR_PATCHES)
    for way in range(DIRECTIONS):
        ux, uy = math.cos(math.tau * way / DIRECTIONS), math.sin(math.tau * way / DIRECTIONS)
        # place + t * u = wall + s * d: Cramer's rule, parallel walls never met
        across = ux * dy - uy * dx
        met = np.where(np.abs(across) > 1e-9, across, np.inf)
        t, s = (ax * dy - ay * dx) / met, (ax * uy - ay * ux) / met
        hit = (t >= 0) & (s >= 0) & (s <= 1) & np.isfinite(met)
        free[:, way] = np.minimum(np.where(hit, t, FAR_PATCHES).min(axis=1), FAR_PATCHES)
    return (free / FAR_PATCHES).astype(np.float32)


def _lines(facts: Facts, grid: _Grid, owns_centre: bool) -> tuple[Array, Array]:
    """Where lines run and where they lead; an icon's places lead where its line does."""
    count = grid.rows * grid.columns
    runs = np.zeros((len(facts.lines), count, 2), np.float32)  # cosine and sine of twice the angle, summed up
    touched, leads = np.zeros((len(facts.lines), count), bool), np.full((count, 4), -1, np.float32)
    for number, line in enumerate(facts.lines):
        points = np.array(line.points, np.float32)
        places = [grid.at(x, y)[0] for x, y in line.points]
        along = np.gradient(points, axis=0)
        twice = 2 * np.arctan2(along[:, 1], along[:, 0])
        np.add.at(runs[number], places, np.stack([np.cos(twice), np.sin(twice)], axis=1))
        touched[number, places] = True
    stroke = np.full((count, 3), -1 if not facts.lines else 0, np.float32)
    alone = touched.sum(axis=0) == 1
    stroke[touched.any(axis=0), 0] = 1
    run = runs.sum(axis=0)[alone]
    stroke[alone, 1:] = run / np.maximum(np.linalg.norm(run, axis=1, keepdims=True), 1e-6)
    for number, line in enumerate(facts.lines):
        ends = [edge for x1, y1, x2, y2 in line.icons for edge in ((x1 + x2) / 2, (y1 + y2) / 2)]
        leads[alone & touched[number]] = grid.shares(ends)
        for icon in line.icons:
            leads[grid.inside(icon, owns_centre)] = grid.shares(ends)
    return stroke, leads
