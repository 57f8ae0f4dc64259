from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.maze import SUITE
from model.tasks.maze_drawing import (
    _MARK_COLORS,
    HELD_OUT_GROUNDS,
    HELD_OUT_MARKS,
    HELD_OUT_WALLS,
    TRAINING_GROUNDS,
    TRAINING_MARKS,
    TRAINING_WALLS,
    Look,
    Placement,
    choose_look,
    draw,
    place,
)
from model.tasks.maze_grids import Grid, rectangular
from model.tasks.suite import SPLITS, Case, Split
from tests.model.tasks.mazes import grids

BLACK_ON_WHITE = Look("plain", "plain", ((0, 0, 0),) * 2, ((255, 255, 255),) * 2, (("circle", "cyan"),) * 2)


def flooded(free: np.ndarray, x: float, y: float) -> np.ndarray:
    """The pixels joined to the one at (x, y), side by side."""
    reached = np.zeros_like(free)
    reached[int(y), int(x)] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            return reached
        reached = grown


@pytest.mark.parametrize(("level", "seeds"), [("easy", 36), ("medium", 18), ("hard", 6), ("nightmare", 4)])
def test_flooding_the_pixels_reaches_just_the_cells_that_the_truth_says(level: str, seeds: int) -> None:
    for seed in range(seeds):
        truth = SUITE.case(seed, level, "validation").truth
        width, height = truth["size"]
        placement = Placement((width, height), np.eye(2), np.zeros(2), truth["pitch"], truth["thickness"])
        ends = np.array([truth["centres"][truth["start"]], truth["centres"][truth["goal"]]])
        image = draw(np.random.default_rng(0), placement, BLACK_ON_WHITE, np.array(truth["walls"]), ends)
        free = np.asarray(image.convert("L")) > 110
        reached = flooded(free, *truth["centres"][truth["start"]])
        assert truth["reachable"] == [i for i, (x, y) in enumerate(truth["centres"]) if reached[int(y), int(x)]], seed
        assert reached[[0, -1]].sum() + reached[:, [0, -1]].sum() == 0, "the border has no hole"


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), grid=grids(), low=st.integers(330, 450), more=st.integers(0, 120))
def test_a_maze_lies_inside_its_image_and_its_corridors_are_wide_enough(
    seed: int, grid: Grid, low: int, more: int
) -> None:
    placement = place(np.random.default_rng(seed), grid, (low, low + more), 10.0)
    assert all(low <= side <= low + more for side in placement.size)
    corners = placement.pixels(grid.pieces.reshape(-1, 2))
    assert (corners > placement.thickness / 2).all()
    assert (corners < np.array(placement.size) - placement.thickness / 2).all()
    assert placement.pitch - placement.thickness >= 10 and placement.thickness >= 2
    a, b = np.array(grid.pairs).T
    apart = np.hypot(*(placement.pixels(grid.centres[a]) - placement.pixels(grid.centres[b])).T)
    assert apart.min() > 0.97 * placement.pitch


def test_the_thickest_walls_stay_on_the_image() -> None:
    grid = rectangular(3, 3)  # the widest corridors, so the thickest walls
    for seed in range(200):
        placement = place(np.random.default_rng(seed), grid, (168, 210), 14.0)
        corners = placement.pixels(grid.pieces.reshape(-1, 2))
        assert corners.min() > placement.thickness / 2
        assert (np.array(placement.size) - corners).min() > placement.thickness / 2


def test_a_grid_too_large_for_its_image_is_refused() -> None:
    with pytest.raises(AssertionError):
        place(np.random.default_rng(0), rectangular(16, 16), (168, 168), 14.0)


def brightness(case: Case) -> tuple[float, float]:
    """The mean level along the walls and at the centres of unmarked cells."""
    levels = np.asarray(case.image.convert("L"), dtype=float)
    walls = np.array(case.truth["walls"]).reshape(-1, 2, 2).mean(axis=1)
    marked = (case.truth["start"], case.truth["goal"])
    centres = np.array([centre for cell, centre in enumerate(case.truth["centres"]) if cell not in marked])
    on, off = (levels[points[:, 1].astype(int), points[:, 0].astype(int)] for points in (walls, centres))
    return float(on.mean()), float(off.mean())


@pytest.mark.parametrize("split", SPLITS)
def test_walls_stand_out_from_the_ground_in_every_look(split: Split) -> None:
    for seed in range(100):
        walls, ground = brightness(SUITE.case(seed, "easy", split))
        assert abs(walls - ground) > 50, (seed, walls, ground)


def test_the_marks_lie_where_the_question_says_in_the_colours_it_names() -> None:
    for seed in range(60):
        case = SUITE.case(seed, "easy", "train")
        pixels = np.asarray(case.image, dtype=int)
        words = case.question.lower().replace("?", "").replace(".", "").split()
        named = [word for word in words if word in _MARK_COLORS]
        seen = []
        for cell in (case.truth["start"], case.truth["goal"]):
            x, y = case.truth["centres"][cell]
            seen.append(min(_MARK_COLORS, key=lambda n: abs(pixels[int(y), int(x)] - _MARK_COLORS[n]).sum()))
        # Some questions name the goal first.
        assert sorted(seen) == sorted(named) and len(set(seen)) == 2, (seed, case.question, seen)


def test_looks_of_the_test_split_are_its_own_and_all_looks_occur() -> None:
    for held_out, walls, grounds, marks in (
        (False, TRAINING_WALLS, TRAINING_GROUNDS, TRAINING_MARKS),
        (True, HELD_OUT_WALLS, HELD_OUT_GROUNDS, HELD_OUT_MARKS),
    ):
        looks = [choose_look(np.random.default_rng(seed), held_out=held_out) for seed in range(200)]
        assert {look.walls for look in looks} == set(walls)
        assert {look.ground for look in looks} == set(grounds)
        assert {shape for look in looks for shape, _ in look.marks} == set(marks)
    assert not set(TRAINING_WALLS) & set(HELD_OUT_WALLS)
    assert not set(TRAINING_GROUNDS) & set(HELD_OUT_GROUNDS)
    assert not set(TRAINING_MARKS) & set(HELD_OUT_MARKS)
