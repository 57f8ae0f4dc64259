"""Mazes: is there a way from one mark to the other, and which?

A response explores the maze depth first (`maze_tracing`), then answers. The way's points turn where it turns:

    <｜point｜>[[70,71]]<｜/point｜>fork right, up 2<｜point｜>[[310,71]]<｜/point｜>goal</think>
        True<｜point｜>[[70,71],[310,71]]<｜/point｜>
    <｜point｜>[[70,71]]<｜/point｜>way down 1<｜point｜>[[70,310]]<｜/point｜>dead end 0 closed</think>False

The score's parts are the paper's; their weights are ours. Two rules decided them. Whoever answers wrong never gets more
than whoever answers right and shows nothing: what is left without the answer and the path (0.35) is less than the
answer alone (0.40). And silence earns nothing but its answer: where the paper gives a flat 1 to a part that a case has
no use for, here that part takes the value of the one that is due instead. So

    progress      how much nearer to the goal the thinking got before its first wall; without a solution: completeness
    completeness  which share of all that can be reached it saw before its first wall; with a solution: progress
    walls         1 - moves through walls / distinct steps through doors; 0 when it took no step
    path          with a solution: "True" and a way from start to goal through no wall;
                  without: completeness, if the answer is "False" and names no way
    answer        "True" or "False" is right

A bare constant answer is then worth 0.2 on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from model.primitives import format_points, parse
from model.prompt import END_THINK
from model.tasks.maze_carving import ALGORITHMS, Maze, distances, make
from model.tasks.maze_drawing import Look, Placement, choose_look, draw, place
from model.tasks.maze_grids import BORDER, TOPOLOGIES, Floats, Grid
from model.tasks.maze_judging import Field, Walk, follow, is_path, moves
from model.tasks.maze_tracing import corners, thinking
from model.tasks.suite import Case, Split, Suite, Verdict, final_answer, rng_of, same_answer, stratum, to_frame, verdict

YES, NO = "True", "False"

_QUESTIONS = (
    "is there a way from the {start} to the {goal}?", "does a path lead from the {start} to the {goal}?",
    "can you get from the {start} to the {goal}?", "can the {goal} be reached from the {start}?",
    "find a way from the {start} to the {goal}.", "solve the maze from the {start} to the {goal}.",
    "true or false: the {start} and the {goal} are connected.", "is the {goal} within reach of the {start}?",
)  # fmt: skip
_CAPITALISED_SHARE = 0.25


@dataclass(frozen=True)
class _Level:
    """Ranges, both ends included. `corridor`: the least free width, `loops`: the most doors more than a tree has."""

    sides: tuple[int, int]  # pixels
    cells: tuple[int, int]  # a side, of rectangular mazes and hexagonal ones
    rings: tuple[int, int]
    sectors: tuple[int, int]
    loops: int
    corridor: float


_LEVELS = {
    "easy": _Level((168, 210), (3, 4), (2, 2), (7, 9), 1, 14.0),
    "medium": _Level((210, 294), (5, 7), (3, 3), (10, 13), 2, 12.0),
    "hard": _Level((294, 378), (8, 11), (4, 5), (15, 20), 4, 10.0),
    "nightmare": _Level((420, 504), (12, 16), (6, 7), (22, 28), 6, 10.0),
}


# ---- posing


def draw_case(seed: int, level: str, split: Split) -> Case:
    """The case of (level, split, seed)."""
    rng = rng_of("maze", level, split, seed)
    # Answers, topologies and algorithms in all combinations, each as often as the others.
    combinations = list(product((True, False), TOPOLOGIES, ALGORITHMS))
    solvable, topology, algorithm = combinations[stratum(seed, len(combinations))]
    ranges = _LEVELS[level]
    grid = _grid(rng, topology, ranges)
    placement = place(rng, grid, ranges.sides, ranges.corridor)
    look = choose_look(rng, held_out=split == "test")
    question = _question(rng, look)
    maze = make(rng, grid, algorithm, loops=int(rng.integers(ranges.loops + 1)), solvable=solvable)
    walls = placement.pixels(_closed(maze).reshape(-1, 2)).reshape(-1, 4).round(2)
    centres = placement.pixels(grid.centres).round(2)
    image = draw(rng, placement, look, walls, centres[[maze.start, maze.goal]])
    truth = _truth(maze, placement, look, walls, centres) | {"algorithm": algorithm}
    answer = YES if solvable else NO
    return Case("maze", level, topology, image, question, answer, _response(maze, centres, placement.size), None, truth)


def _grid(rng: np.random.Generator, topology: str, level: _Level) -> Grid:
    first, second = (level.rings, level.sectors) if topology == "circular" else (level.cells, level.cells)
    rows, columns = (int(rng.integers(low, high, endpoint=True)) for low, high in (first, second))
    return TOPOLOGIES[topology](rows, columns)


def _question(rng: np.random.Generator, look: Look) -> str:
    start, goal = (f"{color} {shape}" for shape, color in look.marks)
    question = _QUESTIONS[int(rng.integers(len(_QUESTIONS)))].format(start=start, goal=goal)
    return question[0].upper() + question[1:] if rng.random() < _CAPITALISED_SHARE else question


def _closed(maze: Maze) -> Floats:
    """The pieces of all walls that have no door."""
    shut = np.ones(len(maze.grid.pairs) + 1, dtype=bool)
    shut[list(maze.doors)] = False
    assert BORDER == -1, "the border's owner indexes the last entry, which is always shut"
    return maze.grid.pieces[shut[maze.grid.owners]]


def _truth(maze: Maze, placement: Placement, look: Look, walls: Floats, centres: Floats) -> dict[str, Any]:
    """All that the judge needs, in pixels and indices of cells, and a little for those who look."""
    return {
        "size": list(placement.size),
        "walls": walls.tolist(),
        "centres": centres.tolist(),
        "doors": [list(maze.grid.pairs[pair]) for pair in sorted(maze.doors)],
        "start": maze.start,
        "goal": maze.goal,
        "path": list(maze.path),
        "reachable": sorted(distances(maze.grid, maze.doors, maze.start)),
        "solvable": bool(maze.path),
        "cuts": [list(maze.grid.pairs[pair]) for pair in maze.cuts],
        "pitch": round(placement.pitch, 2),
        "thickness": round(placement.thickness, 2),
        "marks": [list(mark) for mark in look.marks],
        "look": [look.walls, look.ground, *(shape for shape, _ in look.marks)],
    }


def _response(maze: Maze, centres: Floats, size: tuple[int, int]) -> str:
    """The exploration, then the answer, with the shortest way if there is one."""

    def points(cells: Sequence[int]) -> str:
        return format_points([to_frame(centres[cell].tolist(), size) for cell in cells])

    answer = YES + points(corners(maze.grid, maze.path)) if maze.path else NO
    return f"{thinking(maze, points)}{END_THINK}{answer}"


# ---- judging


def judge(case: Case, response: str) -> Verdict:
    """Score a response by the case's truth alone. Without `</think>` it has no answer, and all its points think."""
    truth = case.truth
    maze = Field(truth)
    start, goal = truth["start"], truth["goal"]
    answer = final_answer(response)
    found = parse(response)
    thoughts = [p for p in found if answer is None or p.part == "reasoning"]
    final = [p for p in found if answer is not None and p.part == "answer"]
    walk = follow(maze, start, moves(thoughts, truth["size"]))
    way = [point for points in moves(final, truth["size"]) for point in points]
    exact = same_answer(answer, case.answer)
    if truth["solvable"]:
        valid = exact and is_path(maze, start, goal, way)
        seen, path = _progress(maze, goal, walk, truth), float(valid)
    else:
        seen = (len(walk.explored & set(truth["reachable"])) - 1) / (len(truth["reachable"]) - 1)
        valid, path = None, seen if exact and not way else 0.0
    parts = {
        "progress": seen,
        "completeness": seen,
        "walls": max(0.0, 1 - walk.violations / len(walk.legal)) if walk.legal else 0.0,
        "path": path,
        "answer": float(exact),
    }
    return verdict(SUITE, response, parts, exact=exact, path_valid=valid)


def _progress(maze: Field, goal: int, walk: Walk, truth: Mapping[str, Any]) -> float:
    left = maze.steps_to(goal, walk.explored)
    assert left is not None, "the start is explored, and leads to the goal"
    return max(0.0, 1 - left / (len(truth["path"]) - 1))


SUITE = Suite(
    "maze", tuple(_LEVELS), {"progress": 0.15, "completeness": 0.1, "walls": 0.1, "path": 0.25, "answer": 0.4},
    draw_case, judge,
)  # fmt: skip
