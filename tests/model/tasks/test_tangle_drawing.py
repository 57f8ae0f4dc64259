from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.tasks import tangle_drawing
from model.tasks.curves import distances, resampled
from model.tasks.suite import SPLITS, Split
from model.tasks.tangle_drawing import (
    HELD_OUT_GROUNDS,
    HELD_OUT_INKS,
    HELD_OUT_STROKES,
    TRAINING_GROUNDS,
    TRAINING_INKS,
    TRAINING_STROKES,
    WIDTHS_PX,
    Look,
    choose_look,
    draw_ground,
    draw_lines,
)
from model.tasks.tangles import CLEARANCE_PX

LINE = resampled(np.array([[20.0, 30.0], [60.0, 34.0], [120.0, 90.0]]), 3.0)
STROKES = (*TRAINING_STROKES, *HELD_OUT_STROKES)


def looks(split: Split, uniform: bool = False, n: int = 4) -> list[Look]:
    return [choose_look(np.random.default_rng(seed), split, n, uniform) for seed in range(80)]


def test_a_split_draws_all_of_its_own_looks_and_no_other() -> None:
    for split in SPLITS:
        held_out = split == "test"
        drawn = looks(split)
        assert {look.stroke for look in drawn} == set(HELD_OUT_STROKES if held_out else TRAINING_STROKES)
        assert {look.ink for look in drawn} == set(HELD_OUT_INKS if held_out else TRAINING_INKS)
        assert {look.ground for look in drawn} == set(HELD_OUT_GROUNDS if held_out else TRAINING_GROUNDS)


def test_what_is_held_out_is_never_trained_on() -> None:
    assert not set(TRAINING_STROKES) & set(HELD_OUT_STROKES)
    assert not set(TRAINING_INKS) & set(HELD_OUT_INKS)
    assert not set(TRAINING_GROUNDS) & set(HELD_OUT_GROUNDS)
    assert set(tangle_drawing._GROUNDS) == {*TRAINING_GROUNDS, *HELD_OUT_GROUNDS}
    assert set(tangle_drawing._INKS) == {*TRAINING_INKS, *HELD_OUT_INKS}


def test_one_style_is_one_colour_and_otherwise_none_are_alike() -> None:
    assert all(len(set(look.colors)) == 1 for look in looks("train", uniform=True))
    for n, least in ((4, 45), (10, 20)):
        for look in looks("train", n=n) + looks("test", n=n):
            colors = np.array(look.colors, dtype=float)
            assert (np.abs(colors[:, None] - colors).max(axis=2) + 1000 * np.eye(n)).min() > least


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("uniform", [True, False])
def test_every_line_stands_out_from_its_ground(split: Split, uniform: bool) -> None:
    for seed, look in enumerate(looks(split, uniform)):
        ground = np.asarray(draw_ground(np.random.default_rng(seed), (60, 60), look)).reshape(-1, 3).astype(float)
        assert all(np.abs(ground - color).max(axis=1).min() > 55 for color in look.colors)


def test_the_ground_between_two_lines_is_never_thinner_than_a_line() -> None:
    assert 2 * WIDTHS_PX[1] <= CLEARANCE_PX


@pytest.mark.parametrize("stroke", STROKES)
@pytest.mark.parametrize("smooth", [True, False])
def test_a_line_is_drawn_where_its_points_are_and_nowhere_else(stroke: str, smooth: bool) -> None:
    image = Image.new("RGB", (140, 110), (128, 128, 128))
    draw_lines(image, [LINE], Look(stroke, "vivid", "flat", True, 3.0, smooth, ((255, 0, 0),)))
    changed = (np.asarray(image) != 128).any(axis=2)
    middles = np.stack(np.meshgrid(np.arange(140) + 0.5, np.arange(110) + 0.5), axis=2).reshape(-1, 2)
    off = distances(middles, LINE).reshape(110, 140)
    assert off[changed].max() < 1.5 + 1.2 + 1.5  # half the line, its rim, a pixel's own reach
    covered = changed[off < 0.7].mean()
    assert 0.5 < covered < 0.95 if stroke == "dashed" else covered == 1


def test_a_later_line_runs_over_an_earlier_one() -> None:
    image = Image.new("RGB", (100, 100), (128, 128, 128))
    level, upright = (resampled(np.array(ends, float), 3.0) for ends in ([[10, 50], [90, 50]], [[50, 10], [50, 90]]))
    draw_lines(image, [level, upright], Look("plain", "vivid", "flat", True, 4.0, True, ((255, 0, 0), (0, 0, 255))))
    assert image.getpixel((50, 50)) == (0, 0, 255) and image.getpixel((30, 50)) == (255, 0, 0)


def test_a_loop_has_no_holes_where_it_crosses_itself() -> None:
    turn = np.linspace(0, 2 * np.pi, 120)
    eight = resampled(np.stack([100 + 80 * np.sin(turn), 60 + 40 * np.sin(2 * turn)], axis=1), 3.0)
    image = Image.new("RGB", (200, 120), (128, 128, 128))
    draw_lines(image, [eight], Look("plain", "vivid", "flat", True, 4.0, True, ((255, 0, 0),)))
    assert image.getpixel((100, 60)) == (255, 0, 0)


@pytest.mark.parametrize("ground", [*TRAINING_GROUNDS, *HELD_OUT_GROUNDS])
def test_a_ground_is_what_its_name_says(ground: str) -> None:
    look = Look("plain", "vivid", ground, False, 3.0, True, ((255, 0, 0),))
    pixels = np.asarray(draw_ground(np.random.default_rng(1), (120, 90), look)).astype(int)
    assert pixels.shape == (90, 120, 3)
    tones = len(np.unique(pixels.reshape(-1, 3), axis=0))
    assert tones == {"flat": 1, "checks": 2, "ruled": 2, "dots": 2}.get(ground, tones)
    if ground == "gradient":
        assert tones > 5
    if ground == "ruled":
        assert (pixels == pixels[:, :1]).all()
