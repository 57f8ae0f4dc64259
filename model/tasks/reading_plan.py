"""What a case of "reading" asks before it is drawn: levels, products with their prices and labels, the answer.

What the answer is comes from the seed alone, so that over any run of seeds the digits of prices and the places, kinds
and colours of what is asked for balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.tasks import products
from model.tasks.labels import draw_labels
from model.tasks.prices import cents_of, written
from model.tasks.products import COLORS
from model.tasks.shelf import Item
from model.tasks.suite import Split, stratum

Kind = Literal["price", "label", "cheapest", "dearest", "which", "sum"]

_SIGNS = ("{}", "{}", "${}", "€{}", "£{}", "{} €")


@dataclass(frozen=True)
class Level:
    """What makes a level hard. Ranges include both ends.

    `stocks` are (rows, places a row, products); `near` is the chance that a price begins like another one on the shelf,
    `alike` that a product has the kind or the colour of another one.
    """

    kinds: tuple[Kind, ...]
    cells: tuple[int, int]  # the image's sides, in cells of CELL_PX
    stocks: tuple[tuple[int, int, int], ...]
    cap_px: tuple[int, int]
    askew: float  # degrees
    digits: tuple[int, ...]  # of a price
    longest: int  # label, in characters
    goods: bool  # pictograms of goods too, not only the products of our own drawing
    two_lines: float  # share of the shelves whose tags show a label and a price
    near: float
    alike: float


CELL_PX = 42  # one image token of the checkpoint's: at its multiples a picture is read at its own pixels
LEVELS = {
    "easy": Level(
        kinds=("price", "label", "cheapest", "dearest"), cells=(4, 6), stocks=((1, 2, 2), (1, 3, 3), (2, 2, 4)),
        cap_px=(12, 15), askew=0.0, digits=(3,), longest=5, goods=False, two_lines=0.0, near=0.0, alike=0.3,
    ),
    "medium": Level(
        kinds=("price", "label", "cheapest", "dearest", "which"), cells=(5, 7),
        stocks=((2, 2, 4), (2, 3, 5), (2, 3, 6)),
        cap_px=(9, 12), askew=2.0, digits=(3, 4), longest=6, goods=True, two_lines=0.3, near=0.3, alike=0.6,
    ),
    "hard": Level(
        kinds=("price", "label", "cheapest", "dearest", "which", "sum"), cells=(6, 8),
        stocks=((2, 3, 6), (2, 4, 8), (3, 3, 8), (3, 3, 9)),
        cap_px=(7, 9), askew=4.0, digits=(4,), longest=7, goods=True, two_lines=0.5, near=0.6, alike=0.8,
    ),
}  # fmt: skip
_LEAST_CENTS = 100  # of a part of a sum
_FAR = 1_000_000  # rounds, between two orders of a balanced choice
_MOST_CALLS = 32
_MOST_PARTS = 8


@dataclass(frozen=True)
class Plan:
    """A question before it is drawn: items in reading order, and which of them it is about (one, or two for a sum)."""

    kind: Kind
    rows: int
    places: int
    items: tuple[Item, ...]
    targets: tuple[int, ...]
    prices: tuple[str, ...]  # without the sign
    sign: str  # how a price is written on a tag

    @property
    def texts(self) -> tuple[str, ...]:
        """What is read off each tag: its label where the question is about one, else its price without the sign."""
        return tuple(item.label or "" for item in self.items) if self.kind == "label" else self.prices

    @property
    def answer(self) -> str:
        """The short answer."""
        if self.kind == "sum":
            return written(sum(cents_of(self.prices[i]) or 0 for i in self.targets))
        target = self.targets[0]
        return self.texts[target] if self.kind in ("price", "label") else self.items[target].name


class _Turn:
    """A seed's place among the seeds that ask its kind of question: what is taken from it balances over these.

    Orders are numbered by the parts gone through and the calls made, so that no two choices follow the same one.
    """

    def __init__(self, seed: int) -> None:
        self._turn, self._parts, self._calls = seed, 1, 0

    def even(self, choices: int) -> int:
        """One of `choices`."""
        self._calls += 1
        order = self._parts * _MOST_CALLS + self._calls
        return stratum(self._turn + choices * _FAR * order, choices)

    def part(self, choices: int) -> int:
        """One of `choices`; what is taken later balances over the turns that went the same way."""
        assert choices < _MOST_PARTS, choices
        chosen = self.even(choices)
        self._turn, self._parts = self._turn // choices, self._parts * _MOST_PARTS + chosen
        return chosen


def plan(rng: np.random.Generator, seed: int, level: Level, split: Split) -> Plan:
    """The question of a seed and what it is about."""
    turn = _Turn(seed)
    kind = level.kinds[turn.part(len(level.kinds))]
    rows, places, n = level.stocks[turn.part(len(level.stocks))]
    target = turn.even(n)
    second = (target + 1 + int(rng.integers(n - 1))) % n
    targets = (target, second) if kind == "sum" else (target,)
    names = _names(rng, level, split, turn, n, target)
    prices = [written(price) for price in _cents(rng, level, kind, turn, n, targets)]
    labels = draw_labels(rng, n, level.longest, split)
    both = rng.random() < level.two_lines
    sign = _SIGNS[int(rng.integers(len(_SIGNS)))]
    items = [
        Item(
            noun, color,
            price=sign.format(price) if both or kind != "label" else None,
            label=label if both or kind == "label" else None,
        )
        for (color, noun), price, label in zip(names, prices, labels, strict=True)
    ]  # fmt: skip
    return Plan(kind, rows, places, tuple(items), targets, tuple(prices), sign)


def _names(
    rng: np.random.Generator, level: Level, split: Split, turn: _Turn, n: int, target: int
) -> list[tuple[str, str]]:
    """Colours and kinds of n products, all different."""
    stock = products.kinds(split) if level.goods else products.OWN_KINDS
    drawn: list[tuple[int, int]] = []
    while len(drawn) < n:
        color, kind = int(rng.integers(len(COLORS))), int(rng.integers(len(stock)))
        if drawn and rng.random() < level.alike:
            other = drawn[int(rng.integers(len(drawn)))]
            color, kind = (other[0], kind) if rng.random() < 0.5 else (color, other[1])
        if (color, kind) not in drawn:
            drawn.append((color, kind))
    # All names turn by one step, which brings the target's to where the seed wants it: nothing sets it apart.
    steps = turn.even(len(COLORS)) - drawn[target][0], turn.even(len(stock)) - drawn[target][1]
    return [(COLORS[(color + steps[0]) % len(COLORS)], stock[(kind + steps[1]) % len(stock)]) for color, kind in drawn]


def _cents(
    rng: np.random.Generator, level: Level, kind: Kind, turn: _Turn, n: int, targets: Sequence[int]
) -> list[int]:
    """Prices of n products in cents, those of the targets as the question wants them."""
    bases = [9, *(10 for _ in range(level.digits[turn.part(len(level.digits))] - 1))]  # no price begins with 0
    drawn: list[list[int]] = []
    while len(drawn) < n:
        digits = [int(rng.integers(base)) for base in bases]
        if drawn and rng.random() < level.near:
            kept = int(rng.integers(1, len(bases)))
            digits[:kept] = drawn[int(rng.integers(len(drawn)))][:kept]
        if digits not in drawn:
            drawn.append(digits)
    wanted = [turn.even(base) for base in bases]
    target = targets[0]
    if kind in ("cheapest", "dearest"):
        least = (min if kind == "cheapest" else max)(range(n), key=drawn.__getitem__)
        drawn[target], drawn[least] = drawn[least], drawn[target]
    else:  # as with the names, digit by digit
        steps = [due - digit for due, digit in zip(wanted, drawn[target], strict=True)]
        drawn = [[(d + s) % base for d, s, base in zip(digits, steps, bases, strict=True)] for digits in drawn]
    cents = [int("".join(map(str, [digits[0] + 1, *digits[1:]]))) for digits in drawn]
    if kind == "sum":  # the sum is what has been wanted so far
        total, second = cents[target], targets[1]
        cents[target] = int(rng.integers(_LEAST_CENTS, total - _LEAST_CENTS + 1))
        cents[second] = total - cents[target]
    return cents
