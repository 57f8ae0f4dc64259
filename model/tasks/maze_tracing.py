"""How the reference explores a maze: depth first, the branch nearest to the goal first, back from every dead end.

Each move is a list of points, a word says what stopped it and a number how many ways have been seen and not taken, and
the next move starts where the last one ended, or, after a dead end, at the last fork that has a branch left:

    <｜point｜>[…,[fork]]<｜/point｜>fork right, up 2<｜point｜>[…]<｜/point｜>dead end 1
        <｜point｜>[[fork],…]<｜/point｜>goal

A move names the centres of the cells where it starts, turns and ends. When nothing is left the last word is "closed".
The number makes that a matter of reading: without it, whether a way is left has to be gathered from all forks at once.
So do the directions: they are seen before one is chosen. Without them, three in four of the walls that were crossed
stood between a place and the goal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.tasks.maze_carving import Maze
from model.tasks.maze_grids import Grid

WAY, FORK, DEAD_END, GOAL, CLOSED = "way", "fork", "dead end", "goal", "closed"  # "way": of the start, a single one
DIRECTIONS = ("right", "right down", "down", "left down", "left", "left up", "up", "right up")  # clockwise

_STRAIGHT = 1e-6  # of a unit: what rounding leaves of a turn that is none


@dataclass(frozen=True)
class Move:
    """The cells of one move, the first of them known already but for the very first move, what ended it, how many
    cells have been seen through a door by then and not entered, and the directions of those next to its last cell."""

    cells: tuple[int, ...]
    end: str
    left: int
    ways: tuple[str, ...] = ()


def explore(maze: Maze) -> list[Move]:
    """The moves of the exploration, up to the goal or through all that can be reached. The first stays at the start."""
    moves: list[Move] = []
    seen = {maze.start}
    forks: list[int] = []
    cells = [maze.start]
    away = ((maze.grid.centres - maze.grid.centres[maze.goal]) ** 2).sum(axis=1).round(6).tolist()

    def new(cell: int) -> list[int]:
        """New cells next door, nearest to the goal as the crow flies first."""
        cells = [o for o, pair in maze.grid.neighbours[cell] if pair in maze.doors and o not in seen]
        return sorted(cells, key=lambda other: (away[other], other))

    while True:
        here = cells[-1]
        ahead = new(here)
        if moves and here != maze.goal and len(ahead) == 1:
            seen.add(ahead[0])
            cells.append(ahead[0])
            continue
        forks += [here] if ahead else []
        left = len({cell for fork in forks for cell in new(fork)})
        end = GOAL if here == maze.goal else DEAD_END if not ahead else FORK if len(ahead) > 1 else WAY
        ways = _directions(maze.grid, here, ahead) if end in (WAY, FORK) else ()
        moves.append(Move(tuple(cells), end, left, ways))
        if here == maze.goal:
            return moves
        while forks and not new(forks[-1]):
            forks.pop()
        if not forks:
            return [*moves, Move((), CLOSED, 0)]
        branch = new(forks[-1])[0]
        seen.add(branch)
        cells = [forks[-1], branch]


def _directions(grid: Grid, here: int, others: Sequence[int]) -> tuple[str, ...]:
    """Where other cells lie from here, clockwise, to an eighth of a turn."""
    x, y = (grid.centres[list(others)] - grid.centres[here]).T
    eighths = np.round(np.arctan2(y, x) / (math.tau / 8)).astype(int) % 8
    return tuple(DIRECTIONS[k] for k in sorted(eighths.tolist()))


def thinking(maze: Maze, write: Callable[[Sequence[int]], str]) -> str:
    """The exploration as text; `write` turns cells into a list of points."""
    text = ""
    known: int | None = None  # the cell that the next move starts from without saying so
    for move in explore(maze):
        cells = corners(maze.grid, move.cells)
        text += write(cells[1:] if cells[0] == known else cells) if cells else " "
        words = [move.end, ", ".join(move.ways)] if move.end in (WAY, FORK) else [move.end]
        text += " ".join(words if move.end in (GOAL, CLOSED) else [*words, str(move.left)])
        known = move.cells[-1] if move.ways else None
    return text


def corners(grid: Grid, cells: Sequence[int]) -> list[int]:
    """The cells but for those that the way passes straight through."""
    steps = np.diff(grid.centres[list(cells)], axis=0)
    turn = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > _STRAIGHT
    return [cell for k, cell in enumerate(cells) if k in (0, len(cells) - 1) or turn[k - 1]]
