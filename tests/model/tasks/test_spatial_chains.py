from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.collages import Item, Placed
from model.tasks.matching import Box
from model.tasks.spatial_chains import APART_PX, HOPS, LARGER, NEARER, NEARER_PX, RELATIONS, chains, holds, refer, steps

OPPOSITE = {"left of": "right of", "above": "below", "larger than": "smaller than"}


def at(x1: float, y1: float, x2: float, y2: float, color: str = "red") -> Placed:
    return colored((x1, y1, x2, y2), color)


def colored(box: Box, color: str) -> Placed:
    return Placed(Item("cup", color), box, max(box[2] - box[0], box[3] - box[1]), None)


def boxes() -> st.SearchStrategy[Box]:
    corner, side = st.integers(0, 260), st.integers(20, 60)
    return st.builds(lambda x, y, w, h: (float(x), float(y), float(x + w), float(y + h)), corner, corner, side, side)


COLORED = st.builds(colored, boxes(), st.sampled_from(("red", "blue", "green", "pink")))


def test_relations_hold_fail_or_are_too_close_to_call() -> None:
    here, right, below = at(0, 0, 30, 30), at(34, 10, 64, 40), at(10, 80, 80, 150)
    assert holds("left of", here, right) is True and holds("left of", right, here) is False
    assert holds("left of", here, at(33, 10, 60, 40)) is None
    assert holds("above", here, right) is None and holds("above", here, below) is True
    assert holds("smaller than", here, below) is True and holds("larger than", here, right) is None
    assert holds("larger than", at(0, 0, 60, 10), here) is None, "longer, but not of more area"
    assert holds("the same colour as", here, right) is True
    assert holds("the same colour as", here, at(0, 0, 9, 9, "blue")) is False


@settings(deadline=None)
@given(COLORED, COLORED)
def test_opposite_relations_agree(a: Placed, b: Placed) -> None:
    for relation, opposite in OPPOSITE.items():
        assert holds(relation, a, b) is holds(opposite, b, a)
        turned = holds(relation, b, a)
        assert holds(relation, a, b) is (None if turned is None else not turned)


def gap(a: Box, b: Box) -> float:
    return math.hypot(max(0.0, a[0] - b[2], b[0] - a[2]), max(0.0, a[1] - b[3], b[1] - a[3]))


def middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def slow_step(hop: str, start: int, placed: list[Placed]) -> int:
    """Where a hop leads, the obvious way."""
    mine, others = placed[start], [i for i in range(len(placed)) if i != start]
    if hop == "twin":
        twins = [i for i in others if placed[i].item.color == mine.item.color]
        return twins[0] if len(twins) == 1 else -1
    relation = {"left": "left of", "right": "right of"}.get(hop, hop)
    if hop != "nearest":
        others = [i for i in others if holds(relation, placed[i], mine) is not False]
    if not others:
        return -1
    far = {i: math.dist(middle(placed[i].box), middle(mine.box)) for i in others}
    best = min(others, key=lambda i: far[i])
    for i in others:
        clear = (
            far[i] >= NEARER * far[best] and gap(placed[i].box, mine.box) >= gap(placed[best].box, mine.box) + NEARER_PX
        )
        if i != best and not clear:
            return -1
    if hop == "nearest":
        return best
    across, down = (abs(a - b) for a, b in zip(middle(placed[best].box), middle(mine.box), strict=True))
    along = across > down if hop in ("left", "right") else down > across
    return best if along and holds(relation, placed[best], mine) is True else -1


@settings(deadline=None, max_examples=200)
@given(st.lists(COLORED, min_size=2, max_size=9))
def test_hops_lead_where_the_obvious_search_says(placed: list[Placed]) -> None:
    taken = steps(placed)
    assert set(taken) == set(HOPS)
    for hop in HOPS:
        assert taken[hop] == [slow_step(hop, start, placed) for start in range(len(placed))], hop


def test_the_nearest_thing_is_so_by_a_margin_or_not_at_all() -> None:
    start, near = at(100, 100, 130, 130), at(140, 100, 170, 130)
    assert steps([start, near, at(20, 100, 50, 130)])["nearest"][0] == 1
    assert steps([start, near, at(59, 100, 89, 130)])["nearest"][0] == -1
    assert steps([start, near])["right"] == [1, -1] and steps([start, near])["left"] == [-1, 0]


def test_a_chain_never_comes_to_a_thing_twice() -> None:
    row = [at(0, 0, 30, 30, "red"), at(50, 0, 80, 30, "blue"), at(120, 0, 150, 30, "red")]
    assert chains(("right", "right"), steps(row)) == [(0, 1, 2)]
    assert chains(("right", "left"), steps(row)) == []
    assert chains(("twin", "left"), steps(row)) == [(0, 2, 1)]
    assert chains((), steps(row)) == [(0,), (1,), (2,)]


def test_a_thing_at_the_end_of_hops_is_referred_to_from_the_inside_out() -> None:
    assert refer("cup", ()) == "the cup"
    assert refer("red cup", ("left", "nearest")) == "the thing nearest to the nearest thing left of the red cup"


@pytest.mark.parametrize("relation", RELATIONS)
def test_margins_are_large_enough_to_see(relation: str) -> None:
    assert APART_PX >= 4 and LARGER >= 1.3 and NEARER >= 1.1 and NEARER_PX >= 3
    assert holds(relation, at(0, 0, 30, 30), at(1, 1, 31, 31, "blue")) in (None, False)
