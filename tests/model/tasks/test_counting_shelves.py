from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks import products
from model.tasks.counting_shelves import LEVELS, draw
from model.tasks.suite import SPLITS, Split


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(tuple(LEVELS)), st.sampled_from(SPLITS), st.floats(0, 1))
def test_as_many_products_are_asked_for_as_were_wished(seed: int, level: str, split: Split, share: float) -> None:
    number = round(share * LEVELS[level].most)
    counted = draw(np.random.default_rng(seed), number, LEVELS[level], split)
    assert sum(name == counted.label for name, _ in counted.scanned) == number
    color, _, kind = counted.one.partition(" ")
    by_color = color in products.COLORS
    meant = [
        each["box"] for each in counted.things
        if each["noun"] == (kind if by_color else counted.one) and (not by_color or each["color"] == color)
        and (counted.place == "on the shelf" or counted.place == f"on the {each['shelf']}")
    ]  # fmt: skip
    assert sorted(meant) == sorted(list(box) for name, box in counted.scanned if name == counted.label)


@pytest.mark.parametrize("level", LEVELS)
def test_a_scan_comes_to_near_misses_and_to_no_other_kind(level: str) -> None:
    missed = 0
    for seed in range(40):
        counted = draw(np.random.default_rng(seed), 3, LEVELS[level], "train")
        kind = counted.one.split(" ", 1)[1] if counted.one.split()[0] in products.COLORS else counted.one
        assert all(kind in name for name, _ in counted.scanned)
        assert len(counted.things) > len(counted.scanned), "strangers stand on every shelf"
        missed += len(counted.scanned) - 3
    assert missed > 20


def test_words_are_in_the_plural_where_many_are_meant() -> None:
    for seed in range(30):
        counted = draw(np.random.default_rng(seed), 2, LEVELS["easy"], "train")
        kind = counted.one.split(" ", 1)[1] if counted.one.split()[0] in products.COLORS else counted.one
        assert counted.many == counted.one.removesuffix(kind) + products.plural(kind)


def test_all_rows_of_a_shelf_are_asked_for() -> None:
    places = {draw(np.random.default_rng(seed), 1, LEVELS["medium"], "test").place for seed in range(80)}
    assert places == {"on the shelf", "on the top shelf", "on the middle shelf", "on the bottom shelf"}
