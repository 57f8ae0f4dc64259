from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.collages import Item
from model.tasks.counting_plans import LEAST_SIDE_PX, LEVELS, Plan, cells_of, plan, sides_of

KINDS = ("coarse", "attribute", "position")
LEVEL = st.sampled_from(tuple(LEVELS))


def made(seed: int, kind: str, number: int, level: str) -> Plan:
    return plan(np.random.default_rng(seed), kind, number, LEVELS[level], "train")


def is_meant(item: Item, planned: Plan, target: Item | None) -> bool:
    """Whether an item is what the words ask for; the cell is that of the targets."""
    words = planned.one.split(" ", 1)
    if planned.one.endswith(" thing"):
        return item.color == words[0]
    if item.noun == planned.one:
        return target is None or item.cell == target.cell
    return len(words) == 2 and item.noun == words[1] and words[0] in (item.color, item.size)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 20), LEVEL)
def test_exactly_the_first_items_are_what_is_asked_for(seed: int, kind: str, number: int, level: str) -> None:
    planned = made(seed, kind, number, level)
    assert planned.targets == number
    meant = [is_meant(item, planned, planned.items[0]) for item in planned.items]
    assert meant == [True] * number + [False] * (len(meant) - number)
    assert planned.labels[:number] == (planned.label,) * number
    assert planned.label not in planned.labels[number:]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), LEVEL)
def test_all_but_the_number_is_drawn_without_regard_to_it(seed: int, kind: str, level: str) -> None:
    none, many = made(seed, kind, 0, level), made(seed, kind, 5, level)
    assert (none.one, none.many, none.place) == (many.one, many.many, many.place)
    assert len(none.items) + 5 == len(many.items)
    assert none.items, "an image is never empty"


def test_every_attribute_is_asked_for_as_often() -> None:
    forms: Counter[str] = Counter()
    for seed in range(600):
        first = made(seed, "attribute", 2, "medium").one
        forms["any" if first.endswith(" thing") else "size" if first.split()[0] in ("small", "large") else "color"] += 1
    assert min(forms.values()) > 160, forms


def test_both_sizes_are_there_where_sizes_are_asked_for() -> None:
    seen = 0
    for seed in range(200):
        planned = made(seed, "attribute", 0, "easy")
        if planned.one.split()[0] in ("small", "large"):
            assert {item.size for item in planned.items} == {"small", "large"}
            sides = sides_of(np.random.default_rng(seed), planned.items, LEVELS["easy"], 200)
            small = [side for side, item in zip(sides, planned.items, strict=True) if item.size == "small"]
            large = [side for side, item in zip(sides, planned.items, strict=True) if item.size == "large"]
            assert min(large) > 1.5 * max(small)
            seen += 1
    assert seen > 30


@pytest.mark.parametrize("level", LEVELS)
def test_sides_are_within_the_level_and_never_below_the_least(level: str) -> None:
    rng = np.random.default_rng(0)
    for shorter in (170, 250, 330):
        low, high = LEVELS[level].side
        sides = sides_of(rng, (Item("cup", "red"),) * 50, LEVELS[level], shorter)
        assert min(sides) >= max(LEAST_SIDE_PX, low * shorter) and max(sides) <= max(LEAST_SIDE_PX, high * shorter)


def test_cells_are_the_halves_and_quarters_that_their_names_say() -> None:
    assert cells_of(1, 100, 60) == [(0, 0, 100, 60)]
    assert cells_of(2, 100, 60) == [(0, 0, 50, 60), (50, 0, 100, 60)]
    assert cells_of(-2, 100, 60) == [(0, 0, 100, 30), (0, 30, 100, 60)]
    assert cells_of(4, 100, 60) == [(0, 0, 50, 30), (50, 0, 100, 30), (0, 30, 50, 60), (50, 30, 100, 60)]


def test_every_part_of_the_image_is_asked_for() -> None:
    places = Counter(made(seed, "position", 1, "easy").place for seed in range(400))
    assert len(places) == 8 and min(places.values()) > 15
