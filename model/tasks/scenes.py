"""Scenes of coloured shapes on muted backgrounds, drawn together with the truth about them.

A scene's pixels are a function of the generator's state alone: the same seed gives the same bytes.
All coordinates are pixels of the scene's image, x to the right, y down, continuous: pixel i covers [i, i + 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from model.tasks.layouts import LAYOUTS, TRAINING_LAYOUTS, Corners, Extent, Points, place
from model.tasks.matching import Box

SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "cross", "ring")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")

Floats = NDArray[np.float64]

_RGB = {
    "red": (214, 34, 38), "orange": (246, 138, 24), "yellow": (246, 218, 44), "green": (38, 156, 58),
    "cyan": (52, 206, 214), "blue": (36, 72, 214), "purple": (126, 46, 172), "pink": (246, 132, 190),
}  # fmt: skip
_COLOR_JITTER = 12  # levels, each channel alone
_SIDE = {"small": (0.14, 0.19), "large": (0.25, 0.33)}  # longer side of the tight box / shorter side of the image
# Degrees to either side. A square turned further would pass for a diamond, a cross for an x.
_MAX_TURN = {"square": 10.0, "triangle": 22.0, "star": 36.0, "diamond": 8.0, "heart": 20.0, "cross": 12.0}
_SUPERSAMPLING = 3
_OUTLINE_SHARE = 0.3


@dataclass(frozen=True)
class Thing:
    """One drawn shape; `box` is its tight extent x1, y1, x2, y2 in pixels of the scene's image."""

    shape: str
    color: str
    size: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """An RGB image and everything on it, left to right (by x1, then y1)."""

    image: Image.Image
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Figure:
    """A thing before it has a place: contours from its tight extent's corner at (0, 0); a second contour is a hole."""

    shape: str
    color: str
    size: str
    contours: tuple[Points, ...]
    extent: Extent


def draw(
    rng: np.random.Generator,
    *,
    width: int,
    height: int,
    count: tuple[int, int],
    layouts: tuple[str, ...] = TRAINING_LAYOUTS,
) -> Scene:
    """Draw a scene of `count[0]` to `count[1]` things (both included) on an image of width x height pixels.

    Things lie fully inside and their boxes never touch. When the wished things do not fit, large ones become small,
    and only when that is not enough is one left out. Raises ValueError for a bad count, size or layout.
    """
    if not 0 <= count[0] <= count[1]:
        raise ValueError(f"count must be (low, high) with 0 <= low <= high, got {count}")
    if min(width, height) < 32:
        raise ValueError(f"a scene must be at least 32 pixels on each side, got {width}x{height}")
    if not layouts or set(layouts) - set(LAYOUTS):
        raise ValueError(f"layouts must be some of {tuple(LAYOUTS)}, got {layouts}")
    wished = _choose_kinds(rng, int(rng.integers(count[0], count[1] + 1)))
    side = min(width, height)
    figures = [make_figure(rng, shape, color, size, side) for shape, color, size in wished]
    image = _background(rng, width, height)
    outlined = rng.random() < _OUTLINE_SHARE
    things = []
    order = [layouts[i] for i in rng.permutation(len(layouts))]
    figures, corners = _fit(rng, figures, width, height, order)
    for figure, (x, y) in zip(figures, corners, strict=True):
        outline = _outline_color(rng, figure.color) if outlined else None
        stamp(image, figure, x, y, jitter(rng, figure.color), outline)
        box = (x, y, x + figure.extent[0], y + figure.extent[1])
        things.append(Thing(figure.shape, figure.color, figure.size, box))
    return Scene(image, tuple(sorted(things, key=lambda thing: thing.box)))


# ---- what is on the scene


