"""Training images in more looks than are drawn, so that what is learnt is not a look: test's looks are others.

Walls, lines and grounds have colours that nobody names, so they may take any; what has a name (marks, icons, all of a
collage or a shelf) keeps its colours but for the light that falls on it. Nothing moves.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from .facts import Facts

REPAINTED_SHARE = 0.6  # of the images
UNNAMED = ("maze", "path_tracing")  # suites whose walls, lines and grounds are of any colour
_Pixels = np.ndarray  # float64 [H, W, 3], 0..255


def repainted(image: Image.Image, facts: Facts, suite: str, seed: int) -> Image.Image:
    """The image in another look, or as it is. Deterministic in `seed`."""
    rng = np.random.default_rng([seed, 211])
    if rng.random() >= REPAINTED_SHARE:
        return image
    before = np.array(image.convert("RGB"), np.float64)
    after = before.copy()
    if suite in UNNAMED:
        after = _other_colors(after, rng)
        if rng.random() < 0.4:
            after = _relief(after, rng)
        if rng.random() < 0.4:
            after = _outlined(after, rng)
    if rng.random() < 0.5:
        after = _patterned(after, rng)
    for x1, y1, x2, y2 in (fact.box for fact in facts.things):
        named = slice(math.floor(y1), math.ceil(y2)), slice(math.floor(x1), math.ceil(x2))
        after[named] = before[named]
    return Image.fromarray(_lit(after, rng).clip(0, 255).round().astype(np.uint8))


def _other_colors(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """Channels in another order and of another range, now and then dark for light."""
    pixels = pixels[..., rng.permutation(3)]
    pixels = 255 - pixels if rng.random() < 0.3 else pixels
    return np.asarray(pixels * rng.uniform(0.75, 1, size=3) + rng.uniform(0, 40, size=3))


def _relief(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """Light or shadow on one side of every edge."""
    across, down = rng.integers(-2, 3, size=2)
    return np.asarray(pixels + rng.uniform(-1, 1) * (pixels - np.roll(pixels, (down, across), axis=(0, 1))))


def _outlined(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """Every edge drawn after in one colour."""
    grey = Image.fromarray(pixels.mean(-1).clip(0, 255).astype(np.uint8))
    steep = np.subtract(
        *(np.array(grey.filter(end(3)), np.float64) for end in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    )
    edge = (steep / max(float(steep.max()), 1.0))[..., None]
    return np.asarray(pixels + rng.uniform(0.3, 1.0) * edge * (rng.uniform(0, 255, size=3) - pixels))


def _patterned(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """Stripes or tiles over it, soft or sharp, faint enough to be seen through."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    turn, phase = rng.uniform(0, math.tau, size=2)
    wave = math.tau / rng.uniform(4, 28)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    pattern = np.sin(along * wave + phase)
    if rng.random() < 0.4:
        pattern = pattern * np.sin(across * wave)
    if rng.random() < 0.5:
        pattern = np.sign(pattern)
    return np.asarray(pixels + rng.uniform(4, 14) * pattern[..., None] * rng.uniform(0.5, 1, size=3))


def _lit(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """A little lighter or darker, and a little tinted: no colour becomes another."""
    bent = 255 * (pixels.clip(0, 255) / 255) ** rng.uniform(0.85, 1.18)
    return np.asarray(bent * rng.uniform(0.94, 1.06, size=3))
