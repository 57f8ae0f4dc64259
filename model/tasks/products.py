"""Products: bottles, cans, jars … of our own drawing, and pictograms of things that a store sells, in eight colours.

A design of ours is a few outlines on a unit square, (0, 0) at the upper left, that touch all four of its sides, so that
its box is known before it is drawn. A part is filled with a tone of the product's colour, or with its print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.tasks import pictograms
from model.tasks.suite import Split

RGB = tuple[int, int, int]
Floats = NDArray[np.float64]
Outline = tuple[tuple[float, float], ...]

COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")

_RGB: dict[str, RGB] = {
    "red": (206, 36, 40), "orange": (240, 132, 30), "yellow": (244, 214, 50), "green": (42, 150, 62),
    "cyan": (56, 200, 208), "blue": (40, 76, 206), "purple": (124, 50, 168), "pink": (244, 134, 190),
}  # fmt: skip
_JITTER = 10  # levels, each channel alone
_TONES = {"body": 1.0, "dark": 0.62, "light": 1.32}  # brightness against the body's
_SUPERSAMPLING = 3
_MEASURED_PX = 1000  # side at which a pictogram's aspect is taken


@dataclass(frozen=True)
class Design:
    """How a kind is drawn: `aspect` is the range of width / height; `parts` are (tone, outline), from the back."""

    aspect: tuple[float, float]
    parts: tuple[tuple[str, Outline], ...]


def _block(x1: float, y1: float, x2: float, y2: float) -> Outline:
    return ((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _oval(x1: float, y1: float, x2: float, y2: float) -> Outline:
    cx, cy, rx, ry = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
    angles = [math.tau * i / 24 for i in range(24)]
    return tuple((cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles)


def _soft(x1: float, y1: float, x2: float, y2: float, cut: float) -> Outline:
    """A block with its corners cut off."""
    return (
        (x1 + cut, y1), (x2 - cut, y1), (x2, y1 + cut), (x2, y2 - cut),
        (x2 - cut, y2), (x1 + cut, y2), (x1, y2 - cut), (x1, y1 + cut),
    )  # fmt: skip


_BOTTLE: Outline = (
    (0.36, 0.08), (0.64, 0.08), (0.64, 0.3), (0.9, 0.44), (1, 0.52), (1, 0.97), (0.95, 1), (0.05, 1), (0, 0.97),
    (0, 0.52), (0.1, 0.44), (0.36, 0.3),
)  # fmt: skip
_BOWL: Outline = ((0, 0), (1, 0), (0.92, 0.4), (0.74, 0.78), (0.66, 0.86), (0.66, 1), (0.34, 1), (0.34, 0.86),
                  (0.26, 0.78), (0.08, 0.4))  # fmt: skip
_VASE: Outline = ((0.2, 0), (0.8, 0), (0.68, 0.12), (0.66, 0.26), (0.9, 0.44), (1, 0.62), (0.92, 0.82), (0.74, 1),
                  (0.26, 1), (0.08, 0.82), (0, 0.62), (0.1, 0.44), (0.34, 0.26), (0.32, 0.12))  # fmt: skip

_DESIGNS: dict[str, Design] = {
    "bottle": Design((0.3, 0.42), (
        ("body", _BOTTLE), ("dark", _block(0.3, 0, 0.7, 0.1)), ("print", _block(0, 0.6, 1, 0.84)),
        ("light", _block(0.1, 0.5, 0.2, 0.58)),
    )),
    "can": Design((0.52, 0.66), (
        ("dark", _oval(0.04, 0.84, 0.96, 1)), ("body", _block(0, 0.07, 1, 0.93)), ("light", _oval(0.04, 0, 0.96, 0.16)),
        ("dark", _oval(0.34, 0.04, 0.66, 0.11)), ("print", _block(0, 0.42, 1, 0.54)),
        ("print", _block(0, 0.6, 1, 0.64)),
    )),
    "jar": Design((0.7, 0.85), (
        ("body", _soft(0, 0.16, 1, 1, 0.12)), ("dark", _block(0.1, 0, 0.9, 0.2)),
        ("light", _block(0.1, 0.08, 0.9, 0.1)),
        ("print", _oval(0.18, 0.38, 0.82, 0.86)),
    )),
    "cup": Design((1.0, 1.2), (
        ("dark", _oval(0.6, 0.16, 1, 0.74)), ("print", _oval(0.68, 0.28, 0.9, 0.62)),
        ("body", ((0, 0), (0.78, 0), (0.7, 1), (0.08, 1))), ("light", _block(0, 0, 0.78, 0.09)),
    )),
    "box": Design((0.6, 0.8), (
        ("body", _block(0, 0.1, 0.8, 1)), ("light", ((0.2, 0), (1, 0), (0.8, 0.1), (0, 0.1))),
        ("dark", ((0.8, 0.1), (1, 0), (1, 0.9), (0.8, 1))), ("print", _oval(0.14, 0.24, 0.66, 0.6)),
        ("dark", _block(0.14, 0.72, 0.66, 0.78)), ("dark", _block(0.14, 0.84, 0.5, 0.9)),
    )),
    "bag": Design((0.72, 0.9), (
        ("body", ((0.08, 0.02), (0.92, 0.02), (0.86, 0.2), (1, 0.6), (1, 1), (0, 1), (0, 0.6), (0.14, 0.2))),
        ("dark", ((0.08, 0), (0.25, 0.04), (0.42, 0), (0.58, 0.04), (0.75, 0), (0.92, 0.02), (0.88, 0.14),
                  (0.12, 0.14))),
        ("print", _block(0.18, 0.42, 0.82, 0.8)), ("body", _block(0.3, 0.52, 0.7, 0.58)),
        ("body", _block(0.3, 0.65, 0.6, 0.7)),
    )),
    "bowl": Design((1.5, 1.8), (
        ("body", _BOWL), ("light", _block(0, 0, 1, 0.12)), ("print", _block(0.09, 0.34, 0.91, 0.44)),
    )),
    "vase": Design((0.5, 0.62), (
        ("body", _VASE), ("dark", _block(0.2, 0, 0.8, 0.04)), ("print", _block(0.04, 0.54, 0.96, 0.58)),
        ("print", _block(0.02, 0.68, 0.98, 0.72)),
    )),
}  # fmt: skip

OWN_KINDS = tuple(_DESIGNS)
_TRAINING_GOODS = (
    "avocado", "backpack", "baseball cap", "basket", "basketball", "beanie", "boot", "briefcase", "burger", "cactus",
    "cake", "carrot", "chef hat", "clock", "controller", "cookie", "cowboy hat", "dress", "fan", "flashlight", "flask",
    "flower", "football", "gift", "globe", "guitar", "hammer", "headset", "helmet", "high heel", "hoodie", "hourglass",
    "ice cream", "lamp", "light bulb", "lock", "medal", "microphone", "pepper", "phone", "piggy bank", "pizza",
    "popsicle", "pot", "racket", "radio", "sneaker", "soccer ball", "sock", "stool", "suitcase", "t-shirt", "trophy",
    "watch",
)  # fmt: skip
_HELD_OUT_GOODS = (
    "book", "boxing glove", "camera", "cassette", "die", "drone", "hair dryer", "hard hat", "laptop", "plant",
    "puzzle piece", "robot", "screwdriver", "tea bag", "umbrella", "wine glass",
)  # fmt: skip
KINDS = OWN_KINDS + _TRAINING_GOODS + _HELD_OUT_GOODS


def kinds(split: Split) -> tuple[str, ...]:
    """What a split's shelves hold: test's also the goods that training never shows."""
    return KINDS if split == "test" else OWN_KINDS + _TRAINING_GOODS


def plural(kind: str) -> str:
    """The plural of a kind: "bowl" -> "bowls"."""
    return pictograms.PLURALS.get(kind, kind + ("es" if kind.endswith(("s", "x")) else "s"))


def aspect(rng: np.random.Generator, kind: str) -> float:
    """Width over height of a product of this kind: drawn from a range for our own, a pictogram's is fixed."""
    if kind in _DESIGNS:
        return float(rng.uniform(*_DESIGNS[kind].aspect))
    width, height = pictograms.extent(kind, _MEASURED_PX)
    return width / height


