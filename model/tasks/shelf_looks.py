"""How a shelf looks: walls, boards, tags and their colours. The test split has looks of its own in each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from model.tasks.suite import Split

RGB = tuple[int, int, int]

_JITTER = 7  # levels, each channel alone: far less than palettes lie apart


@dataclass(frozen=True)
class Palette:
    """Colours that go together: wall, board, the paper of a tag and what is written on it."""

    wall: RGB
    board: RGB
    paper: RGB
    ink: RGB


@dataclass(frozen=True)
class Looks:
    """What a split draws its looks from."""

    palettes: tuple[Palette, ...]
    walls: tuple[str, ...]
    boards: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """One look: a palette, jittered, and a style each of wall, board and tag."""

    palette: Palette
    wall: str
    board: str
    tag: str


TRAINING_LOOKS = Looks(
    palettes=(
        Palette((206, 200, 188), (146, 104, 64), (252, 252, 248), (20, 20, 24)),
        Palette((176, 186, 196), (96, 102, 112), (250, 236, 120), (24, 20, 16)),
        Palette((120, 126, 130), (222, 224, 226), (250, 250, 250), (168, 20, 24)),
        Palette((226, 224, 220), (60, 62, 70), (36, 38, 46), (246, 246, 240)),
        Palette((90, 84, 92), (188, 160, 120), (240, 236, 222), (30, 40, 90)),
        Palette((196, 208, 196), (132, 88, 70), (236, 246, 232), (14, 74, 40)),
    ),
    walls=("plain", "shaded", "panels"),
    boards=("plank", "steel", "lip"),
    tags=("plain", "bordered", "rounded"),
)
HELD_OUT_LOOKS = Looks(
    palettes=(
        Palette((150, 128, 138), (70, 46, 52), (255, 214, 222), (80, 8, 40)),
        Palette((60, 74, 84), (130, 156, 170), (210, 236, 250), (8, 36, 74)),
        Palette((216, 196, 150), (64, 92, 84), (28, 70, 58), (252, 240, 196)),
        Palette((238, 232, 244), (150, 136, 178), (112, 28, 40), (255, 246, 236)),
    ),
    walls=("tiles", "stripes"),
    boards=("grooved", "rails"),
    tags=("pointed", "punched", "underlined"),
)


def looks(split: Split) -> Looks:
    """What a split draws from; test's is its own."""
    return HELD_OUT_LOOKS if split == "test" else TRAINING_LOOKS


def draw_look(rng: np.random.Generator, split: Split) -> Look:
    """A look of the split's."""
    choice = looks(split)
    palette = choice.palettes[int(rng.integers(len(choice.palettes)))]
    styles = [group[int(rng.integers(len(group)))] for group in (choice.walls, choice.boards, choice.tags)]
    jittered = [shift(color, rng.uniform(-_JITTER, _JITTER, size=3)) for color in _colors(palette)]
    return Look(Palette(*jittered), *styles)


def shift(color: RGB, by: float | np.ndarray) -> RGB:
    """A colour made lighter or darker by some levels, inside 0..255."""
    r, g, b = np.clip(np.rint(np.asarray(color) + by), 0, 255).astype(int).tolist()
    return r, g, b


def _colors(palette: Palette) -> tuple[RGB, RGB, RGB, RGB]:
    return palette.wall, palette.board, palette.paper, palette.ink


# ---- pixels


def wall(rng: np.random.Generator, look: Look, width: int, height: int) -> Image.Image:
    """The wall behind the boards, width x height pixels."""
    color = look.palette.wall
    canvas = Image.new("RGB", (width, height), color)
    other = shift(color, float(rng.choice((-1, 1))) * rng.uniform(9, 16))
    pen = ImageDraw.Draw(canvas)
    pitch = max(8, round(rng.uniform(0.09, 0.2) * min(width, height)))
    if look.wall == "shaded":
        ramp = Image.linear_gradient("L").resize((width, height))
        canvas.paste(shift(color, -rng.uniform(18, 34)), (0, 0), ramp)
    elif look.wall == "panels":
        for x in range(int(rng.integers(pitch)), width, pitch):
            pen.line([(x, 0), (x, height)], fill=other, width=max(1, pitch // 12))
    elif look.wall == "tiles":
        for row, y in enumerate(range(0, height, pitch // 2)):
            pen.line([(0, y), (width, y)], fill=other)
            for x in range(pitch // 2 * (row % 2), width, pitch):
                pen.line([(x, y), (x, y + pitch // 2)], fill=other)
    elif look.wall == "stripes":
        for x in range(-height, width, pitch):
            pen.polygon([(x, height), (x + pitch // 2, height), (x + pitch // 2 + height, 0), (x + height, 0)], other)
    return canvas


def board(image: Image.Image, look: Look, top: int, bottom: int) -> None:
    """The front of a board across the image, between two rows of pixels."""
    color, width = look.palette.board, image.width
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, top, width, bottom - 1), fill=color)
    pen.line([(0, top), (width, top)], fill=shift(color, 26))
    pen.line([(0, bottom - 1), (width, bottom - 1)], fill=shift(color, -36))
    if look.board == "steel":
        pen.rectangle((0, top, width, top + (bottom - top) // 3), fill=shift(color, 18))
    elif look.board == "lip":
        pen.rectangle((0, top - 2, width, top), fill=shift(color, -24))
    elif look.board == "grooved":
        for y in range(top + 2, bottom - 1, 3):
            pen.line([(0, y), (width, y)], fill=shift(color, -22))
    elif look.board == "rails":
        for x in range(3, width, 9):
            pen.line([(x, top), (x, bottom - 1)], fill=shift(color, 24))


def tag(look: Look, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """An empty tag of width x height pixels, RGB and coverage (L); what a shape cuts away is its outer pixels only."""
    paper, edge = look.palette.paper, shift(look.palette.paper, -70 if sum(look.palette.paper) > 380 else 70)
    patch, coverage = Image.new("RGB", (width, height), paper), Image.new("L", (width, height))
    pen, cutter = ImageDraw.Draw(patch), ImageDraw.Draw(coverage)
    whole = (0, 0, width - 1, height - 1)
    if look.tag == "rounded":
        cutter.rounded_rectangle(whole, radius=max(2, height // 4), fill=255)
    elif look.tag == "pointed":
        nick = max(1, math.floor(height / 6))
        shape = [(nick, 0), (width - 1, 0), (width - 1, height - 1), (nick, height - 1), (0, height // 2)]
        cutter.polygon(shape, fill=255)
    else:
        cutter.rectangle(whole, fill=255)
    if look.tag == "bordered":
        pen.rectangle(whole, outline=edge)
    elif look.tag == "punched":
        pen.rectangle((0, 0, 1, 1), fill=edge)
        pen.rectangle((width - 2, 0, width - 1, 1), fill=edge)
    elif look.tag == "underlined":
        pen.line([(0, height - 1), (width - 1, height - 1)], fill=edge)
    return patch, coverage
