"""How collages look: palettes of named colours, and textured grounds; some of each kept from training.

Every palette names the same eight colours (`scenes.COLORS`). In each of them a colour is nearer to its own name than to
any other, and stands out from every ground of that palette. The test split's palettes and textures never appear in
training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from model.tasks.scenes import bands, gradient
from model.tasks.suite import Split

Color = tuple[int, int, int]  # red, green, blue

PALETTES: dict[str, dict[str, Color]] = {
    "bright": {
        "red": (214, 34, 38), "orange": (246, 138, 24), "yellow": (246, 218, 44), "green": (38, 156, 58),
        "cyan": (52, 206, 214), "blue": (36, 72, 214), "purple": (136, 40, 160), "pink": (246, 132, 190),
    },
    "deep": {
        "red": (172, 20, 30), "orange": (214, 104, 10), "yellow": (212, 178, 16), "green": (18, 112, 44),
        "cyan": (16, 158, 168), "blue": (20, 60, 170), "purple": (120, 22, 124), "pink": (224, 92, 158),
    },
    "soft": {
        "red": (236, 78, 78), "orange": (250, 146, 54), "yellow": (250, 232, 120), "green": (104, 194, 104),
        "cyan": (128, 226, 230), "blue": (92, 126, 240), "purple": (178, 96, 204), "pink": (250, 170, 212),
    },
    "poster": {
        "red": (228, 26, 46), "orange": (255, 122, 0), "yellow": (255, 226, 0), "green": (0, 160, 76),
        "cyan": (0, 192, 222), "blue": (0, 78, 200), "purple": (112, 28, 152), "pink": (255, 108, 180),
    },
    "dusk": {
        "red": (186, 44, 52), "orange": (218, 126, 46), "yellow": (226, 196, 64), "green": (66, 134, 66),
        "cyan": (52, 184, 194), "blue": (52, 78, 176), "purple": (136, 52, 138), "pink": (226, 130, 172),
    },
}  # fmt: skip
# Grey levels between which a palette's grounds lie, both their tones.
GROUNDS: dict[str, tuple[tuple[int, int], ...]] = {
    "bright": ((40, 228),), "deep": ((150, 240),), "soft": ((24, 104),),
    "poster": ((14, 60), (226, 250)), "dusk": ((30, 90), (180, 226)),
}  # fmt: skip
GROUND_TINT = 6  # levels by which a ground's channels stray from grey
COLOR_JITTER = 8  # levels by which a thing's channels stray from its palette's colour

TRAINING_PALETTES = ("bright", "deep", "soft")
HELD_OUT_PALETTES = ("poster", "dusk")
TRAINING_TEXTURES = ("plain", "gradient", "blotches", "stripes", "checks")
HELD_OUT_TEXTURES = ("dots", "hatch", "ripples", "mesh")


@dataclass(frozen=True)
class Look:
    """A palette and a texture of the ground, by name."""

    palette: str
    texture: str


TRAINING_LOOKS = tuple(Look(*pair) for pair in product(TRAINING_PALETTES, TRAINING_TEXTURES))
HELD_OUT_LOOKS = tuple(Look(*pair) for pair in product(HELD_OUT_PALETTES, HELD_OUT_TEXTURES))


def choose_look(rng: np.random.Generator, split: Split) -> Look:
    """A look of the split; test's are its own."""
    looks = HELD_OUT_LOOKS if split == "test" else TRAINING_LOOKS
    return looks[int(rng.integers(len(looks)))]


def tint(rng: np.random.Generator, look: Look, color: str) -> Color:
    """The named colour as this look has it, jittered a little."""
    return _levels(np.array(PALETTES[look.palette][color]) + rng.integers(-COLOR_JITTER, COLOR_JITTER + 1, size=3))


def ground(rng: np.random.Generator, look: Look, width: int, height: int) -> Image.Image:
    """An RGB canvas of two greys near each other, parted by the look's texture."""
    spans = GROUNDS[look.palette]
    low, high = spans[int(rng.integers(len(spans)))]
    step = float(rng.uniform(12, min(30, high - low)))
    level = float(rng.uniform(low, high - step))
    tones = [
        _levels(np.array([grey] * 3) + rng.uniform(-GROUND_TINT, GROUND_TINT, 3)) for grey in (level, level + step)
    ]
    if rng.random() < 0.5:
        tones.reverse()
    canvas = Image.new("RGB", (width, height), tones[0])
    if look.texture != "plain":
        canvas.paste(tones[1], (0, 0), _TEXTURES[look.texture](rng, width, height))
    return canvas


def _levels(levels: np.ndarray) -> Color:
    r, g, b = (min(255, max(0, round(level))) for level in levels.tolist())
    return r, g, b


# ---- textures: which share of each pixel takes the second tone, as mode "L"


def _blotches(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    cells = rng.integers(0, 256, size=(int(rng.integers(4, 20)), int(rng.integers(4, 20))), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def _stripes(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return bands(rng, width, height, checker=False)


def _checks(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return bands(rng, width, height, checker=True)


def _grid(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """x of every column [1, width] and y of every row [height, 1] from a random point, in periods of the pattern."""
    period = rng.uniform(0.05, 0.11) * min(width, height)
    x = (np.arange(width, dtype=np.float32)[None] + rng.uniform(0, period)) / period
    y = (np.arange(height, dtype=np.float32)[:, None] + rng.uniform(0, period)) / period
    return x, y


def _soft(distance: np.ndarray) -> Image.Image:
    """0..255 from a signed distance in periods: above 0 inside, with an edge of a tenth."""
    return Image.fromarray(np.clip(distance * 2550 + 127, 0, 255).astype(np.uint8))


def _dots(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    x, y = _grid(rng, width, height)
    return _soft(rng.uniform(0.2, 0.32) - np.sqrt((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2))


def _hatch(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    x, y = _grid(rng, width, height)
    slope = float(rng.choice((-1, 1)) * rng.uniform(0.5, 2))
    return _soft(rng.uniform(0.1, 0.2) - np.abs((x + slope * y) / math.hypot(1, slope) % 1 - 0.5))


def _ripples(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    x, y = _grid(rng, width, height)
    center = rng.uniform(0, 1, size=2) * (x[0, -1], y[-1, 0])
    return _soft(0.25 - np.abs(np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2) % 1 - 0.5))


def _mesh(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    x, y = _grid(rng, width, height)
    thickness = rng.uniform(0.06, 0.12)
    return _soft(np.maximum(thickness - np.abs(x % 1 - 0.5), thickness - np.abs(y % 1 - 0.5)))


_TEXTURES: dict[str, Callable[[np.random.Generator, int, int], Image.Image]] = {
    "gradient": gradient, "blotches": _blotches, "stripes": _stripes, "checks": _checks,
    "dots": _dots, "hatch": _hatch, "ripples": _ripples, "mesh": _mesh,
}  # fmt: skip
