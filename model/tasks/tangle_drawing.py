"""How a tangle looks: strokes, inks and grounds, some of each kept from training.

Every look has a tone: dark lines on a light ground or light lines on a dark one, so that no line drowns.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.tasks.curves import arc_lengths, at_lengths, directions
from model.tasks.layouts import Points
from model.tasks.suite import Split

# The test split's strokes, inks and grounds never appear in training.
TRAINING_STROKES = ("plain", "edged")
HELD_OUT_STROKES = ("dashed", "hollow")
TRAINING_INKS = ("vivid", "deep")
HELD_OUT_INKS = ("soft", "earthen")
TRAINING_GROUNDS = ("flat", "gradient", "checks")
HELD_OUT_GROUNDS = ("ruled", "dots")

WIDTHS_PX = (2.0, 4.0)  # of a line, thinnest and thickest

_SUPERSAMPLING = 3
_ROUGH_SHARE = 0.2  # of the images whose lines are not antialiased
_RIM_PX = 1.2  # of the rim of an edged or hollow line, on either side
_STRETCH = 10  # steps of a line that are filled at once
_DASH_PX, _DASH_GAP_PX = 9.0, 3.5

RGB = tuple[int, int, int]

# Saturation, and value on a light and on a dark ground: low and high.
_INKS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "vivid": ((0.85, 1.0), (0.6, 0.78), (0.9, 1.0)),
    "deep": ((0.6, 0.85), (0.38, 0.56), (0.78, 0.9)),
    "soft": ((0.45, 0.58), (0.56, 0.68), (0.86, 1.0)),
    "earthen": ((0.65, 0.82), (0.4, 0.52), (0.64, 0.76)),
}
_GREY = ((0.0, 0.0), (0.1, 0.4), (0.8, 1.0))
_GREY_SHARE = 0.4  # of the tangles in one style


@dataclass(frozen=True)
class Look:
    """The style of one image. `colors` holds one for each line, all the same where the tangle is in one style."""

    stroke: str
    ink: str
    ground: str
    dark: bool
    width_px: float
    smooth: bool
    colors: tuple[RGB, ...]


def choose_look(rng: np.random.Generator, split: Split, n: int, uniform: bool) -> Look:
    """A look for n lines from those of the split: `uniform` draws all in one colour, else no two colours are alike."""
    test = split == "test"
    stroke = _one_of(rng, HELD_OUT_STROKES if test else TRAINING_STROKES)
    ink = _one_of(rng, HELD_OUT_INKS if test else TRAINING_INKS)
    ground = _one_of(rng, HELD_OUT_GROUNDS if test else TRAINING_GROUNDS)
    dark = bool(rng.random() < 0.35)
    width = float(rng.uniform(*WIDTHS_PX))
    smooth = bool(rng.random() >= _ROUGH_SHARE)
    return Look(stroke, ink, ground, dark, width, smooth, _colors(rng, ink, dark, n, uniform))


def _one_of(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _colors(rng: np.random.Generator, ink: str, dark: bool, n: int, uniform: bool) -> tuple[RGB, ...]:
    """Hues evenly around the circle, in any order; or one colour, or grey, for all lines."""
    grey = uniform and rng.random() < _GREY_SHARE
    saturation, *values = _GREY if grey else _INKS[ink]
    low, high = values[dark]
    third = (high - low) / 3
    shades = (rng.uniform(low, low + third), rng.uniform(high - third, high))
    s, turn, first = rng.uniform(*saturation), rng.random(), int(rng.integers(2))
    # Neighbouring hues are a darker and a lighter one: ten hues alone are not enough in a muted ink.
    places = [0] * n if uniform else rng.permutation(n).tolist()
    hsv = [((turn + i / n) % 1, s, shades[(first + i) % 2]) for i in places]
    return tuple(_rgb(np.array(colorsys.hsv_to_rgb(*color)) * 255) for color in hsv)


def _rgb(levels: NDArray[np.float64]) -> RGB:
    r, g, b = (min(255, max(0, round(level))) for level in levels.tolist())
    return r, g, b


# ---- lines


def draw_lines(image: Image.Image, lines: Sequence[Points], look: Look) -> None:
    """Draw the lines in their order, later ones over earlier ones."""
    rim = _RIMS.get(look.stroke)
    bands = _dashes if look.stroke == "dashed" else _bands
    for color, line in zip(look.colors, lines, strict=True):
        if rim is not None:
            outer, color = rim(color, look.dark)
            _fill(image, bands(line, look.width_px + 2 * _RIM_PX), outer, look.smooth)
        _fill(image, bands(line, look.width_px), color, look.smooth)


def _edged(color: RGB, dark: bool) -> tuple[RGB, RGB]:
    """A rim near the ground's tone parts a line from those it runs over."""
    return ((20, 20, 20) if dark else (250, 250, 250)), color


