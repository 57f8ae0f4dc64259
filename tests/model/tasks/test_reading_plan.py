from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.lettering import fonts
from model.tasks.prices import cents_of
from model.tasks.products import COLORS, OWN_KINDS, kinds
from model.tasks.reading_plan import LEVELS, Plan, plan
from model.tasks.suite import SPLITS, Split, rng_of

SEEDS = 2000
POINTS = 0.02


@cache
def plans(level: str) -> tuple[Plan, ...]:
    return tuple(plan(rng_of("reading", level, "train", seed), seed, LEVELS[level], "train") for seed in range(SEEDS))


def strays(values: Iterable[Hashable], choices: int) -> float:
    """How far the most and the least common of equal choices lie from their share."""
    counts = Counter(values)
    shares = [*(count / counts.total() for count in counts.values()), *([0.0] if len(counts) < choices else [])]
    return max(abs(share - 1 / choices) for share in shares)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_asked_for_stands_at_every_place_equally_often(level: str) -> None:
    for kind in LEVELS[level].kinds:
        asked = [p for p in plans(level) if p.kind == kind]
        for n in {len(p.items) for p in asked}:
            assert strays((p.targets[0] for p in asked if len(p.items) == n), n) < POINTS, (kind, n)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_asked_for_has_every_colour_and_kind_equally_often(level: str) -> None:
    for kind in LEVELS[level].kinds:
        asked = [p.items[p.targets[0]] for p in plans(level) if p.kind == kind]
        stock = kinds("train") if LEVELS[level].goods else OWN_KINDS
        assert strays((item.color for item in asked), len(COLORS)) < POINTS
        assert strays((item.kind for item in asked), len(stock)) < POINTS


@pytest.mark.parametrize("level", LEVELS)
def test_each_digit_of_a_price_is_as_common_as_any_other(level: str) -> None:
    for kind in {"price", "sum"} & set(LEVELS[level].kinds):
        answers = [p.answer.replace(".", "") for p in plans(level) if p.kind == kind]
        assert strays(map(len, answers), len(LEVELS[level].digits)) < POINTS
        for length in LEVELS[level].digits:
            for i in range(length):
                digits = [answer[i] for answer in answers if len(answer) == length]
                assert strays(digits, 10 if i else 9) < POINTS, (kind, length, i)


@pytest.mark.parametrize("level", LEVELS)
def test_no_answer_is_a_safe_guess(level: str) -> None:
    for kind in LEVELS[level].kinds:
        answers = Counter(p.answer for p in plans(level) if p.kind == kind)
        assert answers.most_common(1)[0][1] / answers.total() < 0.04, (kind, answers.most_common(3))


def test_sharing_colour_and_kind_with_the_others_does_not_give_the_answer_away() -> None:
    """The product whose name has most in common with the others' is the one asked for no more often than chance."""
    asked = [p for p in plans("hard") if p.kind in ("cheapest", "dearest", "which")]
    hits, chance = [], []
    for p in asked:
        shared = [sum((a.kind == b.kind) + (a.color == b.color) for b in p.items) for a in p.items]
        top = [i for i, value in enumerate(shared) if value == max(shared)]
        hits.append((p.targets[0] in top) / len(top))
        chance.append(1 / len(p.items))
    assert abs(np.mean(hits) - np.mean(chance)) < 0.03


@settings(deadline=None)
@given(seed=st.integers(0, 10**12), level=st.sampled_from(tuple(LEVELS)), split=st.sampled_from(SPLITS))
def test_a_plan_asks_about_what_it_holds(seed: int, level: str, split: Split) -> None:
    of_level = LEVELS[level]
    p = plan(rng_of("reading", level, split, seed), seed, of_level, split)
    assert (p.rows, p.places, len(p.items)) in of_level.stocks and p.kind in of_level.kinds
    assert len({item.name for item in p.items}) == len(p.items)
    assert {item.kind for item in p.items} <= set(kinds(split))
    assert len(p.targets) == len(set(p.targets)) == (2 if p.kind == "sum" else 1)
    cents = [cents_of(price) or 0 for price in p.prices]
    assert p.kind == "sum" or len(set(cents)) == len(cents)
    assert min(cents) >= 100 and max(cents) < 10 ** max(of_level.digits)
    for item, price in zip(p.items, p.prices, strict=True):
        assert item.price in (None, p.sign.format(price)) and item.lines
        assert (item.label is not None) or p.kind != "label"
    if p.kind in ("cheapest", "dearest"):
        assert cents[p.targets[0]] == (min if p.kind == "cheapest" else max)(cents)


def test_hard_shelves_hold_prices_and_names_that_are_easily_mistaken() -> None:
    def alike(level: str) -> tuple[float, float]:
        """How much more often than by chance others have the first digit and the kind of the one asked for."""
        starts, names = [], []
        for p in plans(level):
            if p.kind in ("price", "which"):
                t = p.targets[0]
                others = [i for i in range(len(p.items)) if i != t]
                starts.append(np.mean([p.prices[i][0] == p.prices[t][0] for i in others]))
                names.append(np.mean([p.items[i].kind == p.items[t].kind for i in others]))
        stock = kinds("train") if LEVELS[level].goods else OWN_KINDS
        return float(np.mean(starts)) * 9, float(np.mean(names)) * len(stock)

    easy, hard = alike("easy"), alike("hard")
    assert hard[0] > 2 * easy[0] and hard[1] > 2 * easy[1], (easy, hard)


def test_levels_grow_harder() -> None:
    easy, medium, hard = LEVELS.values()
    assert set(easy.kinds) < set(medium.kinds) < set(hard.kinds)
    for a, b in ((easy, medium), (medium, hard)):
        assert max(n for *_, n in a.stocks) < max(n for *_, n in b.stocks)
        assert a.cap_px > b.cap_px and a.askew < b.askew and a.near < b.near and a.alike < b.alike
    assert easy.cap_px[0] >= 12 and all(fonts(split) for split in SPLITS)
