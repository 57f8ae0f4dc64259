"""How a maze looks: where it lies on its image, what its walls, its ground and its two marks are painted with.

Some looks are the test split's own (HELD_OUT_…). Units: pixels, continuous, pixel i covers [i, i + 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from model.tasks.maze_grids import Floats, Grid
from model.tasks.scenes import make_figure, stamp

TRAINING_WALLS, HELD_OUT_WALLS = ("plain", "gradient"), ("outlined", "shadowed")
TRAINING_GROUNDS, HELD_OUT_GROUNDS = ("plain", "gradient", "clouds"), ("bands", "checker")
TRAINING_MARKS, HELD_OUT_MARKS = ("circle", "square", "triangle", "star", "diamond"), ("heart", "cross", "ring")

Color = tuple[int, int, int]

_MARK_COLORS: dict[str, Color] = {
    "red": (222, 30, 36), "orange": (250, 134, 18), "yellow": (250, 220, 40), "green": (30, 164, 60),
    "cyan": (40, 206, 220), "blue": (30, 76, 226), "purple": (136, 44, 180), "pink": (250, 120, 190),
}  # fmt: skip
_APART = 78.0  # weighted distance that a mark's colour keeps from the ground's: no yellow on white
_EYE = (0.3, 0.59, 0.11)  # how much red, green and blue weigh in it
_MAX_TURN = 9.0  # degrees to either side
_MAX_STRETCH = 1.25
_THINNEST = 2.0  # pixels
_THICKEST = 0.25  # of a corridor's pitch
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Placement:
    """Where a grid lies on an image of `size`: `turn` [2, 2] and `shift` [2] take its units to pixels.

    `pitch`: pixels from wall line to wall line where a corridor is narrowest; `thickness`: of the walls.
    """

    size: tuple[int, int]
    turn: Floats
    shift: Floats
    pitch: float
    thickness: float

    def pixels(self, points: Floats) -> Floats:
        """[…, 2] in units of the grid -> pixels."""
        return points @ self.turn + self.shift


@dataclass(frozen=True)
class Look:
    """What is painted with what. `marks`: shape and colour name of the start and of the goal."""

    walls: str
    ground: str
    wall_colors: tuple[Color, Color]
    ground_colors: tuple[Color, Color]
    marks: tuple[tuple[str, str], tuple[str, str]]


def place(rng: np.random.Generator, grid: Grid, sides: tuple[int, int], corridor: float) -> Placement:
    """A placement on an image whose sides lie in `sides`, with corridors at least `corridor` pixels wide."""
    width, height = (int(side) for side in rng.integers(sides[0], sides[1], size=2, endpoint=True))
    corners = grid.pieces.reshape(-1, 2)
    extent = corners.max(axis=0) - corners.min(axis=0)
    wished = (width / height) / (extent[0] / extent[1]) * math.exp(rng.uniform(-0.12, 0.12))
    stretch = min(max(wished, 1 / _MAX_STRETCH), _MAX_STRETCH)
    angle = math.radians(rng.uniform(-_MAX_TURN, _MAX_TURN))
    turn = np.diag([max(stretch, 1.0), max(1 / stretch, 1.0)]) @ np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    turned = corners @ turn
    low, extent = turned.min(axis=0), turned.max(axis=0) - turned.min(axis=0)
    size = np.array([width, height])
    margin = rng.uniform(0.025, 0.05) * min(width, height)
    pitch = float(((size - 2 * margin) / extent).min())
    assert pitch >= corridor + _THINNEST, (grid.topology, grid.cells, width, height, pitch)
    thickness = rng.uniform(_THINNEST, min(_THICKEST * pitch, pitch - corridor, 2 * margin - 1))
    corner = margin + rng.random(2) * (size - 2 * margin - extent * pitch)
    return Placement((width, height), turn * pitch, corner - low * pitch, pitch, float(thickness))


def choose_look(rng: np.random.Generator, *, held_out: bool) -> Look:
    """A look of the training splits, or one that only the test split has."""
    walls = HELD_OUT_WALLS if held_out else TRAINING_WALLS
    grounds = HELD_OUT_GROUNDS if held_out else TRAINING_GROUNDS
    shapes = HELD_OUT_MARKS if held_out else TRAINING_MARKS
    dark, light = rng.uniform(10, 50), rng.uniform(195, 240)
    ground, ink = (light, dark) if rng.random() < 0.5 else (dark, light)
    away = 1 if ground > ink else -1
    ground_colors = _color(rng, ground, 14), _color(rng, ground - away * rng.uniform(8, 30), 14)
    wall_colors = _color(rng, ink, 45), _color(rng, ink + away * rng.uniform(10, 60), 45)
    colors = _apart(ground_colors)
    first, second = rng.permutation(len(colors))[:2]
    start, goal = rng.integers(len(shapes), size=2)
    return Look(
        walls[int(rng.integers(len(walls)))],
        grounds[int(rng.integers(len(grounds)))],
        wall_colors,
        ground_colors,
        ((shapes[start], colors[first]), (shapes[goal], colors[second])),
    )


def draw(rng: np.random.Generator, placement: Placement, look: Look, walls: Floats, ends: Floats) -> Image.Image:
    """Paint walls ([m, 4], centre lines in pixels) and the marks of start and goal ([2, 2], their centres)."""
    image = _paper(rng, placement.size, look)
    thickness = placement.thickness
    mask = wall_mask(placement.size, walls, thickness)
    first, second = look.wall_colors
    if look.walls == "shadowed":
        shade = tuple(level // 2 for level in look.ground_colors[0])
        offset = max(1, round(thickness / 3))
        image.paste(shade, (offset, offset), mask)
    if look.walls == "gradient":
        image.paste(_blend(placement.size, first, second, _ramp(rng, placement.size)), (0, 0), mask)
    else:
        image.paste(first, (0, 0), mask)
    if look.walls == "outlined":
        middle = tuple((a + b) // 2 for a, b in zip(first, look.ground_colors[0], strict=True))
        image.paste(middle, (0, 0), wall_mask(placement.size, walls, thickness / 2.5))
    for (shape, color), (x, y) in zip(look.marks, ends.tolist(), strict=True):
        # A large figure's longer side is 0.25 to 0.33 of the side it is made for.
        figure = make_figure(rng, shape, color, "large", round(2.2 * (placement.pitch - thickness)))
        stamp(image, figure, x - figure.extent[0] / 2, y - figure.extent[1] / 2, _MARK_COLORS[color])
    return image


def wall_mask(size: tuple[int, int], walls: Floats, thickness: float) -> Image.Image:
    """The walls as an L image of this size, antialiased: straight strokes with round ends."""
    mask = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    pen = ImageDraw.Draw(mask)
    lines = walls * _SUPERSAMPLING - 0.5
    width = max(1, round(thickness * _SUPERSAMPLING))
    for line in lines.tolist():
        pen.line(line, fill=255, width=width)
    radius = (width - 1) / 2
    ends = np.unique(lines.reshape(-1, 2).round(1), axis=0)
    for box in np.hstack([ends - radius, ends + radius]).tolist():
        pen.ellipse(box, fill=255)
    return mask.reduce(_SUPERSAMPLING)


def _color(rng: np.random.Generator, level: float, spread: float) -> Color:
    r, g, b = (min(255, max(0, round(value))) for value in (level + rng.uniform(-spread, spread, size=3)).tolist())
    return r, g, b


def _apart(grounds: Sequence[Color]) -> list[str]:
    """The mark colours that stand out from the ground; the two that do most, where fewer do enough."""

    def distance(name: str) -> float:
        return min(
            math.sqrt(sum(w * (a - b) ** 2 for w, a, b in zip(_EYE, _MARK_COLORS[name], ground, strict=True)))
            for ground in grounds
        )

    best = sorted(_MARK_COLORS, key=distance, reverse=True)
    return [name for rank, name in enumerate(best) if rank < 2 or distance(name) >= _APART]


def _paper(rng: np.random.Generator, size: tuple[int, int], look: Look) -> Image.Image:
    """The ground: both its colours, mixed as the look says."""
    first, second = look.ground_colors
    if look.ground == "plain":
        return Image.new("RGB", size, first)
    if look.ground == "gradient":
        weights = _ramp(rng, size)
    elif look.ground == "clouds":
        cells = rng.integers(0, 256, size=tuple(rng.integers(4, 16, size=2)), dtype=np.uint8)
        weights = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    else:
        columns, rows = (np.arange(side) // rng.uniform(9, 40) % 2 == 1 for side in size)
        cells = columns[None] ^ rows[:, None] if look.ground == "checker" else np.tile(columns, (size[1], 1))
        weights = Image.fromarray(cells.astype(np.uint8) * np.uint8(255))
    return _blend(size, first, second, weights)


def _blend(size: tuple[int, int], first: Color, second: Color, weights: Image.Image) -> Image.Image:
    image = Image.new("RGB", size, first)
    image.paste(second, (0, 0), weights)
    return image


def _ramp(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A linear gradient in a random direction, as an L image."""
    ramp = Image.linear_gradient("L").rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR)
    return ramp.resize(size, Image.Resampling.BILINEAR, box=(38, 38, 218, 218))  # rotated corners stay outside