def _hollow(color: RGB, dark: bool) -> tuple[RGB, RGB]:
    return color, ((30, 30, 30) if dark else (240, 240, 240))


_RIMS: dict[str, Callable[[RGB, bool], tuple[RGB, RGB]]] = {"edged": _edged, "hollow": _hollow}


def _fill(image: Image.Image, bands: Sequence[Points], color: RGB, smooth: bool) -> None:
    scale = _SUPERSAMPLING if smooth else 1
    every = np.concatenate(bands)
    left, top = np.floor(every.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(every.max(axis=0)).astype(int).tolist()
    mask = Image.new("L", ((right - left) * scale, (bottom - top) * scale))
    pen = ImageDraw.Draw(mask)
    for band in bands:
        # Pillow's polygons include the pixels of their vertices: half a pixel back makes both sides fair.
        pen.polygon(np.rint((band - (left, top)) * scale - 0.5).ravel().tolist(), fill=255)
    image.paste(color, (left, top), mask.reduce(scale) if smooth else mask)


def _bands(line: Points, width_px: float) -> list[Points]:
    """Outlines of the line's stretches, each too short to meet itself, each beginning where the last one ends."""
    left, right = _sides(line, width_px)
    cuts = range(0, len(line) - 1, _STRETCH)
    return [np.concatenate([left[i : i + _STRETCH + 1], right[i : i + _STRETCH + 1][::-1]]) for i in cuts]


def _dashes(line: Points, width_px: float) -> list[Points]:
    left, right = _sides(line, width_px)
    along = arc_lengths(line)
    begins = np.arange(0, along[-1] - _DASH_PX, _DASH_PX + _DASH_GAP_PX)
    where = begins[:, None] + np.linspace(0, _DASH_PX, 4)
    corners = (at_lengths(side, along, where.ravel()).reshape(len(begins), 4, 2) for side in (left, right))
    return list(np.concatenate([next(corners), next(corners)[:, ::-1]], axis=1))


def _sides(line: Points, width_px: float) -> tuple[Points, Points]:
    tangents = directions(line) * (width_px / 2)
    aside = np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)
    return line + aside, line - aside


# ---- grounds


def draw_ground(rng: np.random.Generator, size: tuple[int, int], look: Look) -> Image.Image:
    """An RGB canvas of width x height pixels, faint against every line."""
    level = rng.uniform(22, 52) if look.dark else rng.uniform(212, 246)
    base = level + rng.uniform(-6, 6, size=3)
    step = rng.uniform(8, 18) * (1 if look.dark else -1)
    canvas = Image.new("RGB", size, _rgb(base))
    weights = _GROUNDS[look.ground](rng, *size)
    if weights is not None:
        canvas.paste(_rgb(base + step), (0, 0), Image.fromarray(weights))
    return canvas


_Weights = NDArray[np.uint8]


def _flat(rng: np.random.Generator, width: int, height: int) -> None:
    return None


def _gradient(rng: np.random.Generator, width: int, height: int) -> _Weights:
    fx, fy, share = int(rng.integers(2)), int(rng.integers(2)), rng.random()
    across, down = np.linspace(fx, 1 - fx, width), np.linspace(fy, 1 - fy, height)
    return ((share * across + (1 - share) * down[:, None]) * 255).astype(np.uint8)


def _checks(rng: np.random.Generator, width: int, height: int) -> _Weights:
    period = rng.uniform(0.06, 0.25) * min(width, height)
    columns = (np.arange(width) + rng.uniform(0, period)) // period % 2 == 1
    rows = (np.arange(height) + rng.uniform(0, period)) // period % 2 == 1
    return (columns[None, :] ^ rows[:, None]).astype(np.uint8) * np.uint8(255)


def _ruled(rng: np.random.Generator, width: int, height: int) -> _Weights:
    period = int(rng.integers(9, 19))
    rows = (np.arange(height) + int(rng.integers(period))) % period == 0
    return np.broadcast_to(rows[:, None], (height, width)).astype(np.uint8) * np.uint8(255)


def _dots(rng: np.random.Generator, width: int, height: int) -> _Weights:
    period = int(rng.integers(7, 14))
    columns = (np.arange(width) + int(rng.integers(period))) % period < 2
    rows = (np.arange(height) + int(rng.integers(period))) % period < 2
    return (columns[None, :] & rows[:, None]).astype(np.uint8) * np.uint8(255)


_GROUNDS: dict[str, Callable[[np.random.Generator, int, int], _Weights | None]] = {
    "flat": _flat, "gradient": _gradient, "checks": _checks, "ruled": _ruled, "dots": _dots,
}  # fmt: skip
