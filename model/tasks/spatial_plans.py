"""What a spatial case asks, and the search for a collage where that can be asked beyond doubt.

A question (its form, hops and relation) is chosen before there is a scene, and without regard to the answer; then
scenes are arranged, not painted, until one has a way to ask it that comes to the answer that is due.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from model.tasks.collages import Item, Placed, arrange, choose_nouns
from model.tasks.scenes import COLORS
from model.tasks.spatial_chains import BACK, HOPS, RELATIONS, chains, holds, steps
from model.tasks.suite import Split

FORMS = ("true_false", "name", "colour")


@dataclass(frozen=True)
class Level:
    """Relations chained, things in the image, its longer side in pixels and aspect, a thing's part of the shorter."""

    hops: int
    things: tuple[int, int]
    canvas: tuple[int, int, float]
    side: tuple[float, float]
    repeats: bool  # some nouns come in two colours, so that things are named by both


LEVELS = {
    "easy": Level(1, (3, 5), (168, 252, 1.0), (0.14, 0.28), False),
    "medium": Level(2, (5, 7), (224, 308, 0.75), (0.11, 0.22), False),
    "hard": Level(3, (7, 10), (252, 336, 0.65), (0.1, 0.2), True),
}
LEAST_SIDE_PX = 20
_PAIRED_SHARE = 0.6  # of the things of one noun
_TWIN_SHARE = 0.85  # of the things, to have the colour of another
_ACROSS = {"left": "right", "right": "left", "left of": "right of", "right of": "left of"}
_DOWN = {"above": "below", "below": "above"}  # hops and relations alike


@dataclass(frozen=True)
class Question:
    """What is asked, before there is a scene: its form, the hops from a named thing, and a relation for true or false.

    `by_color`: things are named by colour and noun. `absent`: which named thing is not there, "base" or "other".
    """

    form: str
    hops: tuple[str, ...]
    relation: str
    by_color: bool
    absent: str

    def name(self, item: Item) -> str:
        """What a thing is called."""
        return f"{item.color} {item.noun}" if self.by_color else item.noun


def choose(rng: np.random.Generator, kind: str, level: Level) -> Question:
    """A question of a kind: a form, or "refusal", which has any form and something absent."""
    form = FORMS[int(rng.integers(len(FORMS)))] if kind == "refusal" else kind
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))] if form == "true_false" else ""
    by_relation = relation == "the same colour as"
    hops: list[str] = []
    while len(hops) < level.hops - (form == "true_false"):
        last = form == "colour" and len(hops) == level.hops - 1
        options = [
            hop for hop in HOPS
            if (not hops or BACK.get(hop) != hops[-1]) and not (hop == "twin" and (by_relation or last))
        ]  # fmt: skip
        options += 2 * [hop for hop in ("nearest", "twin") if hop in options]  # each about as often as all the sides
        hops.append(options[int(rng.integers(len(options)))])
    about_color = form == "colour" or by_relation or "twin" in hops
    by_color = level.repeats and not about_color and rng.random() < 0.5
    absent = ""
    if kind == "refusal":
        absent = "other" if form == "true_false" and rng.random() < 0.5 else "base"
    return Question(form, tuple(hops), relation, by_color, absent)


@dataclass(frozen=True)
class Scene:
    """Things all of different names at their places, and one that is not among them where the question needs one."""

    placed: tuple[Placed, ...]
    gone: Item | None

    @cached_property
    def steps(self) -> dict[str, list[int]]:
        """Where every hop leads to from each thing, as `spatial_chains.steps` says."""
        return steps(self.placed)


@dataclass(frozen=True)
class Found:
    """A way to ask a question of a scene: the two things named, those that the thinking comes to, and the answer.

    `chain` starts at `base` and is empty where that is absent; `beside` is the `other` thing where it is pointed at.
    """

    scene: Scene
    base: Item
    other: Item | None
    chain: tuple[Placed, ...]
    beside: Placed | None
    answer: str


