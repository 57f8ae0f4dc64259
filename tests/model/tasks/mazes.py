"""What the maze tests share: grids to try, and slow, obvious ways to know what the suite computes fast."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction

from hypothesis import strategies as st

from model.primitives import format_points, parse
from model.prompt import END_POINT, END_THINK, POINT
from model.tasks.maze_grids import TOPOLOGIES, Grid
from model.tasks.suite import Case, to_frame

Point = Sequence[float]  # x, y

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


def meets_any(case: Case, a: Point, b: Point) -> bool:
    """Whether a segment meets any wall of the case's truth, in exact arithmetic."""
    return any(meets(a, b, wall) for wall in case.truth["walls"])


# ---- damage: each takes a case and changes its reference response


def _lists(text: str) -> list[str]:
    return re.findall(f"{POINT}.*?{END_POINT}", text)


def _points(text: str) -> list[tuple[int, ...]]:
    return [primitive.frame for primitive in parse(text)]


def _with_path(case: Case, change: Callable[[list[tuple[int, ...]]], list[tuple[int, ...]]]) -> str:
    """The response with its final path changed; as it was, where there is none."""
    thinking, _, answer = case.response.partition(END_THINK)
    path = change(_points(answer)) if POINT in answer else []
    return f"{thinking}{END_THINK}{case.answer}{format_points(path) if path else ''}"


def flipped(case: Case) -> str:
    """The other word; the path stays."""
    thinking, _, answer = case.response.partition(END_THINK)
    other = "False" if case.answer == "True" else "True"
    return f"{thinking}{END_THINK}{answer.replace(case.answer, other)}"


def wrong_end(case: Case) -> str:
    """The final path stops a corner early."""
    return _with_path(case, lambda path: path[:-1])


def wrong_start(case: Case) -> str:
    """The final path begins a corner late."""
    return _with_path(case, lambda path: path[1:])


def gap(case: Case) -> str:
    """The final path leaves out the corner in its middle, if it has one."""
    return _with_path(case, lambda path: path[: len(path) // 2] + path[len(path) // 2 + 1 :] if path[2:] else path)


def straight(case: Case) -> str:
    """The final path runs straight to the goal, through whatever is there."""
    return _with_path(case, lambda path: [path[0], path[-1]])


def no_path(case: Case) -> str:
    """The answer without its path."""
    return _with_path(case, lambda path: [])


def invented_path(case: Case) -> str:
    """The answer "True" with a path straight to the goal, whatever the maze."""
    ends = [to_frame(case.truth["centres"][case.truth[end]], case.size) for end in ("start", "goal")]
    return case.response.partition(END_THINK)[0] + f"{END_THINK}True{format_points(ends)}"


def through_the_wall(case: Case) -> str:
    """The thinking ends its first move at the goal, straight through the walls, then goes on as it did."""
    goal = to_frame(case.truth["centres"][case.truth["goal"]], case.size)
    return case.response.replace(f"]{END_POINT}", f",[{goal[0]},{goal[1]}]]{END_POINT}", 1)


def teleport(case: Case) -> str:
    """After its first move the thinking goes on at the goal, without saying how it got there."""
    goal = to_frame(case.truth["centres"][case.truth["goal"]], case.size)
    return case.response.replace(END_POINT, f"{END_POINT}{format_points([goal])}", 1)


def half(case: Case) -> str:
    """The thinking has only the first half of its moves."""
    thinking, _, answer = case.response.partition(END_THINK)
    lists = _lists(thinking)
    return "".join(lists[: len(lists) // 2]) + f"{END_THINK}{answer}"


def silent(case: Case) -> str:
    """No thinking at all, the answer and its path as they were."""
    return END_THINK + case.response.partition(END_THINK)[2]


def broken_tag(case: Case) -> str:
    """A closing tag is missing."""
    return case.response.replace(END_POINT, "", 1)


def endless(case: Case) -> str:
    """The thinking never ends."""
    return case.response.replace(END_THINK, "")


def always_true(case: Case) -> str:
    """The bare constant answer."""
    return f"{END_THINK}True"


def always_false(case: Case) -> str:
    """The bare constant answer."""
    return f"{END_THINK}False"


DAMAGES: tuple[Callable[[Case], str], ...] = (
    flipped, no_path, wrong_end, wrong_start, gap, straight, invented_path, through_the_wall, teleport, half, silent,
    broken_tag, endless, always_true, always_false,
)  # fmt: skip
