"""What is on a case's image, taken from its truth: the dense targets' source. Pixels, x to the right, y down."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..tasks import pictograms, products
from ..tasks.icons import FAMILIES
from ..tasks.lettering import extent
from ..tasks.matching import Box
from ..tasks.scenes import COLORS, SHAPES, SIZES, Thing
from ..tasks.suite import Case

TAG, STRANGER = "tag", "stranger"  # a stranger is a thing in disguise
_BADGES = tuple(name for family in ("letters", "numbers") for name in FAMILIES[family].names)
NOUNS: tuple[str, ...] = tuple(dict.fromkeys((*SHAPES, *pictograms.KINDS, *products.KINDS, *_BADGES, TAG, STRANGER)))
_NOUN_OF = {name: i for i, name in enumerate(NOUNS)}
TAG_NOUN = _NOUN_OF[TAG]
CHARACTERS = "0123456789."
UNKNOWN = -100  # a class that the truth does not tell
_PRICE = re.compile(r"[\d.]+")  # the truth has it without its sign
MOST_EXITS = 4  # of a maze's cell; more count as many
_MARK_SHARE = 0.64  # of a corridor's width: about a mark's longer side
DIRECTIONS = 16  # of a way out of a maze's cell, from the right clockwise: eight tell those of circles badly


@dataclass(frozen=True)
class Fact:
    """A thing: its box, and its classes (noun, colour, size). Of a price's tag also what is printed on it, from the
    left: where each character ends, as a share of the tag's width, and which of `CHARACTERS` it is."""

    box: Box
    noun: int
    color: int = UNKNOWN
    size: int = UNKNOWN
    print: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Line:
    """A line: points along it, a few pixels apart, and the boxes of the icons at its ends, the upper left one first."""

    points: tuple[tuple[float, float], ...]
    icons: tuple[Box, Box]


@dataclass(frozen=True)
class Facts:
    """Things; of a tangle its lines; of a maze, the middles of its cells, how many ways lead out of each, into which of
    `DIRECTIONS` one does (1) or not, the middles between neighbours: x, y, open (1) or not, and its walls, from end to
    end."""

    things: tuple[Fact, ...] = ()
    middles: tuple[tuple[float, float], ...] = ()
    degrees: tuple[int, ...] = ()
    exits: tuple[tuple[float, ...], ...] = ()
    passages: tuple[tuple[float, float, float], ...] = ()
    walls: tuple[Box, ...] = ()
    lines: tuple[Line, ...] = ()

    def with_strangers(self, kinds: Collection[str]) -> Facts:
        """The same, where things of these kinds are strangers."""
        strange = {_NOUN_OF[kind] for kind in kinds}
        things = (replace(each, noun=_NOUN_OF[STRANGER]) if each.noun in strange else each for each in self.things)
        return replace(self, things=tuple(things))

    def moved(self, dx: float, dy: float) -> Facts:
        """The same, shifted."""

        def shift(box: Box) -> Box:
            return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy

        return replace(
            self,
            things=tuple(replace(fact, box=shift(fact.box)) for fact in self.things),
            middles=tuple((x + dx, y + dy) for x, y in self.middles),
            passages=tuple((x + dx, y + dy, is_open) for x, y, is_open in self.passages),
            walls=tuple(map(shift, self.walls)),
            lines=tuple(
                Line(tuple((x + dx, y + dy) for x, y in line.points), (shift(line.icons[0]), shift(line.icons[1])))
                for line in self.lines
            ),
        )


def of_things(things: Sequence[Thing]) -> Facts:
    """The facts of a scene of the lesson "shapes"."""
    return Facts(tuple(_fact(thing.shape, thing.box, thing.color, thing.size) for thing in things))


