"""Mazes: doors carved through a grid, a start and a goal, and walls that cut the one from the other.

Every maze starts as a spanning tree, gets a few more doors (loops), then a start and a goal far apart. One without a
solution is such a maze whose shortest path is walled up near its middle until none is left. As many doors are then
opened elsewhere, in walls about as long, so that the amount of wall tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model.tasks.maze_grids import Grid

ALGORITHMS = ("dfs", "prim", "kruskal")

_LEAST_STEPS = 4  # from start to goal: a wall near the middle then leaves a step on either side of it
_TRIES = 1000  # the easiest level's smallest grids need 3 on average
_FAR = 0.55  # of the way to the farthest cell: a goal is no nearer


@dataclass(frozen=True, eq=False)
class Maze:
    """A grid with its doors (indices of pairs). `path`: a shortest one, both ends included; empty when there is none.

    `cuts`: the pairs walled up, in the order in which it was done.
    """

    grid: Grid
    doors: frozenset[int]
    start: int
    goal: int
    path: tuple[int, ...]
    cuts: tuple[int, ...]


def make(rng: np.random.Generator, grid: Grid, algorithm: str, *, loops: int, solvable: bool) -> Maze:
    """A maze of this grid with `loops` doors more than a tree has.

    Only mazes that could be made either way are used, so that nothing but the cut tells them apart.
    """
    for _ in range(_TRIES):
        doors = carve(rng, grid, algorithm)
        shut = [pair for pair in range(len(grid.pairs)) if pair not in doors]
        doors |= {shut[i] for i in rng.permutation(len(shut))[:loops]}
        start = int(rng.integers(grid.cells))
        steps = distances(grid, doors, start)
        least = max(_LEAST_STEPS, _FAR * max(steps.values()))
        far = [cell for cell, count in steps.items() if count >= least]
        if not far:
            continue
        goal = far[int(rng.integers(len(far)))]
        path = shortest(grid, doors, start, goal)
        cut = _cut(rng, grid, doors, start, goal)
        if cut is None:
            continue
        if solvable:
            return Maze(grid, frozenset(doors), start, goal, path, ())
        return Maze(grid, frozenset(cut[0]), start, goal, (), cut[1])
    raise AssertionError(f"no maze of {grid.cells} {grid.topology} cells with {loops} loops could be cut")


def carve(rng: np.random.Generator, grid: Grid, algorithm: str) -> set[int]:
    """The doors of a spanning tree of the grid, as indices of pairs."""
    return {"dfs": _dfs, "prim": _prim, "kruskal": _kruskal}[algorithm](rng, grid)


def distances(grid: Grid, doors: Iterable[int], start: int) -> dict[int, int]:
    """Steps from the start to every cell within reach, in the order of reaching them."""
    steps = {start: 0}
    queue = [start]
    for cell in queue:
        for other, pair in grid.neighbours[cell]:
            if pair in doors and other not in steps:
                steps[other] = steps[cell] + 1
                queue.append(other)
    return steps


def shortest(grid: Grid, doors: Iterable[int], start: int, goal: int) -> tuple[int, ...]:
    """The cells of a shortest path, both ends included; empty when there is none."""
    steps = distances(grid, doors, goal)
    if start not in steps:
        return ()
    path = [start]
    while path[-1] != goal:
        here = path[-1]
        path.append(next(o for o, p in grid.neighbours[here] if p in doors and steps.get(o) == steps[here] - 1))
    return tuple(path)


def _cut(
    rng: np.random.Generator, grid: Grid, doors: set[int], start: int, goal: int
) -> tuple[set[int], tuple[int, ...]] | None:
    """The doors when all ways are walled up, and what was; None where as many doors can't be opened elsewhere."""
    doors = set(doors)
    cuts: list[int] = []
    while path := shortest(grid, doors, start, goal):
        third = (len(path) - 1) // 3
        step = int(rng.integers(third, len(path) - 1 - third))
        cuts.append(next(pair for other, pair in grid.neighbours[path[step]] if other == path[step + 1]))
        doors.remove(cuts[-1])
    here = distances(grid, doors, start)
    spare = [
        pair
        for pair, (a, b) in enumerate(grid.pairs)
        if pair not in doors and pair not in cuts and (a in here) == (b in here)
    ]
    if len(spare) < len(cuts):
        return None
    for cut in cuts:
        off = np.abs(grid.lengths[spare] - grid.lengths[cut]).round(3)
        doors.add(spare.pop(int(np.lexsort((rng.random(len(spare)), off))[0])))
    return doors, tuple(cuts)


def _dfs(rng: np.random.Generator, grid: Grid) -> set[int]:
    """Walk on to a random new neighbour, go back when there is none: long corridors."""
    order = rng.random(len(grid.pairs)).tolist()  # one rank a pair is as good as a draw at every cell
    here = int(rng.integers(grid.cells))
    seen, stack, doors = {here}, [here], set()
    while stack:
        new = [(order[pair], other, pair) for other, pair in grid.neighbours[stack[-1]] if other not in seen]
        if not new:
            stack.pop()
            continue
        _, other, pair = min(new)
        doors.add(pair)
        seen.add(other)
        stack.append(other)
    return doors


def _prim(rng: np.random.Generator, grid: Grid) -> set[int]:
    """Grow from one cell through a random wall of the edge: many short dead ends."""
    here = int(rng.integers(grid.cells))
    seen, doors = {here}, set()
    edge = list(grid.neighbours[here])
    draws = iter(rng.random(2 * len(grid.pairs)).tolist())
    while len(seen) < grid.cells:
        at = int(next(draws) * len(edge))
        edge[at], edge[-1] = edge[-1], edge[at]
        other, pair = edge.pop()
        if other not in seen:
            seen.add(other)
            doors.add(pair)
            edge += grid.neighbours[other]
    return doors


def _kruskal(rng: np.random.Generator, grid: Grid) -> set[int]:
    """Open walls in random order where they part what is not joined yet."""
    parent = list(range(grid.cells))

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    doors = set()
    for pair in rng.permutation(len(grid.pairs)).tolist():
        a, b = map(root, grid.pairs[pair])
        if a != b:
            parent[a] = b
            doors.add(pair)
    return doors
