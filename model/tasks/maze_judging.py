"""Exact geometry of a maze's truth: which moves cross a wall, which cells they pass, how far the goal still is.

Walls are judged as their centre lines, and touching one is crossing it. Answers come in steps of 1/999 of the image,
so rounding moves a point by at most 0.26 pixels on the largest image, while walls are drawn at least 2 pixels thick: a
path that rounding alone could push across a line ran inside the painted wall. No further slack is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from model.primitives import FRAME_MAX, Primitive
from model.tasks.suite import to_pixels

Point = tuple[float, float]

_SEAL = 0.05  # pixels that a wall reaches beyond its ends: the truth is rounded, and its joints must not leak
_SAMPLE = 0.2  # of the shortest step between two cells: how densely a move is looked at for the cells it passes


class Field:
    """A maze as a judge knows it, from `Case.truth` alone. Points are pixels of the image."""

    def __init__(self, truth: Mapping[str, Any]) -> None:
        walls = np.array(truth["walls"], dtype=np.float64)
        self._wall = walls[:, :2]
        self._along = walls[:, 2:] - walls[:, :2]
        self._slack = _SEAL / np.hypot(self._along[:, 0], self._along[:, 1])
        self._centres = np.array(truth["centres"], dtype=np.float64)
        self._open: list[list[int]] = [[] for _ in truth["centres"]]
        for a, b in truth["doors"]:
            self._open[a].append(b)
            self._open[b].append(a)
        steps = [math.dist(truth["centres"][a], truth["centres"][b]) for a, b in truth["doors"]]
        self._sample = _SAMPLE * min(steps)

    def crosses(self, start: Point, end: Point) -> bool:
        """Whether the straight move from start to end crosses or touches a wall.

        One along a wall's own line is caught where it comes or goes: its ends touch that wall.
        """
        dx, dy = end[0] - start[0], end[1] - start[1]
        ox, oy = self._wall[:, 0] - start[0], self._wall[:, 1] - start[1]
        ex, ey = self._along[:, 0], self._along[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = dx * ey - dy * ex
            on_move = (ox * ey - oy * ex) / turn
            on_wall = (ox * dy - oy * dx) / turn
            hit = (on_move >= 0) & (on_move <= 1) & (on_wall >= -self._slack) & (on_wall <= 1 + self._slack)
        return bool(hit.any())

    def centre(self, cell: int) -> Point:
        """The centre of a cell."""
        x, y = self._centres[cell].tolist()
        return x, y

    def cell(self, point: Point) -> int:
        """The cell whose centre is nearest."""
        return int(((self._centres - point) ** 2).sum(axis=1).argmin())

    def lies_in(self, point: Point, cell: int) -> bool:
        """Whether a point lies in this cell: its centre is the nearest, and no wall is between."""
        return self.cell(point) == cell and not self.crosses(point, self.centre(cell))

    def passed(self, start: Point, end: Point) -> list[int]:
        """The cells that a straight move passes, in their order, those of both its ends included."""
        count = max(1, math.ceil(math.dist(start, end) / self._sample))
        along = np.linspace(0, 1, count + 1)[:, None]
        points = np.array(start) * (1 - along) + np.array(end) * along
        nearest = ((points[:, None] - self._centres) ** 2).sum(axis=2).argmin(axis=1).tolist()
        return [cell for k, cell in enumerate(nearest) if k == 0 or cell != nearest[k - 1]]

    def steps_to(self, goal: int, cells: set[int]) -> int | None:
        """Steps through doors from the nearest of the cells to the goal; None when there is no way."""
        steps = {goal: 0}
        queue = [goal]
        for cell in queue:
            if cell in cells:
                return steps[cell]
            for other in self._open[cell]:
                if other not in steps:
                    steps[other] = steps[cell] + 1
                    queue.append(other)
        return None


@dataclass
class Walk:
    """What a trace did. `explored`: cells seen before the first wall was crossed; `legal`: pairs stepped between."""

    explored: set[int]
    legal: set[tuple[int, int]] = field(default_factory=set)
    violations: int = 0


def moves(primitives: Sequence[Primitive], size: tuple[int, int]) -> list[list[Point]]:
    """The point lists among the primitives, one a tag, in pixels. A point off the image is taken to its edge."""
    lists: dict[int, list[Point]] = {}
    for primitive in primitives:
        if primitive.kind == "point":
            x, y = to_pixels([min(max(number, 0), FRAME_MAX) for number in primitive.frame], size)
            lists.setdefault(primitive.group, []).append((x, y))
    return list(lists.values())


def follow(maze: Field, start: int, lists: Sequence[Sequence[Point]]) -> Walk:
    """Follow a trace from the start, said or not. A list may begin anew in a cell that was visited before."""
    walk = Walk({start})
    visited = {start}
    here = maze.centre(start)
    for points in lists:
        for rank, point in enumerate(points):
            if rank == 0 and maze.cell(point) in visited and maze.lies_in(point, maze.cell(point)):
                here = point
                continue
            if maze.crosses(here, point):
                walk.violations += 1
                visited.add(maze.cell(point))
            else:
                cells = maze.passed(here, point)
                visited.update(cells)
                walk.legal.update((min(a, b), max(a, b)) for a, b in pairwise(cells))
                if not walk.violations:
                    walk.explored.update(cells)
            here = point
    return walk


def is_path(maze: Field, start: int, goal: int, points: Sequence[Point]) -> bool:
    """Whether the points lead from the start's cell to the goal's without a wall in between."""
    if not points or not maze.lies_in(points[0], start) or not maze.lies_in(points[-1], goal):
        return False
    return not any(maze.crosses(a, b) for a, b in pairwise(points))
