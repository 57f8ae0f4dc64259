from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from model.tasks.looks import (
    COLOR_JITTER,
    GROUND_TINT,
    GROUNDS,
    HELD_OUT_LOOKS,
    PALETTES,
    TRAINING_LOOKS,
    Look,
    choose_look,
    ground,
    tint,
)  # fmt: skip
from model.tasks.scenes import COLORS
from model.tasks.suite import SPLITS

# What the names mean, from pure to muted; apart from any palette.
MEANING = {
    "red": ((220, 20, 40), (180, 40, 40)), "orange": ((255, 140, 0), (225, 120, 40)),
    "yellow": ((255, 225, 20), (215, 185, 45)), "green": ((0, 150, 50), (100, 180, 90)),
    "cyan": ((0, 205, 215), (90, 180, 190)), "blue": ((20, 60, 210), (80, 110, 220)),
    "purple": ((128, 20, 160), (150, 90, 200)), "pink": ((255, 120, 190), (235, 150, 190)),
}  # fmt: skip


def lab(color: tuple[int, ...] | np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB levels 0..255: Euclidean distance is roughly seen difference, 2.3 just noticeable."""
    s = np.asarray(color, dtype=np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = matrix @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(a: tuple[int, ...] | np.ndarray, b: tuple[int, ...] | np.ndarray) -> float:
    return float(np.linalg.norm(lab(a) - lab(b)))


@pytest.mark.parametrize("name", PALETTES)
def test_the_colours_of_a_palette_are_told_apart(name: str) -> None:
    assert tuple(PALETTES[name]) == COLORS
    for one, two in combinations(COLORS, 2):
        assert apart(PALETTES[name][one], PALETTES[name][two]) > 30, (one, two)


@pytest.mark.parametrize("name", PALETTES)
def test_a_colour_is_nearest_to_its_own_name_however_it_is_jittered(name: str) -> None:
    for color, signs in product(COLORS, product((-1, 1), repeat=3)):
        seen = np.clip(np.array(PALETTES[name][color]) + COLOR_JITTER * np.array(signs), 0, 255)
        distance = {word: min(apart(seen, meant) for meant in meanings) for word, meanings in MEANING.items()}
        assert min(distance, key=lambda word: distance[word]) == color, (seen, distance)


@pytest.mark.parametrize("name", PALETTES)
def test_every_colour_stands_out_from_every_ground(name: str) -> None:
    for low, high in GROUNDS[name]:
        for color, level in product(COLORS, range(low, high + 1, 2)):
            assert apart(PALETTES[name][color], (level, level, level)) > 32, (color, level)


def test_training_never_sees_the_looks_of_the_test_split() -> None:
    seen = {split: {choose_look(np.random.default_rng(seed), split) for seed in range(300)} for split in SPLITS}
    assert seen["train"] == seen["validation"] == set(TRAINING_LOOKS) and seen["test"] == set(HELD_OUT_LOOKS)
    assert not {look.palette for look in seen["train"]} & {look.palette for look in seen["test"]}
    assert not {look.texture for look in seen["train"]} & {look.texture for look in seen["test"]}


@pytest.mark.parametrize("look", [*TRAINING_LOOKS, *HELD_OUT_LOOKS], ids=lambda look: f"{look.palette}-{look.texture}")
def test_a_ground_is_muted_and_within_its_palettes_levels(look: Look) -> None:
    for seed in range(20):
        canvas = np.asarray(ground(np.random.default_rng(seed), look, 200, 150), dtype=np.int64)
        assert canvas.shape == (150, 200, 3)
        low = min(span[0] for span in GROUNDS[look.palette]) - GROUND_TINT - 1
        high = max(span[1] for span in GROUNDS[look.palette]) + GROUND_TINT + 1
        assert canvas.min() >= low and canvas.max() <= high
        assert np.ptp(canvas, axis=2).max() <= 2 * GROUND_TINT + 2
        assert (np.ptp(canvas[..., 0]) > 2) == (look.texture != "plain")
        share = (np.abs(canvas - canvas[0, 0]).sum(axis=2) > 8).mean()
        assert look.texture == "plain" or 0.02 < share < 0.98


def test_a_tint_strays_little_from_its_colour() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        look = choose_look(rng, SPLITS[seed % 3])
        for color in COLORS:
            strayed = np.array(tint(rng, look, color)) - PALETTES[look.palette][color]
            assert np.abs(strayed).max() <= COLOR_JITTER