def facts_of(case: Case) -> Facts:
    """The facts of a suite's case."""
    truth = case.truth
    if case.suite == "maze":
        return _of_maze(truth)
    if case.suite == "reading":
        return Facts(tuple(fact for product in truth["shelf"] for fact in _of_product(product, **truth["print"])))
    if case.suite == "path_tracing":
        icons = [line[end] for line in truth["lines"] for end in ("start", "end")]
        return Facts(
            tuple(_of_name(icon["name"], icon["box"]) for icon in icons),
            lines=tuple(_line(line) for line in truth["lines"]),
        )
    return Facts(
        tuple(_fact(each["noun"], each["box"], each["color"], each.get("size", "")) for each in truth["things"])
    )


def _fact(noun: str, box: Sequence[float], color: str = "", size: str = "") -> Fact:
    return Fact(
        (box[0], box[1], box[2], box[3]),
        _NOUN_OF[noun],
        COLORS.index(color) if color in COLORS else UNKNOWN,
        SIZES.index(size) if size in SIZES else UNKNOWN,
    )


def _of_name(name: str, box: Sequence[float]) -> Fact:
    """Of "letter P" or "orange bowl"."""
    color, _, noun = name.partition(" ")
    return _fact(name, box) if name in _NOUN_OF else _fact(noun, box, color)


def _of_product(product: Mapping[str, Any], font: str, cap_px: float, sign: str) -> tuple[Fact, Fact]:
    """A product, and its tag."""
    x1, y1, x2, y2 = product["tag"]
    text = product["text"]
    printed = _printed(sign.format(text), x2 - x1, font, cap_px) if _PRICE.fullmatch(text) else ()
    return _of_name(product["name"], product["box"]), Fact((x1, y1, x2, y2), TAG_NOUN, print=printed)


def _printed(price: str, width: float, font: str, cap_px: float) -> tuple[tuple[float, int], ...]:
    """Where the ink of each character of a price, its sign too, ends on a straight tag, in whose middle it stands."""
    ink = [extent(price[: k + 1], font, cap_px)[0] for k in range(len(price))]
    left = (width - ink[-1]) / 2
    kinds = [CHARACTERS.index(character) if character in CHARACTERS else UNKNOWN for character in price]
    return tuple(((left + right) / width, kind) for right, kind in zip(ink, kinds, strict=True))


def _line(line: Mapping[str, Any]) -> Line:
    one, two = sorted(((*line[end]["box"],) for end in ("start", "end")), key=sum)
    return Line(tuple((x, y) for x, y in line["points"]), (one, two))


def _of_maze(truth: Mapping[str, Any]) -> Facts:
    centres, pitch = truth["centres"], truth["pitch"]
    doors = {tuple(door) for door in truth["doors"]}
    near = {
        (a, b)
        for a, (ax, ay) in enumerate(centres)
        for b, (bx, by) in enumerate(centres[:a])
        if (ax - bx) ** 2 + (ay - by) ** 2 <= (1.3 * pitch) ** 2
    }
    degrees, exits = [0] * len(centres), [[0.0] * DIRECTIONS for _ in centres]
    for a, b in doors | {(b, a) for a, b in doors}:
        turn = math.atan2(centres[b][1] - centres[a][1], centres[b][0] - centres[a][0]) / math.tau
        exits[a][round(turn * DIRECTIONS) % DIRECTIONS] = 1.0
        degrees[a] += 1
    passages = []
    for a, b in sorted(near | {(max(door), min(door)) for door in doors}):
        (ax, ay), (bx, by) = centres[a], centres[b]
        passages.append(((ax + bx) / 2, (ay + by) / 2, float(bool(doors & {(a, b), (b, a)}))))
    marks = zip((truth["start"], truth["goal"]), truth["marks"], strict=True)
    half = _MARK_SHARE / 2 * (pitch - truth["thickness"])
    return Facts(
        tuple(
            _fact(shape, (x - half, y - half, x + half, y + half), color)
            for (x, y), shape, color in ((centres[cell], *mark) for cell, mark in marks)
        ),
        middles=tuple((x, y) for x, y in centres), degrees=tuple(min(n, MOST_EXITS) for n in degrees),
        exits=tuple(map(tuple, exits)), passages=tuple(passages),
        walls=tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in truth["walls"]),
    )  # fmt: skip