def _choose_kinds(rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
    """Shape, colour and size of n things; most scenes repeat some, so that counts other than 1 are common."""
    shapes = rng.integers(len(SHAPES), size=n)
    colors = rng.integers(len(COLORS), size=n)
    style = rng.random()
    if n and style < 0.4:  # one kind that several things share, wholly or in one attribute, among strangers
        share = rng.random(n)
        shapes[share < 0.7] = shapes[0]
        colors[(share < 0.55) | (share > 0.85)] = colors[0]
    elif n and style < 0.7:  # few shapes and few colours, mixed
        shapes = rng.choice(shapes[: int(rng.integers(1, 3))], size=n)
        colors = rng.choice(colors[: int(rng.integers(1, 4))], size=n)
    # Many large things do not fit; asking for fewer from the start keeps the sizes in a scene near what was wished.
    large = rng.random(n) < min(0.5, 1.8 / max(n, 1))
    return [(SHAPES[s], COLORS[c], SIZES[int(z)]) for s, c, z in zip(shapes, colors, large, strict=True)]


def _unit_contours() -> dict[str, tuple[Points, ...]]:
    """The shapes' contours around the origin, at any scale; `make_figure` scales them."""

    def around(angles: NDArray[Any], radii: float | Floats = 1.0) -> Points:
        return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)

    circle = around(np.arange(48) * (math.tau / 48))
    t = np.arange(48) * (math.tau / 48)
    heart = np.stack(
        [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], axis=1
    )
    arm = 0.36
    cross = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
             (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)]  # fmt: skip
    return {
        "circle": (circle,),
        "square": (np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),),
        "triangle": (around(np.arange(3) * (math.tau / 3)),),
        "star": (around(np.arange(10) * (math.tau / 10), np.where(np.arange(10) % 2, 0.42, 1.0)),),
        "diamond": (np.array([(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)]),),
        "heart": (heart,),
        "cross": (np.array(cross, dtype=np.float64),),
        "ring": (circle, circle * 0.5),
    }


_CONTOURS = _unit_contours()


def make_figure(rng: np.random.Generator, shape: str, color: str, size: str, image_side: int) -> Figure:
    """A figure whose longer side fits `size` on an image whose shorter side is `image_side`; perhaps turned."""
    contours = _turned(rng, shape)
    return _scaled(contours, rng.uniform(*_SIDE[size]) * image_side, shape, color, size)


def sized_figure(rng: np.random.Generator, shape: str, color: str, size: str, side: float) -> Figure:
    """A figure whose longer side is `side` pixels, whatever its `size` is called; perhaps turned."""
    return _scaled(_turned(rng, shape), side, shape, color, size)


def _turned(rng: np.random.Generator, shape: str) -> tuple[Points, ...]:
    contours = _CONTOURS[shape]
    if shape in _MAX_TURN and rng.random() < 0.6:
        angle = math.radians(rng.uniform(-_MAX_TURN[shape], _MAX_TURN[shape]))
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        contours = tuple(contour @ turn for contour in contours)
    return contours


def _scaled(contours: tuple[Points, ...], side: float, shape: str, color: str, size: str) -> Figure:
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    scale = side / (high - low).max()
    extent = (high - low) * scale
    return Figure(
        shape, color, size, tuple((contour - low) * scale for contour in contours), (float(extent[0]), float(extent[1]))
    )


def _fit(
    rng: np.random.Generator, figures: list[Figure], width: int, height: int, layouts: list[str]
) -> tuple[list[Figure], Corners]:
    """The figures that can be placed, and their corners: large ones become small, then some are left out."""
    retries = 3
    while (corners := place(rng, [figure.extent for figure in figures], width, height, layouts)) is None:
        large = next((i for i, figure in enumerate(figures) if figure.size == "large"), None)
        if large is not None:
            old = figures[large]
            figures[large] = make_figure(rng, old.shape, old.color, "small", min(width, height))
        elif retries:
            retries -= 1
        else:
            figures = figures[:-1]
    return figures, corners


# ---- pixels


def _rgb(levels: Floats) -> tuple[int, int, int]:
    r, g, b = (min(255, max(0, round(level))) for level in levels.tolist())
    return r, g, b