def arrange_scene(
    rng: np.random.Generator, question: Question, level: Level, width: int, height: int, split: Split
) -> Scene:
    """A scene for a question, of things most of which share their colour with one other."""
    count = int(rng.integers(level.things[0], level.things[1] + 1)) + bool(question.absent)
    colors = rng.permutation(len(COLORS)).tolist()
    items = [
        Item(noun, COLORS[colors[i // 2 if rng.random() < _TWIN_SHARE else int(rng.integers(len(colors)))]])
        for i, noun in enumerate(choose_nouns(rng, split, count))
    ]
    if question.by_color:
        items = _paired(rng, items)
    low, high = (max(LEAST_SIDE_PX, part * min(width, height)) for part in level.side)
    gone = items.pop() if question.absent else None
    sides = [float(rng.uniform(low, high)) for _ in items]
    return Scene(tuple(arrange(rng, items, sides, width, height, split)), gone)


def _paired(rng: np.random.Generator, items: list[Item]) -> list[Item]:
    """The items in another order; some take the noun of one before them and another colour than that one."""
    items = list(items)
    for i in range(0, len(items) - 1, 2):
        if rng.random() < _PAIRED_SHARE:
            one, two = (COLORS[k] for k in rng.permutation(len(COLORS))[:2])
            items[i : i + 2] = [replace(items[i], color=one), replace(items[i], color=two)]
    return [items[i] for i in rng.permutation(len(items))]


def search(
    rng: np.random.Generator, question: Question, scene: Scene, value: int, size: tuple[int, int]
) -> Found | None:
    """A way to ask of a scene on an image of this size, or of its mirror images; the answer is what `value` says."""
    for axes in rng.permutation(4).tolist():
        across, down = bool(axes & 1), bool(axes & 2)
        swapped = {**(_ACROSS if across else {}), **(_DOWN if down else {})}
        hops = tuple(swapped.get(hop, hop) for hop in question.hops)
        relation = swapped.get(question.relation, question.relation)
        found = _find(rng, replace(question, hops=hops, relation=relation), scene, value)
        if found is not None:
            mirrors = (size[0] if across else None, size[1] if down else None)
            return replace(
                found,
                scene=replace(found.scene, placed=tuple(_mirrored(each, *mirrors) for each in found.scene.placed)),
                chain=tuple(_mirrored(each, *mirrors) for each in found.chain),
                beside=_mirrored(found.beside, *mirrors) if found.beside else None,
            )
    return None


def _mirrored(placed: Placed, width: int | None, height: int | None) -> Placed:
    """The same thing, the same way up, at the mirror image of its place; None: not along that axis."""
    x1, y1, x2, y2 = placed.box
    if width is not None:
        x1, x2 = width - x2, width - x1
    if height is not None:
        y1, y2 = height - y2, height - y1
    return replace(placed, box=(x1, y1, x2, y2))


def _find(rng: np.random.Generator, question: Question, scene: Scene, value: int) -> Found | None:
    """A way to ask, with the answer that `value` stands for; None where the scene has none."""
    if question.absent:
        return _find_refusal(rng, question, scene)
    ways = [tuple(scene.placed[i] for i in way) for way in chains(question.hops, scene.steps)]
    if question.form == "true_false":
        due = value % 2 == 0
        pairs = [
            (way, other) for way in ways for other in scene.placed
            if other not in way and holds(question.relation, way[-1], other) is due
        ]  # fmt: skip
        if not pairs:
            return None
        way, other = pairs[int(rng.integers(len(pairs)))]
        return Found(scene, way[0].item, other.item, way, other, "true" if due else "false")
    if not ways:
        return None
    way = ways[int(rng.integers(len(ways)))]
    if question.form == "colour":
        colors = {way[-1].item.color: COLORS[value], COLORS[value]: way[-1].item.color}
        scene = replace(scene, placed=tuple(_recolored(each, colors) for each in scene.placed))
        way = tuple(_recolored(each, colors) for each in way)
        return Found(scene, way[0].item, None, way, None, COLORS[value])
    return Found(scene, way[0].item, None, way, None, question.name(way[-1].item))


def _find_refusal(rng: np.random.Generator, question: Question, scene: Scene) -> Found | None:
    """A way to ask about what is not there, as the thing named first or as the other one."""
    assert scene.gone is not None, question
    answer = f"there is no {question.name(scene.gone)}"
    if question.absent == "base":
        other = scene.placed[int(rng.integers(len(scene.placed)))].item if question.form == "true_false" else None
        return Found(scene, scene.gone, other, (), None, answer)
    ways = chains(question.hops, scene.steps)
    if not ways:
        return None
    way = tuple(scene.placed[i] for i in ways[int(rng.integers(len(ways)))])
    return Found(scene, way[0].item, scene.gone, way, None, answer)


def _recolored(placed: Placed, colors: dict[str, str]) -> Placed:
    """The same with colours changed, where they are said to: drawn alike, any two may change places everywhere."""
    return replace(placed, item=replace(placed.item, color=colors.get(placed.item.color, placed.item.color)))
