"""Shelf scenes as in a store: products on boards, a price or a label on a tag under each, drawn with the truth.

The caller says what stands where, `draw` says how it looks and where each box came to lie: an answer can be chosen
before anything is drawn. A scene's pixels are a function of the generator's state and the arguments alone. Boxes are
in pixels, x to the right, y down, continuous: pixel i covers [i, i + 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.tasks import products
from model.tasks.lettering import extent, fonts, write
from model.tasks.matching import Box
from model.tasks.shelf_looks import Look, board, draw_look, tag, wall
from model.tasks.suite import Split

COLORS = products.COLORS

TAG_MARGIN_PX = 3  # paper around the text of a tag, each side
_BOARD_PX = (4, 8)  # a board without tags
_LEAST_PX = 12  # the shorter side of the room for a product
_FILL = (0.78, 1.0)  # of the room for it, that a product takes on its tighter side
_CAP_PX = (7, 14)  # of a lettering that the caller leaves to us
_LINE_GAP = 0.45  # of the cap height, between two lines of a tag


@dataclass(frozen=True)
class Item:
    """A product to be drawn, of one of `products.kinds`, and what its tag says: label, price, both or no tag at all.

    `price` is written as it stands, with its sign.
    """

    kind: str
    color: str
    price: str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """Colour and kind: "red bottle"."""
        return f"{self.color} {self.kind}"

    @property
    def lines(self) -> tuple[str, ...]:
        """What its tag says, from the top."""
        return tuple(line for line in (self.label, self.price) if line is not None)


@dataclass(frozen=True)
class Product:
    """A drawn item: its tight box, its row (0 at the top) and place (0 at the left), its tag's box if it has one."""

    item: Item
    box: Box
    row: int
    place: int
    tag: Box | None


@dataclass(frozen=True)
class Shelf:
    """An RGB image, its products row by row from the left, and the room of each row down to its board's lower edge."""

    image: Image.Image
    products: tuple[Product, ...]
    rows: tuple[Box, ...]


@dataclass(frozen=True)
class Lettering:
    """How a shelf is lettered: one font, a cap height in pixels, and how far a tag may hang askew, in degrees."""

    font: str
    cap_px: int
    askew: float = 0.0

    def tag_height(self, lines: int) -> int:
        """The height in pixels of a straight tag of so many lines; the same for every text."""
        tallest = extent("$Ag|", self.font, self.cap_px)[1]
        return lines * tallest + (lines - 1) * round(_LINE_GAP * self.cap_px) + 2 * TAG_MARGIN_PX


def draw(
    rng: np.random.Generator,
    rows: Sequence[Sequence[Item | None]],
    width: int,
    height: int,
    split: Split,
    lettering: Lettering | None = None,
) -> Shelf:
    """Draw the rows, from the top, on width x height pixels; None leaves a place empty.

    Without `lettering` one that fits is drawn from the split's fonts. ValueError where a row is empty of places, the
    image leaves no room for a product, a tag is wider than its place, or a font is not the split's.
    """
    if not rows or not all(rows):
        raise ValueError("a shelf needs one row or more with one place or more each; got an empty one")
    lettering = lettering or _fitting_lettering(rng, rows, width, split)
    strange = {item.kind for row in rows for item in row if item} - set(products.kinds(split))
    if strange:
        raise ValueError(f"the split {split} has no {', '.join(sorted(strange))} on its shelves; see products.kinds")
    if lettering.font not in fonts(split):
        raise ValueError(f"the split {split} has the fonts {', '.join(fonts(split))}; got {lettering.font!r}")
    look = draw_look(rng, split)
    image = wall(rng, look, width, height)
    lines = max((len(item.lines) for row in rows for item in row if item), default=0)
    front = lettering.tag_height(lines) if lines else int(rng.integers(*_BOARD_PX))
    drawn: list[Product] = []
    rooms: list[Box] = []
    for r, row in enumerate(rows):
        top, bottom = height * r // len(rows), height * (r + 1) // len(rows)
        shelf_top = bottom - front
        room = (width / len(row) - 4, shelf_top - top - 4)
        if min(room) < _LEAST_PX:
            raise ValueError(f"{width}x{height} pixels leave {room} for a product; draw fewer or a larger image")
        board(image, look, shelf_top, bottom)
        rooms.append((0.0, float(top), float(width), float(bottom)))
        for p, item in enumerate(row):
            if item is not None:
                left, right = width * p // len(row), width * (p + 1) // len(row)
                box = _stand(rng, image, item, left + 2, right - 2, top + 4, shelf_top)
                hung = _hang(rng, image, look, item, lettering, left, right, shelf_top, bottom) if item.lines else None
                drawn.append(Product(item, box, r, p, hung))
    return Shelf(image, tuple(drawn), tuple(rooms))


