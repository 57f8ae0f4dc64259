from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from model.tasks.maze_grids import BORDER, TOPOLOGIES, Grid
from tests.model.tasks.mazes import grids


@settings(deadline=None, max_examples=60)
@given(grid=grids())
def test_each_pair_is_divided_by_a_wall_between_its_two_centres(grid: Grid) -> None:
    for pair, (a, b) in enumerate(grid.pairs):
        assert a < b
        ends = grid.pieces[grid.owners == pair].reshape(-1, 2)
        middle, between = (ends.min(axis=0) + ends.max(axis=0)) / 2, (grid.centres[a] + grid.centres[b]) / 2
        assert math.dist(middle, between) < 0.6, (grid.topology, a, b)
        assert grid.lengths[pair] > 0.5


@pytest.mark.parametrize(
    ("topology", "rows", "columns", "pairs", "border"),
    [
        ("rectangular", 3, 4, 3 * 3 + 2 * 4, 14),
        ("circular", 2, 8, 2 * 8 + 8, 16),
        ("hexagonal", 2, 3, 2 * 2 + 5, 18),
    ],
)
def test_a_grid_has_the_neighbours_one_counts_by_hand(
    topology: str, rows: int, columns: int, pairs: int, border: int
) -> None:
    grid = TOPOLOGIES[topology](rows, columns)
    assert grid.cells == rows * columns and len(grid.pairs) == pairs
    middles = grid.pieces[grid.owners == BORDER].reshape(-1, 2, 2).mean(axis=1)
    # An arc is several pieces: those of one side lie within a sector.
    sides = len(middles) if topology != "circular" else len(middles) * columns // sum(_arcs(grid, columns))
    assert sides == border


def _arcs(grid: Grid, columns: int) -> list[int]:
    inner = np.hypot(*(grid.pieces[:, :2] - grid.centres.mean(axis=0)).T) < columns / math.tau + 0.01
    return [int((inner & (grid.owners == BORDER)).sum())]


@pytest.mark.parametrize("rows", range(2, 5))
@pytest.mark.parametrize("columns", range(13, 29))
def test_no_pair_of_neighbours_is_missed(rows: int, columns: int) -> None:
    inside = (rows - 1) * columns
    pairs = {
        "rectangular": inside + rows * (columns - 1),
        "circular": inside + rows * columns,
        "hexagonal": (rows - 1) * (2 * columns - 1) + rows * (columns - 1),
    }
    assert {name: len(build(rows, columns).pairs) for name, build in TOPOLOGIES.items()} == pairs


@settings(deadline=None, max_examples=60)
@given(grid=grids())
def test_corridors_are_one_wide_at_least(grid: Grid) -> None:
    apart = np.hypot(*(grid.centres[:, None] - grid.centres[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 0.99
    # No wall comes nearer to a cell's centre than half a corridor, but for what an arc's pieces cut off.
    start, along = grid.pieces[:, :2], grid.pieces[:, 2:] - grid.pieces[:, :2]
    for centre in grid.centres:
        t = np.clip(((centre - start) * along).sum(axis=1) / (along**2).sum(axis=1), 0, 1)
        nearest = np.hypot(*(start + along * t[:, None] - centre).T).min()
        assert nearest > 0.47, (grid.topology, nearest)


@settings(deadline=None, max_examples=40)
@given(grid=grids())
def test_neighbours_are_mutual_and_name_their_pair(grid: Grid) -> None:
    for cell, around in enumerate(grid.neighbours):
        for other, pair in around:
            assert grid.pairs[pair] == (min(cell, other), max(cell, other))
            assert (cell, pair) in grid.neighbours[other]


def test_rings_too_wide_for_their_sectors_are_refused() -> None:
    with pytest.raises(AssertionError, match="graze"):
        TOPOLOGIES["circular"](6, 8)
