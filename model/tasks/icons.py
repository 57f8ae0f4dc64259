"""Icons: small things with a name, that stand at a place and can be asked for.

A family is its names and how one of them is painted; `FAMILIES` is the only place that knows what icons there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.tasks.matching import Box
from model.tasks.scenes import COLORS, SHAPES, jitter, make_figure, stamp

_DARK, _LIGHT = (24, 24, 24), (244, 244, 244)
_SUPERSAMPLING = 3
_FILL = (0.86, 1.0)  # an icon's longer side, as a share of the side it may have

_Painter = Callable[[np.random.Generator, Image.Image, str, float, float, float], Box]


@dataclass(frozen=True)
class Family:
    """Icons of one sort. `paint(rng, image, name, x, y, side)` centres one on (x, y) and returns its tight box.

    The box is centred on (x, y) and at most `side` pixels long in either direction.
    """

    names: tuple[str, ...]
    paint: _Painter


def _paint_shape(rng: np.random.Generator, image: Image.Image, name: str, x: float, y: float, side: float) -> Box:
    color, shape = name.split(" ")
    figure = make_figure(rng, shape, color, "small", round(side))
    scale = side * rng.uniform(*_FILL) / max(figure.extent)
    width, height = figure.extent[0] * scale, figure.extent[1] * scale
    figure = replace(figure, contours=tuple(contour * scale for contour in figure.contours), extent=(width, height))
    left, top = x - width / 2, y - height / 2
    stamp(image, figure, left, top, jitter(rng, color), (_DARK, _LIGHT)[int(rng.integers(2))])
    return left, top, left + width, top + height


def _paint_badge(rng: np.random.Generator, image: Image.Image, name: str, x: float, y: float, side: float) -> Box:
    """A disc with a letter or a number on it."""
    radius = side / 2 * rng.uniform(*_FILL)
    disc, rim, glyph = _badge(name.split(" ")[1], radius, x % 1, y % 1)
    paper, ink = (_LIGHT, _DARK) if rng.random() < 0.5 else (_DARK, _LIGHT)
    corner = (math.floor(x) - disc.width // 2, math.floor(y) - disc.height // 2)
    for color, mask in ((ink, disc), (paper, rim), (ink, glyph)):
        image.paste(color, corner, mask)
    return x - radius, y - radius, x + radius, y + radius


def _badge(text: str, radius: float, dx: float, dy: float) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Masks of a disc around (dx, dy) from the tile's middle pixel, the disc inside its rim, and the text on it."""
    half = math.ceil(radius) + 1
    tile = (2 * half * _SUPERSAMPLING, 2 * half * _SUPERSAMPLING)
    x, y = ((half + d) * _SUPERSAMPLING for d in (dx, dy))
    masks = []
    for r in (radius * _SUPERSAMPLING, (radius - 1.2) * _SUPERSAMPLING):
        mask = Image.new("L", tile)
        ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r - 1, y + r - 1), fill=255)
        masks.append(mask.reduce(_SUPERSAMPLING))
    glyph = Image.new("L", (2 * half, 2 * half))
    pen = ImageDraw.Draw(glyph)
    pen.text(
        (half + dx, half + dy),
        text,
        fill=255,
        font=_font(round(radius * (1.35 if len(text) == 1 else 1.1))),
        anchor="mm",
    )
    return masks[0], masks[1], glyph


@lru_cache
def _font(px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(px)


# A line would show through a ring. I, O and Q are too like 1, 0 and each other in a few pixels.
_SHAPES = tuple(f"{color} {shape}" for shape in SHAPES if shape != "ring" for color in COLORS)
_LETTERS = tuple(f"letter {letter}" for letter in "ABCDEFGHJKLMNPRSTUVWXYZ")
_NUMBERS = tuple(f"number {number}" for number in range(1, 21))

FAMILIES: dict[str, Family] = {
    "shapes": Family(_SHAPES, _paint_shape),
    "letters": Family(_LETTERS, _paint_badge),
    "numbers": Family(_NUMBERS, _paint_badge),
}


def choose(rng: np.random.Generator, n: int) -> tuple[list[tuple[Family, str]], list[tuple[Family, str]]]:
    """Icons for n starts and n ends, each side of one family, no name twice."""
    families = list(FAMILIES.values())
    first, second = (families[int(i)] for i in rng.integers(len(families), size=2))
    starts = [first.names[i] for i in rng.permutation(len(first.names))[:n]]
    free = [name for name in second.names if name not in starts]
    ends = [free[i] for i in rng.permutation(len(free))[:n]]
    return [(first, name) for name in starts], [(second, name) for name in ends]