def _fitting_lettering(
    rng: np.random.Generator, rows: Sequence[Sequence[Item | None]], width: int, split: Split
) -> Lettering:
    """A font of the split's, at the largest cap height at which every tag fits its place."""
    choice = fonts(split)
    font = choice[int(rng.integers(len(choice)))]
    texts = [(line, width // len(row)) for row in rows for item in row if item for line in item.lines]
    for cap in range(_CAP_PX[1], _CAP_PX[0] - 1, -1):
        if all(extent(text, font, cap)[0] + 2 * TAG_MARGIN_PX + 2 <= place for text, place in texts):
            return Lettering(font, cap)
    raise ValueError(f"the tags do not fit on {width} pixels even at the smallest print; draw fewer places a row")


def _stand(
    rng: np.random.Generator, image: Image.Image, item: Item, left: int, right: int, top: int, ground: int
) -> Box:
    """Paint a product on its board, somewhere between left and right; returns its box."""
    wide, tall = right - left, ground - top
    ratio = products.aspect(rng, item.kind)
    height = min(tall, wide / ratio) * rng.uniform(*_FILL)
    patch, coverage = products.paint(
        rng, item.kind, item.color, max(1, math.floor(height * ratio)), max(1, math.floor(height))
    )
    x, y = int(rng.integers(left, right - patch.width + 1)), ground - patch.height
    image.paste(patch, (x, y), coverage)
    return (float(x), float(y), float(x + patch.width), float(ground))


def _hang(
    rng: np.random.Generator, image: Image.Image, look: Look, item: Item, lettering: Lettering,
    left: int, right: int, top: int, bottom: int,
) -> Box:  # fmt: skip
    """Hang an item's tag on the front of the board, under its place; returns its box."""
    patch, coverage = _tag_of(look, item, lettering)
    if lettering.askew:
        angle = rng.uniform(-lettering.askew, lettering.askew)
        patch = patch.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=look.palette.paper)
        coverage = coverage.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        seen = coverage.getbbox()
        patch, coverage = patch.crop(seen), coverage.crop(seen)
    slack = right - left - 2 - patch.width
    if slack < 0:
        raise ValueError(f"a tag with {item.lines} is {patch.width} pixels wide, its place {right - left}")
    x = left + 1 + slack // 2 + int(rng.integers(-(slack // 4), slack // 4 + 1))
    y = min(top + (bottom - top - patch.height) // 2, image.height - patch.height)
    image.paste(patch, (x, y), coverage)
    return (float(x), float(y), float(x + patch.width), float(y + patch.height))


def _tag_of(look: Look, item: Item, lettering: Lettering) -> tuple[Image.Image, Image.Image]:
    """A straight tag with an item's lines, each in the middle; RGB and coverage."""
    sizes = [extent(line, lettering.font, lettering.cap_px) for line in item.lines]
    width = max(size[0] for size in sizes) + 2 * TAG_MARGIN_PX
    height = lettering.tag_height(len(sizes))
    patch, coverage = tag(look, width, height)
    each = (height - 2 * TAG_MARGIN_PX) / len(sizes)
    for i, (line, (wide, tall)) in enumerate(zip(item.lines, sizes, strict=True)):
        y = round(TAG_MARGIN_PX + each * i + (each - tall) / 2)
        write(patch, line, (width - wide) // 2, y, lettering.font, lettering.cap_px, look.palette.ink)
    return patch, coverage
