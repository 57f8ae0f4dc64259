from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.primitives import parse
from model.tasks.maze import SUITE
from model.tasks.maze_judging import Field, follow, is_path, moves
from tests.model.tasks.mazes import meets

# Two rooms of 10 x 10 and a third that no door leads to: 0 | 1 | 2, the wall between 0 and 1 open in its middle.
_OUTER = [[0, 0, 30, 0], [0, 10, 30, 10], [0, 0, 0, 10], [30, 0, 30, 10]]
ROOMS = {
    "walls": [*_OUTER, [20, 0, 20, 10], [10, 0, 10, 3], [10, 7, 10, 10]],
    "centres": [[5, 5], [15, 5], [25, 5]],
    "doors": [[0, 1]],
}
FIELD = Field(ROOMS)
COORDINATES = st.tuples(st.integers(0, 420), st.integers(0, 420)).map(lambda p: (p[0] / 2, p[1] / 2))


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 17), start=COORDINATES, end=COORDINATES)
def test_crossing_agrees_with_exact_arithmetic(seed: int, start: tuple[float, float], end: tuple[float, float]) -> None:
    walls = easy(seed)["walls"]
    # Walls are sealed a twentieth of a pixel beyond their ends: there the two may differ.
    ends = {(x, y) for wall in walls for x, y in (wall[:2], wall[2:])}
    assume(start != end and not any(0 < distance(corner, start, end) < 0.06 for corner in ends))
    assert Field(easy(seed)).crosses(start, end) == any(meets(start, end, wall) for wall in walls)


@cache
def easy(seed: int) -> Mapping[str, Any]:
    """The truth of an easy case."""
    return SUITE.case(seed, "easy", "validation").truth


def distance(point: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> float:
    """From a point to the segment a b."""
    length = math.dist(a, b) ** 2
    t = ((point[0] - a[0]) * (b[0] - a[0]) + (point[1] - a[1]) * (b[1] - a[1])) / length if length else 0.0
    t = min(max(t, 0.0), 1.0)
    return math.dist(point, (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))


def test_through_the_door_is_free_and_touching_a_wall_is_not() -> None:
    assert not FIELD.crosses((5, 5), (15, 5))
    assert FIELD.crosses((5, 5), (10, 2)), "ends on the wall"
    assert FIELD.crosses((5, 3), (15, 3)), "through the wall's very end"
    assert FIELD.crosses((15, 5), (25, 5))
    assert FIELD.crosses((5, 5), (5, -3)), "out of the maze"
    assert not FIELD.crosses((5, 5), (5, 5)), "no move"


def test_a_wall_cannot_be_passed_by_resting_on_it() -> None:
    assert not is_path(FIELD, 1, 2, [(15, 5), (20, 5), (25, 5)])
    # Nor by walking along its own line: the moves that come and go touch it.
    assert not is_path(FIELD, 1, 2, [(15, 5), (20, 4), (20, 6), (25, 5)])


def test_a_path_begins_in_the_starts_cell_and_ends_in_the_goals() -> None:
    assert is_path(FIELD, 0, 1, [(5, 5), (15, 5)])
    assert is_path(FIELD, 0, 1, [(2, 8), (9, 5), (11, 5), (18, 2)]), "anywhere in the cell"
    assert not is_path(FIELD, 0, 1, [(5, 5)])
    assert not is_path(FIELD, 0, 1, [(15, 5), (5, 5)])
    assert not is_path(FIELD, 0, 1, [])


def test_a_nearest_centre_behind_a_wall_is_not_where_a_point_lies() -> None:
    # The middle of three rooms is narrow, so the next room's centre is nearer to the right edge of the first.
    narrow = Field(ROOMS | {"centres": [[5, 5], [11, 5], [25, 5]]})
    assert narrow.cell((9, 9.5)) == 1 and not narrow.lies_in((9, 9.5), 1)


def test_a_straight_move_passes_every_cell_on_its_way() -> None:
    truth = SUITE.case(3, "hard", "validation").truth
    field = Field(truth)
    for a, b in truth["doors"]:
        assert field.passed(field.centre(a), field.centre(b)) == [a, b]


def test_exploring_stops_counting_at_the_first_wall_and_the_walls_are_counted() -> None:
    walk = follow(FIELD, 0, [[(5, 5), (25, 5), (15, 5)]])
    assert walk.violations == 2 and walk.explored == {0} and walk.legal == set()
    walk = follow(FIELD, 0, [[(5, 5), (15, 5), (25, 5)], [(5, 5), (15, 5)]])
    assert walk.violations == 1 and walk.explored == {0, 1} and walk.legal == {(0, 1)}


def test_what_is_seen_after_a_wall_was_crossed_is_not_explored() -> None:
    walk = follow(FIELD, 0, [[(5, 5), (25, 5)], [(5, 5), (15, 5)]])
    assert walk.violations == 1 and walk.explored == {0} and walk.legal == {(0, 1)}


def test_a_list_cannot_begin_anew_behind_the_wall_of_a_visited_cell() -> None:
    narrow = Field(ROOMS | {"centres": [[5, 5], [11, 5], [25, 5]]})
    assert follow(narrow, 1, [[(9, 9.5)]]).violations == 1


def test_a_new_list_may_begin_where_one_has_been_and_nowhere_else() -> None:
    assert follow(FIELD, 0, [[(5, 5), (15, 5)], [(4, 6), (15, 5)]]).violations == 0
    assert follow(FIELD, 0, [[(5, 5)], [(25, 5)]]).violations == 1
    assert follow(FIELD, 0, [[(25, 5)]]).violations == 1, "the very first move too, from the start"
    assert follow(FIELD, 0, [[(15, 5)]]).violations == 0, "a legal step needs no announcing"


def test_walking_to_and_fro_counts_once() -> None:
    assert follow(FIELD, 0, [[(5, 5), (15, 5)] * 20]).legal == {(0, 1)}


def test_points_off_the_image_are_taken_to_its_edge() -> None:
    text = "<｜point｜>[[5,-40],[99999,7]]<｜/point｜>"
    assert moves(parse(text), (999, 999)) == [[(5.0, 0.0), (999.0, 7.0)]]


def test_steps_to_the_goal_follow_the_doors() -> None:
    truth = next(truth for truth in map(easy, range(18)) if truth["solvable"])
    field = Field(truth)
    for left, cell in enumerate(reversed(truth["path"])):
        assert field.steps_to(truth["goal"], {cell}) == left
    assert field.steps_to(truth["goal"], set(truth["path"][:2])) == len(truth["path"]) - 2
    assert FIELD.steps_to(2, {0, 1}) is None
    assert all(not field.crosses(field.centre(a), field.centre(b)) for a, b in pairwise(truth["path"]))
