"""Shelves to count on: the number first, then products that look or stand nearly so, empty places between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from model.tasks import products, shelf
from model.tasks.matching import Box
from model.tasks.suite import Split

_ROW_NAMES = {
    2: ("top shelf", "bottom shelf"),
    3: ("top shelf", "middle shelf", "bottom shelf"),
    4: ("top shelf", "second shelf", "third shelf", "bottom shelf"),
}


@dataclass(frozen=True)
class Level:
    """How hard a shelf is: rows, places a row beside what is needed, other products, the image's sides in pixels."""

    most: int
    rows: tuple[int, ...]
    places: tuple[int, int]
    near: tuple[int, int]
    strangers: tuple[int, int]
    width: tuple[int, int]
    height: tuple[int, int]
    by_row: bool


LEVELS = {
    "easy": Level(5, (2,), (6, 7), (1, 2), (1, 3), (196, 280), (168, 252), True),
    "medium": Level(10, (2, 3), (10, 11), (1, 3), (2, 5), (300, 336), (196, 308), True),
    "hard": Level(20, (4,), (8, 9), (1, 4), (3, 6), (316, 336), (240, 336), False),
}


@dataclass(frozen=True)
class Counted:
    """An image, the words for what is asked for (`one`, `many`, `place`, and `label` as a scan calls it), everything
    that might count as (what a scan calls it, its box), and everything there is, as JSON has it."""

    image: Image.Image
    one: str
    many: str
    place: str
    label: str
    scanned: tuple[tuple[str, Box], ...]
    things: list[dict[str, Any]]


def draw(rng: np.random.Generator, number: int, level: Level, split: Split) -> Counted:
    """A shelf with `number` products to count: of one kind, of one kind and colour, or of one kind on one board."""
    width, height = (int(rng.integers(low, high + 1)) for low, high in (level.width, level.height))
    rows = level.rows[int(rng.integers(len(level.rows)))]
    places = int(rng.integers(level.places[0], level.places[1] + 1))
    form = ("kind", "color", "row")[int(rng.integers(3 if level.by_row else 2))]
    kinds, colors = (
        [str(word) for word in rng.permutation(words)] for words in (products.kinds(split), products.COLORS)
    )
    asked_row = int(rng.integers(rows)) if form == "row" else None
    near, strangers = (int(rng.integers(low, high + 1)) for low, high in (level.near, level.strangers))

    def color(other: bool = False) -> str:
        return colors[int(rng.integers(1 if other else 0, len(colors)))]

    items = [shelf.Item(kinds[0], colors[0] if form == "color" else color()) for _ in range(number)]
    if form != "kind":
        items += [shelf.Item(kinds[0], color(other=form == "color")) for _ in range(near)]
    items += [shelf.Item(kinds[1 + int(rng.integers(3))], color()) for _ in range(strangers + near * (form == "kind"))]
    drawn = shelf.draw(rng, _stock(rng, items, number, rows, places, asked_row, near), width, height, split)
    one = f"{colors[0]} {kinds[0]}" if form == "color" else kinds[0]
    place = f"on the {_ROW_NAMES[rows][asked_row]}" if asked_row is not None else "on the shelf"
    label = f"{one} {place}" if form == "row" else one

    def name(product: shelf.Product) -> str:
        if form == "row":
            return f"{product.item.kind} on the {_ROW_NAMES[rows][product.row]}"
        return product.item.name if form == "color" else product.item.kind

    scanned = tuple((name(each), each.box) for each in drawn.products if each.item.kind == kinds[0])
    many = one.replace(kinds[0], products.plural(kinds[0]))
    things = [
        {"noun": each.item.kind, "color": each.item.color, "shelf": _ROW_NAMES[rows][each.row], "box": list(each.box)}
        for each in drawn.products
    ]
    return Counted(drawn.image, one, many, place, label, scanned, things)


def _stock(
    rng: np.random.Generator, items: list[shelf.Item], number: int, rows: int, places: int, asked: int | None, near: int
) -> list[list[shelf.Item | None]]:
    """The items over the places of all rows, at random; `asked`: the row of the first `number`, and of no near miss."""
    board: list[list[shelf.Item | None]] = [[None] * places for _ in range(rows)]
    free = [(r, p) for r in range(rows) for p in range(places)]
    free = [free[i] for i in rng.permutation(len(free))]
    for i, item in enumerate(items):
        if asked is None or i >= number + near:
            spot = free[0]
        else:
            spot = next(each for each in free if (each[0] == asked) == (i < number))
        free.remove(spot)
        board[spot[0]][spot[1]] = item
    return board
