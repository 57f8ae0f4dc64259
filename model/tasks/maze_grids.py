"""Where mazes live: cells, which of them are neighbours, and the wall between each two.

Three topologies: rectangular (rows x columns), circular (rings x sectors around a closed hub), hexagonal (rows x
columns, every other row shifted). Units: a corridor is 1 wide, its walls' thickness included; x to the right, y down,
the grid's extent starts at (0, 0). Walls are centre lines, arcs as short straight pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

BORDER = -1  # the owner of pieces that no door can open

Floats = NDArray[np.float64]
Point = tuple[float, float]
Side = Sequence[Point]  # a polyline between two corners of a cell

_DEEPEST = 0.3  # how far a straight step between neighbours of a ring may leave the ring's middle
_PIECE = math.radians(8)  # an arc's piece turns no further: it leaves the widest ring's arc by 0.03


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of `n` cells.

    `centres`: [n, 2]; `pairs`: neighbouring cells (a < b), a wall or a door between them; `pieces`: [m, 4], x1, y1, x2,
    y2 of straight pieces of walls; `owners`: [m], the pair that a piece divides, or BORDER.
    """

    topology: str
    centres: Floats = field(repr=False)
    pairs: tuple[tuple[int, int], ...] = field(repr=False)
    pieces: Floats = field(repr=False)
    owners: NDArray[np.int64] = field(repr=False)

    @property
    def cells(self) -> int:
        """The number of cells."""
        return len(self.centres)

    @cached_property
    def neighbours(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each cell, its neighbours as (cell, index of the pair)."""
        around: list[list[tuple[int, int]]] = [[] for _ in range(self.cells)]
        for pair, (a, b) in enumerate(self.pairs):
            around[a].append((b, pair))
            around[b].append((a, pair))
        return tuple(map(tuple, around))

    @cached_property
    def lengths(self) -> Floats:
        """[pairs], the length of the wall between each pair."""
        steps = np.hypot(*(self.pieces[:, 2:] - self.pieces[:, :2]).T)
        inner = self.owners != BORDER
        return np.bincount(self.owners[inner], steps[inner], minlength=len(self.pairs)).astype(np.float64)


@cache
def rectangular(rows: int, columns: int) -> Grid:
    """Square cells, row by row."""
    cells = []
    for i in range(rows * columns):
        y, x = divmod(i, columns)
        corners: list[Point] = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        cells.append(((x + 0.5, y + 0.5), _polygon(corners)))
    return _grid("rectangular", cells)


@cache
def hexagonal(rows: int, columns: int) -> Grid:
    """Hexagons 1 wide that stand on a corner, row by row; odd rows are half a cell to the right."""
    radius = 1 / math.sqrt(3)
    cells = []
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        x, y = column + 0.5 + 0.5 * (row % 2), radius * (1 + 1.5 * row)
        angles = [math.radians(60 * k - 30) for k in range(6)]
        cells.append(((x, y), _polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles])))
    return _grid("hexagonal", cells)


@cache
def circular(rings: int, sectors: int) -> Grid:
    """Rings around a hub that is no cell and just wide enough for its sectors; ring by ring from the inside."""
    hub = sectors / math.tau
    middle = hub + rings
    step = math.tau / sectors
    dip = (middle - 0.5) * (1 - math.cos(step / 2))
    assert dip < _DEEPEST, (rings, sectors, "a straight step within the outer ring would graze the ring inside it")

    def at(radius: float, angle: float) -> Point:
        return middle + radius * math.cos(angle), middle + radius * math.sin(angle)

    def arc(radius: float, start: float) -> list[Point]:
        count = math.ceil(step / _PIECE)
        return [at(radius, start + step * k / count) for k in range(count + 1)]

    cells = []
    for i in range(rings * sectors):
        ring, sector = divmod(i, sectors)
        inner, start = hub + ring, sector * step
        spokes: list[Side] = [[at(inner, a), at(inner + 1, a)] for a in (start, start + step)]
        cells.append((at(inner + 0.5, start + step / 2), [arc(inner, start), arc(inner + 1, start), *spokes]))
    return _grid("circular", cells)


def _polygon(corners: Sequence[Point]) -> list[Side]:
    return [[corners[k - 1], corners[k]] for k in range(len(corners))]


def _grid(topology: str, cells: Sequence[tuple[Point, Sequence[Side]]]) -> Grid:
    """The grid of cells given as centre and sides: a side that two cells have in common divides them."""
    owners_of: dict[tuple[float, float], list[int]] = {}
    side_of: dict[tuple[float, float], Side] = {}
    for cell, (_, sides) in enumerate(cells):
        for side in sides:
            key = (round(sum(x for x, _ in side) / len(side), 6), round(sum(y for _, y in side) / len(side), 6))
            owners_of.setdefault(key, []).append(cell)
            side_of.setdefault(key, side)
    pairs: list[tuple[int, int]] = []
    pieces, owners = [], []
    for key, cells_there in owners_of.items():
        owner = BORDER
        if len(cells_there) == 2:
            owner = len(pairs)
            pairs.append((cells_there[0], cells_there[1]))
        side = side_of[key]
        pieces += [(*side[k], *side[k + 1]) for k in range(len(side) - 1)]
        owners += [owner] * (len(side) - 1)
    return Grid(topology, np.array([centre for centre, _ in cells]), tuple(pairs), np.array(pieces), np.array(owners))


TOPOLOGIES: dict[str, Callable[[int, int], Grid]] = {
    "rectangular": rectangular,
    "circular": circular,
    "hexagonal": hexagonal,
}
