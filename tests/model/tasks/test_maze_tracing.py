from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.maze_carving import ALGORITHMS, Maze, distances, make
from model.tasks.maze_grids import Grid, rectangular
from model.tasks.maze_tracing import CLOSED, DEAD_END, DIRECTIONS, FORK, GOAL, WAY, corners, explore, thinking
from tests.model.tasks.mazes import grids


@st.composite
def mazes(draw: st.DrawFn) -> Maze:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    algorithm = draw(st.sampled_from(ALGORITHMS))
    return make(rng, draw(grids()), algorithm, loops=draw(st.integers(0, 1)), solvable=draw(st.booleans()))


def names(cells: Sequence[int]) -> str:
    return "[" + ",".join(map(str, cells)) + "]"


def corridor(doors: list[tuple[int, int]], start: int, goal: int, path: tuple[int, ...]) -> Maze:
    """A 2 x 4 maze, cells 0 to 3 over 4 to 7, with these doors."""
    grid = rectangular(2, 4)
    return Maze(grid, frozenset(grid.pairs.index(door) for door in doors), start, goal, path, ())


@settings(deadline=None, max_examples=150)
@given(maze=mazes())
def test_the_exploration_steps_through_doors_only_and_starts_anew_only_at_forks(maze: Maze) -> None:
    opened = {maze.grid.pairs[door] for door in maze.doors}
    seen: set[int] = set()
    forks: set[int] = set()
    for rank, move in enumerate(explore(maze)):
        if move.end == CLOSED:
            continue
        assert move.cells[0] == maze.start if rank == 0 else move.cells[0] in forks
        for a, b in pairwise(move.cells):
            assert (min(a, b), max(a, b)) in opened and b not in seen, "a step into the unknown"
        seen.update(move.cells)
        forks |= {move.cells[-1]} if move.end in (FORK, WAY) else set()


@settings(deadline=None, max_examples=150)
@given(maze=mazes())
def test_each_move_says_how_many_ways_were_seen_and_not_taken(maze: Maze) -> None:
    seen: set[int] = set()
    for move in explore(maze):
        seen.update(move.cells)
        doors = {maze.grid.pairs[door] for door in maze.doors}
        beside = {b for pair in doors for a, b in (pair, pair[::-1]) if a in seen} - seen
        if move.end in (WAY, FORK, DEAD_END):
            assert move.left == len(beside), move
        if move.end == CLOSED:
            assert move.left == 0 and not beside


@settings(deadline=None, max_examples=150)
@given(maze=mazes())
def test_the_exploration_ends_at_the_goal_or_has_seen_everything(maze: Maze) -> None:
    moves = explore(maze)
    assert [move.end in (GOAL, CLOSED) for move in moves] == [False] * (len(moves) - 1) + [True]
    if maze.path:
        assert moves[-1].end == GOAL and moves[-1].cells[-1] == maze.goal
    else:
        assert moves[-1].end == CLOSED and moves[-2].end == DEAD_END
        assert {cell for move in moves for cell in move.cells} == set(distances(maze.grid, maze.doors, maze.start))


@settings(deadline=None, max_examples=150)
@given(maze=mazes())
def test_a_move_that_can_go_on_says_in_which_directions_and_the_first_one_stays_at_the_start(maze: Maze) -> None:
    seen: set[int] = set()
    for rank, move in enumerate(explore(maze)):
        seen.update(move.cells)
        assert rank or move.cells == (maze.start,)
        assert bool(move.ways) == (move.end in (WAY, FORK)) and (len(move.ways) == 1) == (move.end == WAY)
        assert move.end != WAY or rank == 0, "elsewhere a single way is simply taken"
        if move.ways:
            here = move.cells[-1]
            ahead = [o for o, pair in maze.grid.neighbours[here] if pair in maze.doors and o not in seen]
            steps = [maze.grid.centres[o] - maze.grid.centres[here] for o in ahead]
            turns = sorted((math.degrees(math.atan2(y, x)) + 22.5) % 360 - 22.5 for x, y in steps)  # y grows downwards
            for turn, way in zip(turns, move.ways, strict=True):
                off = abs(turn - 45 * DIRECTIONS.index(way))
                assert min(off, 360 - off) < 22.5 + 1e-6, (turn, way)  # on the line between two, either


def test_a_start_with_one_way_says_so() -> None:
    maze = corridor([(0, 1), (1, 2), (2, 3)], 0, 3, (0, 1, 2, 3))
    assert thinking(maze, names) == "[0]way right 1[3]goal"


def test_the_branch_nearer_to_the_goal_goes_first_and_a_dead_end_leads_back() -> None:
    # 0-1-2 3      from 4 the goal 7 lies to the right: 5, 6, dead end; then back to 4, up and around
    # |     |
    # 4-5-6 7
    doors = [(0, 1), (0, 4), (1, 2), (2, 3), (3, 7), (4, 5), (5, 6)]
    maze = corridor(doors, 4, 7, (4, 0, 1, 2, 3, 7))
    assert thinking(maze, names) == "[4]fork right, up 2[6]dead end 1[4,0,3,7]goal"


def test_what_cannot_be_reached_is_closed() -> None:
    maze = corridor([(0, 1), (0, 4), (4, 5), (2, 3), (3, 7), (6, 7)], 0, 3, ())
    assert thinking(maze, names) == "[0]fork right, down 2[1]dead end 1[0,4,5]dead end 0 closed"


def test_a_loop_is_walked_once() -> None:
    square = [(0, 1), (0, 4), (1, 5), (4, 5)]
    maze = corridor([*square, (3, 7)], 0, 3, ())
    assert thinking(maze, names) == "[0]fork right, down 2[1,5,4]dead end 0 closed"


@settings(deadline=None, max_examples=150)
@given(maze=mazes())
def test_corners_leave_out_only_what_lies_on_the_straight_way(maze: Maze) -> None:
    for move in explore(maze):
        kept = corners(maze.grid, move.cells)
        assert kept == [cell for cell in move.cells if cell in kept], "in their order"
        if move.cells:
            assert (kept[0], kept[-1]) == (move.cells[0], move.cells[-1])
        assert_straight(maze.grid, move.cells, kept)


def assert_straight(grid: Grid, cells: Sequence[int], kept: Sequence[int]) -> None:
    """Every cell left out lies on the segment between the kept ones around it, and the kept ones between do not."""
    for a, b in pairwise(kept):
        start, end = grid.centres[a], grid.centres[b]
        for cell in cells[cells.index(a) : cells.index(b)]:
            on = grid.centres[cell] - start
            along = end - start
            assert abs(on[0] * along[1] - on[1] * along[0]) < 1e-6, (a, cell, b)
    for a, b, c in zip(kept, kept[1:], kept[2:], strict=False):
        into, onward = grid.centres[b] - grid.centres[a], grid.centres[c] - grid.centres[b]
        assert abs(into[0] * onward[1] - into[1] * onward[0]) > 1e-6, (a, b, c)
