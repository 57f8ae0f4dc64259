"""Who stands where to whom in a collage: relations that hold, fail, or are too close to call, and hops along them.

A hop leads from a thing to the one other thing that is nearest to it, nearest on one side, or of its colour. Relations
and hops are only ever asked where boxes part by margins: a person with a ruler would not come to another answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.tasks.collages import Placed

# How a hop is asked for, and how the thinking takes it.
HOPS: dict[str, tuple[str, str]] = {
    "nearest": ("the thing nearest to {}", "Nearest to it is the"),
    "left": ("the nearest thing left of {}", "Nearest left of it is the"),
    "right": ("the nearest thing right of {}", "Nearest right of it is the"),
    "above": ("the nearest thing above {}", "Nearest above it is the"),
    "below": ("the nearest thing below {}", "Nearest below it is the"),
    "twin": ("the other thing of the same colour as {}", "Of the same colour is the"),
}
# Hops that lead straight back.
BACK = {"left": "right", "right": "left", "above": "below", "below": "above", "twin": "twin"}
RELATIONS = ("left of", "right of", "above", "below", "larger than", "smaller than", "the same colour as")

Floats = NDArray[np.float64]

APART_PX = 4.0  # between two boxes, for one to be left of or above the other
NEARER = 1.1  # times as far away as the nearest thing is the next, from middle to middle
NEARER_PX = 3.0  # by which the next thing's box is farther away than the nearest thing's
LARGER = 1.35  # times the longer side, and more than that in area


def holds(relation: str, a: Placed, b: Placed) -> bool | None:
    """Whether a stands in the relation to b; None where it is too close to call."""
    if relation == "the same colour as":
        return a.item.color == b.item.color
    if relation in ("larger than", "smaller than"):
        a, b = (a, b) if relation == "larger than" else (b, a)
        return _beyond(_size(a), _size(b), LARGER)
    axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[relation]
    first, second = (a.box, b.box) if sign > 0 else (b.box, a.box)
    if first[axis + 2] + APART_PX <= second[axis]:
        return True
    return False if second[axis + 2] + APART_PX <= first[axis] else None


def _size(placed: Placed) -> tuple[float, float]:
    x1, y1, x2, y2 = placed.box
    return placed.side, math.sqrt((x2 - x1) * (y2 - y1))


def _beyond(a: tuple[float, float], b: tuple[float, float], ratio: float) -> bool | None:
    """Whether both measures of a exceed those of b by the ratio; False the other way about."""
    if a[0] >= ratio * b[0] and a[1] >= ratio * b[1]:
        return True
    return False if b[0] >= ratio * a[0] and b[1] >= ratio * a[1] else None


def steps(placed: Sequence[Placed]) -> dict[str, list[int]]:
    """For every hop the index that it leads to from each thing; -1 where it is not one thing beyond doubt."""
    boxes = np.array([each.box for each in placed])
    low, high = boxes[:, :2], boxes[:, 2:]
    apart = np.abs((low + high)[:, None] - (low + high)[None]) / 2  # [from, to, axis], middle to middle
    gap = np.maximum(0.0, np.maximum(low[:, None] - high[None], low[None] - high[:, None]))
    far, near = np.hypot(*np.moveaxis(apart, 2, 0)), np.hypot(*np.moveaxis(gap, 2, 0))
    before = high[:, None] + APART_PX <= low[None]  # [a, b, axis]: a is clearly left of b, above b
    other = ~np.eye(len(placed), dtype=bool)
    found = {"nearest": _nearest(far, near, other)}
    for hop, axis, beyond in (("left", 0, before), ("above", 1, before),
                              ("right", 0, before.swapaxes(0, 1)), ("below", 1, before.swapaxes(0, 1))):  # fmt: skip
        # Things not clearly on the other side might pass for being on this one: none of them may be nearer.
        reached = _nearest(far, near, other & ~beyond[..., axis])
        clear = beyond[reached, np.arange(len(placed)), axis]
        along = apart[np.arange(len(placed)), reached]
        found[hop] = np.where(clear & (along[:, axis] > along[:, 1 - axis]), reached, -1)
    colors = [each.item.color for each in placed]
    found["twin"] = np.array([
        next(j for j, color in enumerate(colors) if color == mine and j != i) if colors.count(mine) == 2 else -1
        for i, mine in enumerate(colors)
    ])  # fmt: skip
    return {hop: [int(i) for i in found[hop]] for hop in HOPS}


def _nearest(far: Floats, near: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of the allowed things the nearest to each, from middle to middle and from box to box, by margins; else -1."""
    rows = np.arange(len(far))
    distance = np.where(allowed, far, np.inf)
    best = distance.argmin(axis=1)
    clear = (distance >= NEARER * distance[rows, best][:, None]) & (near >= near[rows, best][:, None] + NEARER_PX)
    clear[rows, best] = True
    return np.where(np.isfinite(distance[rows, best]) & (clear | ~allowed).all(axis=1), best, -1)


def chains(hops: Sequence[str], taken: Mapping[str, Sequence[int]]) -> list[tuple[int, ...]]:
    """Every way to take the hops one after the other through things all different: the indices, from the first on.

    `taken` is what `steps` says of the scene.
    """
    found: list[tuple[int, ...]] = []
    for start in range(len(taken["nearest"])):
        chain = [start]
        for hop in hops:
            following = taken[hop][chain[-1]]
            if following < 0 or following in chain:
                break
            chain.append(following)
        else:
            found.append(tuple(chain))
    return found


def refer(name: str, hops: Sequence[str]) -> str:
    """Words for the thing at the end of the hops from a named one: "the thing nearest to the cup"."""
    words = f"the {name}"
    for hop in hops:
        words = HOPS[hop][0].format(words)
    return words