def paint(rng: np.random.Generator, kind: str, color: str, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """A product of width x height pixels, RGB and coverage (L), its ink touching all four sides; some are mirrored.

    A pictogram keeps its aspect: it may come out a pixel off. ValueError for a kind or a colour that there is not.
    """
    if kind not in KINDS or color not in _RGB:
        raise ValueError(f"a product is one of {', '.join(KINDS)} in {', '.join(_RGB)}; got {color!r} {kind!r}")
    body = np.asarray(_RGB[color]) + rng.uniform(-_JITTER, _JITTER, size=3)
    if kind not in _DESIGNS:
        coverage = pictograms.mask(kind, max(width, height))
        return Image.new("RGB", coverage.size, _rgb(body)), coverage
    return _paint_design(rng, _DESIGNS[kind], body, (width * _SUPERSAMPLING, height * _SUPERSAMPLING))


def _paint_design(
    rng: np.random.Generator, design: Design, body: Floats, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """A design of ours at `size`, then reduced."""
    inks = {tone: _rgb(body * share) for tone, share in _TONES.items()}
    inks["print"] = _rgb(rng.uniform(226, 250) + rng.uniform(-6, 6, size=3))
    picture, coverage = Image.new("RGB", size, inks["dark"]), Image.new("L", size)
    pen, cutter = ImageDraw.Draw(picture), ImageDraw.Draw(coverage)
    # Pillow's polygons include the pixels of their vertices: one pixel back, the far sides are inside.
    right, bottom = size[0] - 1, size[1] - 1
    mirrored = rng.random() < 0.5
    for tone, outline in design.parts:
        path = [((1 - x if mirrored else x) * right, y * bottom) for x, y in outline]
        pen.polygon(path, fill=inks[tone])
        cutter.polygon(path, fill=255)
    return picture.reduce(_SUPERSAMPLING), coverage.reduce(_SUPERSAMPLING)


def _rgb(levels: Floats) -> RGB:
    r, g, b = (min(255, max(0, round(level))) for level in levels.tolist())
    return r, g, b
