"""What a counting case shows and asks, decided before anything is drawn: the number first, then what is around it.

A plan's items come in three runs: the targets that are asked for, near misses (the same noun in another colour, size or
place), and strangers. Everything but the number is drawn without regard to it, so that no word of a question tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from model.tasks.collages import Item, choose_nouns, plural
from model.tasks.matching import Box
from model.tasks.scenes import COLORS, SIZES
from model.tasks.suite import Split


@dataclass(frozen=True)
class Level:
    """How hard a collage is: the largest number asked for, what else is there, and how large all of it is.

    `near` and `strangers` are ranges of numbers of things; `canvas` is the range of the longer side in pixels and how
    far the shorter may fall below it; `side` is a thing's, as a part of the image's shorter side.
    """

    most: int
    near: tuple[int, int]
    strangers: tuple[int, int]
    nouns: int
    canvas: tuple[int, int, float]
    side: tuple[float, float]
    quarters: bool


LEVELS = {
    "easy": Level(5, (1, 2), (1, 3), 2, (196, 280, 1.0), (0.14, 0.19), True),
    "medium": Level(10, (1, 3), (2, 5), 3, (224, 308, 0.75), (0.1, 0.14), False),
    "hard": Level(20, (1, 4), (3, 6), 5, (288, 336, 0.75), (0.075, 0.105), False),
}
LEAST_SIDE_PX = 20
_LARGE = 1.8  # times a small thing, where sizes are asked for
_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """The items, the first `targets` of them asked for, and the words for it.

    `labels` are what the scan calls each target and each near miss, in the order of the items. `place` ends a question
    about a part of the image ("in the left half"), else it is empty.
    """

    one: str
    many: str
    place: str
    items: tuple[Item, ...]
    targets: int
    labels: tuple[str, ...]
    cells: int = 1  # 1 the whole image, 2 halves side by side, -2 halves one above the other, 4 quarters

    @property
    def label(self) -> str:
        """What a thing that counts is called."""
        return f"{self.one} {self.place}".strip()


def plan(rng: np.random.Generator, kind: str, number: int, level: Level, split: Split) -> Plan:
    """A plan with `number` targets for a kind of question: coarse, attribute or position."""
    near = int(rng.integers(level.near[0], level.near[1] + 1))
    strangers = int(rng.integers(level.strangers[0], level.strangers[1] + 1))
    noun, *others = choose_nouns(rng, split, 1 + int(rng.integers(1, level.nouns + 1)))
    return _PLANS[kind](rng, noun, others, (number, near, strangers), level)


_Counts = tuple[int, int, int]  # targets, near misses, strangers


def _coarse(rng: np.random.Generator, noun: str, others: list[str], counts: _Counts, level: Level) -> Plan:
    items = [Item(noun, _color(rng)) for _ in range(counts[0])]
    items += [Item(other, _color(rng)) for other in _some(rng, others, counts[1] + counts[2])]
    return Plan(noun, plural(noun), "", tuple(items), counts[0], (noun,) * counts[0])


def _attribute(rng: np.random.Generator, noun: str, others: list[str], counts: _Counts, level: Level) -> Plan:
    form = _one(rng, ("color", "color of any", "size"))
    if form == "size":
        return _sized(rng, noun, others, counts)
    color = _color(rng)
    rest = [other for other in COLORS if other != color]
    if form == "color":
        items = [Item(noun, color) for _ in range(counts[0])]
        items += [Item(noun, other) for other in _some(rng, rest, counts[1])]
        items += [Item(other, _color(rng)) for other in _some(rng, others, counts[2])]
        labels = [f"{item.color} {noun}" for item in items[: counts[0] + counts[1]]]
        return Plan(f"{color} {noun}", f"{color} {plural(noun)}", "", tuple(items), counts[0], tuple(labels))
    items = [Item(other, color) for other in _some(rng, [noun, *others], counts[0])]
    items += [Item(other, _one(rng, rest)) for other in _some(rng, [noun, *others], counts[1] + counts[2])]
    return Plan(f"{color} thing", f"{color} things", "", tuple(items), counts[0], (f"{color} thing",) * counts[0])


def _sized(rng: np.random.Generator, noun: str, others: list[str], counts: _Counts) -> Plan:
    size = _one(rng, SIZES)
    other_size = SIZES[1 - SIZES.index(size)]
    items = [Item(noun, _color(rng), size) for _ in range(counts[0])]
    items += [Item(noun, _color(rng), other_size) for _ in range(counts[1])]
    # The first stranger has the size asked for: even where nothing counts, the image shows both sizes.
    items += [
        Item(other, _color(rng), _one(rng, SIZES) if i else size)
        for i, other in enumerate(_some(rng, others, counts[2]))
    ]
    labels = [f"{item.size} {noun}" for item in items[: counts[0] + counts[1]]]
    return Plan(f"{size} {noun}", f"{size} {plural(noun)}", "", tuple(items), counts[0], tuple(labels))


_PARTS = {
    2: ("left half", "right half"),
    -2: ("top half", "bottom half"),
    4: ("top left quarter", "top right quarter", "bottom left quarter", "bottom right quarter"),
}


def _position(rng: np.random.Generator, noun: str, others: list[str], counts: _Counts, level: Level) -> Plan:
    cells = _one(rng, (2, -2, 4) if level.quarters else (2, -2))
    parts = [f"in the {part}" for part in _PARTS[cells]]
    wanted = int(rng.integers(len(parts)))
    elsewhere = [i for i in range(len(parts)) if i != wanted]
    items = [Item(noun, _color(rng), cell=wanted) for _ in range(counts[0])]
    items += [Item(noun, _color(rng), cell=_one(rng, elsewhere)) for _ in range(counts[1])]
    items += [
        Item(other, _color(rng), cell=int(rng.integers(len(parts)))) for other in _some(rng, others, counts[2])
    ]  # fmt: skip
    labels = [f"{noun} {parts[item.cell]}" for item in items[: counts[0] + counts[1]]]
    return Plan(noun, plural(noun), parts[wanted], tuple(items), counts[0], tuple(labels), cells)


_PLANS: dict[str, Callable[[np.random.Generator, str, list[str], _Counts, Level], Plan]] = {
    "coarse": _coarse, "attribute": _attribute, "position": _position,
}  # fmt: skip


def _color(rng: np.random.Generator) -> str:
    return _one(rng, COLORS)


def _one(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


def _some(rng: np.random.Generator, options: Sequence[_T], count: int) -> list[_T]:
    return [_one(rng, options) for _ in range(count)]


# ---- where and how large


def cells_of(cells: int, width: int, height: int) -> list[Box]:
    """The parts of an image of width x height pixels that a plan's cells are, in the order of their names."""
    columns, rows = {1: (1, 1), 2: (2, 1), -2: (1, 2), 4: (2, 2)}[cells]
    across, down = width / columns, height / rows
    return [(across * x, down * y, across * (x + 1), down * (y + 1)) for y in range(rows) for x in range(columns)]


def sides_of(rng: np.random.Generator, items: tuple[Item, ...], level: Level, shorter: int) -> list[float]:
    """The longer side of each item in pixels, on an image whose shorter side is given."""
    low, high = (max(LEAST_SIDE_PX, part * shorter) for part in level.side)
    spans = {"": (low, high), "small": (low, 1.08 * low), "large": (_LARGE * low, 1.08 * _LARGE * low)}
    return [float(rng.uniform(*spans[item.size])) for item in items]
