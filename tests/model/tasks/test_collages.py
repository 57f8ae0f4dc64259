from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks import collages
from model.tasks.collages import Item, Placed, arrange, canvas, choose_nouns, nouns, paint, plural
from model.tasks.layouts import HELD_OUT_LAYOUTS, TRAINING_LAYOUTS, place
from model.tasks.looks import choose_look, ground
from model.tasks.matching import Box
from model.tasks.pictograms import HELD_OUT_KINDS
from model.tasks.scenes import COLORS, SHAPES
from model.tasks.suite import SPLITS, Split

SEEDS = st.integers(0, 10**9)
HALVES: list[Box] = [(0.0, 0.0, 150.0, 200.0), (150.0, 0.0, 300.0, 200.0)]


def collage(seed: int, count: int, split: Split, side: float = 28.0, cells: list[Box] | None = None) -> list[Placed]:
    rng = np.random.default_rng(seed)
    wanted = [
        Item(noun, COLORS[int(rng.integers(8))], cell=i % len(cells or "1"))
        for i, noun in enumerate(choose_nouns(rng, split, count))
    ]
    return arrange(rng, wanted, [side * rng.uniform(0.8, 1.2) for _ in wanted], 300, 200, split, cells)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 30), st.sampled_from(SPLITS))
def test_things_lie_inside_and_apart(seed: int, count: int, split: Split) -> None:
    placed = collage(seed, count, split)
    assert len(placed) == count
    for i, each in enumerate(placed):
        x1, y1, x2, y2 = each.box
        assert x1 >= 0 and y1 >= 0 and x2 <= 300 and y2 <= 200
        assert each.side == pytest.approx(max(x2 - x1, y2 - y1))
        for other in placed[:i]:
            a, b = each.box, other.box
            assert a[0] >= b[2] + 1 or b[0] >= a[2] + 1 or a[1] >= b[3] + 1 or b[1] >= a[3] + 1


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 24), st.sampled_from(SPLITS))
def test_things_keep_clear_of_the_borders_of_their_cells(seed: int, count: int, split: Split) -> None:
    for each in collage(seed, count, split, cells=HALVES):
        left, top, right, bottom = HALVES[each.item.cell]
        assert left + 5 <= each.box[0] and each.box[2] <= right - 5
        assert top + 5 <= each.box[1] and each.box[3] <= bottom - 5


def test_things_shrink_together_when_they_do_not_fit() -> None:
    placed = collage(3, 20, "train", side=80.0)
    assert len(placed) == 20 and max(each.side for each in placed) < 70


def test_neighbours_are_not_those_that_were_wanted_one_after_the_other() -> None:
    ordered = 0
    for seed in range(60):
        middles = [each.box[0] for each in collage(seed, 4, "train")]
        ordered += middles == sorted(middles)
    assert ordered < 12, "a row takes its things in the order given, and they must be shuffled"


@pytest.mark.parametrize("split", SPLITS)
def test_a_box_is_the_tight_extent_of_what_is_painted(split: Split) -> None:
    for seed in range(8):
        look = choose_look(np.random.default_rng(seed), split)
        placed = collage(seed, 6, split, side=50.0)
        bare = np.asarray(ground(np.random.default_rng(9), look, 300, 200), dtype=np.int64)
        painted = np.asarray(paint(np.random.default_rng(9), placed, look, 300, 200), dtype=np.int64)
        inked = np.abs(painted - bare).sum(axis=2) > 6
        for each in placed:
            x1, y1, x2, y2 = each.box
            rows, columns = np.nonzero(inked[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))])
            assert rows.min() <= 1.5 and columns.min() <= 1.5
            assert int(y1) + rows.max() + 1 >= y2 - 1.5 and int(x1) + columns.max() + 1 >= x2 - 1.5
            inked[max(int(y1) - 1, 0) : int(np.ceil(y2)) + 1, max(int(x1) - 1, 0) : int(np.ceil(x2)) + 1] = False
        assert not inked.any()


def test_nouns_are_all_different_some_of_them_shapes_and_none_kept_from_training() -> None:
    drawn = [choose_nouns(np.random.default_rng(seed), "train", 8) for seed in range(100)]
    assert all(len(set(each)) == 8 for each in drawn)
    words = [noun for each in drawn for noun in each]
    assert 0.05 < sum(noun in SHAPES for noun in words) / len(words) < 0.15
    assert not set(words) & set(HELD_OUT_KINDS) and set(HELD_OUT_KINDS) <= set(nouns("test"))


def test_plurals_of_shapes_and_pictograms() -> None:
    assert [plural(noun) for noun in ("cross", "ring", "knife", "box")] == ["crosses", "rings", "knives", "boxes"]


@settings(deadline=None)
@given(SEEDS, st.floats(0.5, 1.0))
def test_a_canvas_keeps_to_its_sides_and_aspect(seed: int, aspect: float) -> None:
    width, height = canvas(np.random.default_rng(seed), 200, 300, aspect)
    assert 200 <= max(width, height) <= 300
    assert min(width, height) >= aspect * max(width, height) - 1


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_test_split_is_laid_out_as_training_never_was(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()

    def recorded(*arguments: Any) -> Any:
        asked.update(arguments[-1])
        return place(*arguments)

    monkeypatch.setattr(collages, "place", recorded)
    for seed in range(5):
        collage(seed, 5, split)
    assert asked == set(HELD_OUT_LAYOUTS if split == "test" else TRAINING_LAYOUTS)
