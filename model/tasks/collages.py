"""Collages: pictograms and shapes strewn over a ground, arranged first and painted afterwards.

A suite says which items it wants and in which part of the image, `arrange` finds places, the suite checks what is true
of them, and only then `paint` makes pixels. Boxes are tight, in pixels of the image, never touch and are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.tasks import pictograms
from model.tasks.layouts import HELD_OUT_LAYOUTS, TRAINING_LAYOUTS, Corners, Extent, place
from model.tasks.looks import Look, ground, tint
from model.tasks.matching import Box
from model.tasks.scenes import SHAPES, Figure, sized_figure, stamp
from model.tasks.suite import Split

SHAPE_SHARE = 0.1  # of the nouns drawn
_SHRINK = 0.92  # of every side, when the items do not fit
_TRIES = 24
_CELL_MARGIN = 0.03  # of the image's shorter side, between a cell's edge and what lies in it


@dataclass(frozen=True)
class Item:
    """What is wanted: a noun (a pictogram's or a shape's), a colour, a size's name, the cell it is to lie in."""

    noun: str
    color: str
    size: str = ""
    cell: int = 0


@dataclass(frozen=True)
class Placed:
    """An item at its place: its tight box, the longer side of it, and for a shape its contours."""

    item: Item
    box: Box
    side: float
    figure: Figure | None


def nouns(split: Split) -> tuple[str, ...]:
    """The pictograms that a split draws; the shapes come on top of them."""
    return pictograms.KINDS if split == "test" else pictograms.TRAINING_KINDS


def choose_nouns(rng: np.random.Generator, split: Split, count: int) -> list[str]:
    """Different nouns; one in ten a shape."""
    chosen: list[str] = []
    while len(chosen) < count:
        pool = SHAPES if rng.random() < SHAPE_SHARE else nouns(split)
        noun = pool[int(rng.integers(len(pool)))]
        if noun not in chosen:
            chosen.append(noun)
    return chosen


def plural(noun: str) -> str:
    """The plural of a noun, of a pictogram or a shape."""
    return pictograms.PLURALS.get(noun, noun + ("es" if noun.endswith(("s", "x")) else "s"))


def arrange(
    rng: np.random.Generator,
    items: Sequence[Item],
    sides: Sequence[float],
    width: int,
    height: int,
    split: Split,
    cells: Sequence[Box] | None = None,
) -> list[Placed]:
    """Places for all items, each inside its cell (of one, the whole image, by default), in the order given.

    `sides` are the longer sides wished, in pixels: when all do not fit, all of them shrink. The layouts are the
    split's.
    """
    layouts = HELD_OUT_LAYOUTS if split == "test" else TRAINING_LAYOUTS
    cells = [(0.0, 0.0, float(width), float(height))] if cells is None else cells
    margin = _CELL_MARGIN * min(width, height) if len(cells) > 1 else 0.0
    scale = 1.0
    for _ in range(_TRIES):
        figures, extents = _cut(rng, items, [side * scale for side in sides])
        corners: Corners = [(0.0, 0.0)] * len(items)
        for number, (x1, y1, x2, y2) in enumerate(cells):
            # Shuffled: a layout takes its items in order, and neighbours must not be of one kind.
            inside = [i for i in rng.permutation(len(items)).tolist() if items[i].cell == number]
            room = (int(x2 - x1 - 2 * margin), int(y2 - y1 - 2 * margin))
            order = [layouts[i] for i in rng.permutation(len(layouts))]
            found = place(rng, [extents[i] for i in inside], *room, order)
            if found is None:
                break
            for i, (x, y) in zip(inside, found, strict=True):
                corners[i] = (x + x1 + margin, y + y1 + margin)
        else:
            return [_placed(*each) for each in zip(items, figures, extents, corners, strict=True)]
        scale *= _SHRINK
    raise AssertionError((len(items), width, height, list(sides)))


def _cut(
    rng: np.random.Generator, items: Sequence[Item], sides: Sequence[float]
) -> tuple[list[Figure | None], list[Extent]]:
    """What each item covers at its size; shapes are turned a little."""
    figures: list[Figure | None] = []
    extents: list[Extent] = []
    for item, side in zip(items, sides, strict=True):
        if item.noun in SHAPES:
            figure = sized_figure(rng, item.noun, item.color, item.size, side)
            figures.append(figure)
            extents.append(figure.extent)
        else:
            figures.append(None)
            extents.append(pictograms.extent(item.noun, round(side)))
    return figures, extents


def _placed(item: Item, figure: Figure | None, extent: Extent, corner: tuple[float, float]) -> Placed:
    x, y = corner if figure is not None else (round(corner[0]), round(corner[1]))  # masks lie on whole pixels
    return Placed(item, (float(x), float(y), float(x + extent[0]), float(y + extent[1])), max(extent), figure)


def paint(rng: np.random.Generator, placed: Sequence[Placed], look: Look, width: int, height: int) -> Image.Image:
    """The collage: a ground in the look, and on it every item in its colour."""
    image = ground(rng, look, width, height)
    for each in placed:
        fill = tint(rng, look, each.item.color)
        if each.figure is not None:
            stamp(image, each.figure, each.box[0], each.box[1], fill)
        else:
            image.paste(fill, (int(each.box[0]), int(each.box[1])), pictograms.mask(each.item.noun, int(each.side)))
    return image


def canvas(rng: np.random.Generator, low: int, high: int, aspect: float) -> tuple[int, int]:
    """Width and height in pixels: the longer side within low..high, the shorter down to its `aspect`-th part."""
    longer = int(rng.integers(low, high + 1))
    shorter = round(longer * rng.uniform(aspect, 1.0))
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
