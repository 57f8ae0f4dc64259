from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.maze_carving import ALGORITHMS, carve, distances, make, shortest
from model.tasks.maze_grids import Grid, circular, rectangular
from tests.model.tasks.mazes import grids, joined

SEEDS, BOTH = st.integers(0, 2**32), st.booleans()


@settings(deadline=None, max_examples=120)
@given(seed=SEEDS, grid=grids(), algorithm=st.sampled_from(ALGORITHMS))
def test_every_algorithm_carves_a_spanning_tree(seed: int, grid: Grid, algorithm: str) -> None:
    doors = carve(np.random.default_rng(seed), grid, algorithm)
    assert len(doors) == grid.cells - 1
    assert joined(grid, doors, 0) == set(range(grid.cells))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_door_is_as_likely_as_its_mirror_image(algorithm: str) -> None:
    # A 3 x 3 grid looks the same from all four sides, so its eight outer and four inner pairs are equally likely each.
    grid, runs = rectangular(3, 3), 3000
    counts = np.zeros(len(grid.pairs))
    rng = np.random.default_rng(1)
    for _ in range(runs):
        counts[list(carve(rng, grid, algorithm))] += 1
    inner = np.array([4 in pair for pair in grid.pairs])
    for group in (counts[inner], counts[~inner]):
        assert np.ptp(group) / runs < 0.07, group


@settings(deadline=None, max_examples=120)
@given(seed=SEEDS, grid=grids(), algorithm=st.sampled_from(ALGORITHMS), loops=st.integers(0, 1), solvable=BOTH)
def test_a_maze_has_a_solution_or_is_cut_away_from_both_ends(
    seed: int, grid: Grid, algorithm: str, loops: int, solvable: bool
) -> None:
    maze = make(np.random.default_rng(seed), grid, algorithm, loops=loops, solvable=solvable)
    assert len(maze.doors) == grid.cells - 1 + loops, "the number of doors, so of walls, tells nothing"
    reached = joined(grid, maze.doors, maze.start)
    if solvable:
        assert not maze.cuts and reached == set(range(grid.cells))
        assert maze.path[0] == maze.start and maze.path[-1] == maze.goal and len(maze.path) >= 5
        return
    assert maze.path == () and maze.goal not in reached
    assert len(maze.cuts) >= 1 and not set(maze.cuts) & maze.doors
    others = joined(grid, maze.doors, maze.goal)
    assert reached | others == set(range(grid.cells)), "no cell is out of reach of both"
    for cut in maze.cuts:
        assert set(grid.pairs[cut]).isdisjoint({maze.start, maze.goal}), "a wall right before an end"
    assert set(grid.pairs[maze.cuts[-1]]) & reached and set(grid.pairs[maze.cuts[-1]]) & others, "the last wall parts"
    assert shortest(grid, maze.doors | set(maze.cuts), maze.start, maze.goal)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, grid=grids(), algorithm=st.sampled_from(ALGORITHMS))
def test_a_shortest_path_steps_through_doors_and_is_as_long_as_the_distance(
    seed: int, grid: Grid, algorithm: str
) -> None:
    rng = np.random.default_rng(seed)
    doors = carve(rng, grid, algorithm)
    start, goal = (int(cell) for cell in rng.integers(grid.cells, size=2))
    path = shortest(grid, doors, start, goal)
    opened = {grid.pairs[door] for door in doors}
    assert all((min(a, b), max(a, b)) in opened for a, b in pairwise(path))
    assert len(path) - 1 == distances(grid, doors, start)[goal] and len(set(path)) == len(path)


def test_walls_are_as_long_with_a_solution_as_without() -> None:
    grid = circular(4, 16)  # arcs of several lengths
    for seed in range(60):
        lengths = []
        for solvable in (True, False):
            maze = make(np.random.default_rng(seed), grid, "kruskal", loops=2, solvable=solvable)
            lengths.append(grid.lengths.sum() - grid.lengths[list(maze.doors)].sum())
        assert abs(lengths[0] - lengths[1]) < 0.02 * lengths[0]


def test_a_solvable_maze_and_a_walled_one_of_the_same_draw_share_start_and_goal() -> None:
    for seed in range(50):
        one, other = (
            make(np.random.default_rng(seed), rectangular(4, 4), "prim", loops=1, solvable=solvable)
            for solvable in (True, False)
        )
        assert (one.start, one.goal) == (other.start, other.goal)
        assert len(one.doors ^ other.doors) == 2 * len(other.cuts)