def jitter(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    """A shade of a named colour that nobody would call by another name."""
    return _rgb(np.array(_RGB[color]) + rng.uniform(-_COLOR_JITTER, _COLOR_JITTER, size=3))


def _outline_color(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    choice = rng.integers(3)
    return ((24, 24, 24), (242, 242, 242), _rgb(np.array(_RGB[color]) * 0.45))[choice]


def stamp(
    image: Image.Image,
    figure: Figure,
    x: float,
    y: float,
    fill: tuple[int, int, int],
    outline: tuple[int, int, int] | None = None,
) -> None:
    """Paint a figure with its tight extent's corner at (x, y), edges antialiased; the outline runs inside the edge."""
    left, top = math.floor(x), math.floor(y)
    width, height = math.ceil(x + figure.extent[0]) - left, math.ceil(y + figure.extent[1]) - top
    offset = np.array([x - left, y - top])
    # Pillow's polygons include the pixels of their vertices: half a pixel back makes both ends fair.
    paths = [
        [(px, py) for px, py in np.rint((contour + offset) * _SUPERSAMPLING - 0.5).astype(np.int64).tolist()]
        for contour in figure.contours
    ]
    mask = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    pen = ImageDraw.Draw(mask)
    for path, level in zip(paths, (255, 0), strict=False):
        pen.polygon(path, fill=level)
    image.paste(fill, (left, top), mask.reduce(_SUPERSAMPLING))
    if outline is None:
        return
    line = Image.new("L", mask.size)
    pen = ImageDraw.Draw(line)
    thickness = max(1.2, 0.035 * max(figure.extent))  # pixels that remain inside
    for path in paths:
        pen.line([*path, path[0]], fill=255, width=round(2 * thickness * _SUPERSAMPLING))
    image.paste(outline, (left, top), ImageChops.darker(line, mask).reduce(_SUPERSAMPLING))


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A muted canvas: its chroma stays far below every thing's, so that no colour drowns in it."""
    level = rng.uniform(48, 218)
    first = level + rng.uniform(-10, 10, size=3)
    step = rng.uniform(14, 40) * (1 if level < 130 else -1)
    second = first + step + rng.uniform(-5, 5, size=3)
    canvas = Image.new("RGB", (width, height), _rgb(first))
    style = rng.integers(5)
    if style == 0:
        return canvas
    if style == 1:
        weights = gradient(rng, width, height)
    elif style == 2:
        cells = rng.integers(0, 256, size=(int(rng.integers(4, 20)), int(rng.integers(4, 20))), dtype=np.uint8)
        weights = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    else:
        weights = bands(rng, width, height, checker=style == 4)
    canvas.paste(_rgb(second), (0, 0), weights)
    return canvas


def gradient(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A ramp 0..255 across the image, in any direction."""
    angle = rng.uniform(0, math.tau)
    across = np.linspace(-1, 1, width, dtype=np.float32) * math.cos(angle)
    down = np.linspace(-1, 1, height, dtype=np.float32) * math.sin(angle)
    reach = abs(math.cos(angle)) + abs(math.sin(angle))
    ramp = (across[None, :] + down[:, None]) * (127.5 / reach) + 127.5
    return Image.fromarray(ramp.astype(np.uint8))


def bands(rng: np.random.Generator, width: int, height: int, *, checker: bool) -> Image.Image:
    """Stripes, upright or level, or a chequered board; 0 and 255."""
    period = rng.uniform(0.06, 0.25) * min(width, height)
    columns = (np.arange(width) + rng.uniform(0, period)) // period % 2 == 1
    rows = (np.arange(height) + rng.uniform(0, period)) // period % 2 == 1
    if checker:
        cells = columns[None, :] ^ rows[:, None]
    else:
        upright = rng.random() < 0.5
        cells = np.broadcast_to(columns[None, :] if upright else rows[:, None], (height, width))
    return Image.fromarray(cells.astype(np.uint8) * np.uint8(255))
