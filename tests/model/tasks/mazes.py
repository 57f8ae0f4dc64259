"""What the maze tests share: grids to try, and slow, obvious ways to know what the suite computes fast."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from hypothesis import strategies as st

from model.tasks.maze_grids import TOPOLOGIES, Grid

Point = tuple[float, float]

_ROWS = {"rectangular": (2, 9), "circular": (1, 6), "hexagonal": (2, 9)}
_COLUMNS = {"rectangular": (2, 9), "circular": (7, 24), "hexagonal": (2, 9)}


@st.composite
def grids(draw: st.DrawFn, least: int = 2) -> Grid:
    """A grid with at least this many rows and columns."""
    topology = draw(st.sampled_from(list(TOPOLOGIES)))
    rows, columns = (
        draw(st.integers(max(low, least), max(high, least)))
        for low, high in (_ROWS[topology], _COLUMNS[topology])
    )  # fmt: skip
    return TOPOLOGIES[topology](rows, columns)


def joined(grid: Grid, doors: Collection[int], start: int) -> set[int]:
    """The cells within reach, by growing a set until it stops."""
    reached = {start}
    while True:
        grown = reached | {cell for door in doors for cell in grid.pairs[door] if set(grid.pairs[door]) & reached}
        if grown == reached:
            return reached
        reached = grown


def meets(a: Point, b: Point, wall: list[float]) -> bool:
    """Whether a segment and a wall's have a point in common, in exact arithmetic."""
    p, q = ((Fraction(x), Fraction(y)) for x, y in (a, b))
    u, v = (Fraction(wall[0]), Fraction(wall[1])), (Fraction(wall[2]), Fraction(wall[3]))

    def side(o: tuple[Fraction, Fraction], d: tuple[Fraction, Fraction], x: tuple[Fraction, Fraction]) -> int:
        cross = (d[0] - o[0]) * (x[1] - o[1]) - (d[1] - o[1]) * (x[0] - o[0])
        return (cross > 0) - (cross < 0)

    return side(p, q, u) * side(p, q, v) <= 0 and side(u, v, p) * side(u, v, q) <= 0
