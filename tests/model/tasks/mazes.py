"""What the maze tests share: grids to try, and slow, obvious ways to know what the suite computes fast."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from hypothesis import strategies as st

from model.tasks.maze_grids import TOPOLOGIES, Grid

Point = tuple[float, float]

_SECTORS = {2: (7, 9), 3: (10, 13), 4: (15, 20), 5: (15, 20), 6: (22, 28)}  # by rings, as the levels have them


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """A grid of any topology, 14 to 168 cells."""
    topology = draw(st.sampled_from(list(TOPOLOGIES)))
    rows = draw(st.integers(2, 6)) if topology == "circular" else draw(st.integers(4, 9))
    columns = draw(st.integers(*_SECTORS[rows])) if topology == "circular" else draw(st.integers(4, 9))
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
