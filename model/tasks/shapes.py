"""The lesson "shapes", the first skill: pose a question about a scene, write the reference response, judge one.

A response thinks in primitives, left to right, then answers:

    <｜ref｜>green square<｜/ref｜><｜box｜>[[12,40,210,260],[500,31,690,230]]<｜/box｜></think>2
    <｜ref｜>pink heart<｜/ref｜>none</think>0

Numbers are 0..999 of the image's width and height. The short answers, by kind of question:

    count   the number of targets, "0" when there are none
    exists  "yes" or "no"
    locate  "found 2", or "none"
    list    the number of all things on the image

Splits never meet: the generator of a case comes from (split, seed). The test split also keeps its layouts to itself:
training and validation place things freely or in a row, test places them on a grid, a circle, a diagonal or in a
cluster (`layouts.TRAINING_LAYOUTS`, `layouts.HELD_OUT_LAYOUTS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
from PIL import Image

from model.primitives import FRAME_MAX, format_boxes, parse, well_formed
from model.prompt import END_REF, END_THINK, REF
from model.tasks.layouts import HELD_OUT_LAYOUTS, TRAINING_LAYOUTS
from model.tasks.matching import Box, mean_iou
from model.tasks.scenes import COLORS, SHAPES, SIZES, Scene, Thing, draw

Kind = Literal["count", "locate", "exists", "list"]
Split = Literal["train", "validation", "test"]
KINDS: tuple[Kind, ...] = ("count", "locate", "exists", "list")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

NOTHING = "none"  # stands where the boxes would, and is the answer to "locate", when nothing was asked for

_TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "count": (
        "how many {many} are there?", "how many {many} do you see?", "how many {many} are in the image?",
        "count the {many}.", "count every {one}.", "number of {many}?",
    ),
    "locate": (
        "where is the {one}?", "where are the {many}?", "find the {one}.", "find the {many}.",
        "locate every {one}.", "point to the {one}.", "point to the {many}.", "show me all {many}.",
    ),
    "exists": (
        "is there {a_one}?", "is there {a_one} in the image?", "can you see {a_one}?",
        "are there any {many}?", "does the image show any {many}?", "do you see any {many}?",
    ),
    "list": (
        "list everything.", "list all things.", "find all things.", "find everything.",
        "what is where?", "what is in the image?",
    ),
}  # fmt: skip
_CAPITALISED_SHARE = 0.25

# Which attributes a question names, in the order of the words, and how often.
_LEVELS: tuple[tuple[str, ...], ...] = (
    (), ("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("size", "color", "shape"),
)  # fmt: skip
_LEVEL_WEIGHTS = (0.04, 0.2, 0.18, 0.28, 0.13, 0.17)
_VALUES = {"size": SIZES, "color": COLORS, "shape": SHAPES}
_ABSENT_SHARE: dict[Kind, float] = {"count": 0.25, "locate": 0.12, "exists": 0.5, "list": 0.0}
_HARD_SHARE = 0.75  # of the absent labels: share as many attributes with the scene's things as can be


@dataclass(frozen=True)
class Case:
    """A question about an image and the truth. `targets` index `things`, left to right; `label` is in the singular."""

    image: Image.Image
    question: str
    kind: Kind
    label: str
    things: tuple[Thing, ...]
    targets: tuple[int, ...]
    answer: str


@dataclass(frozen=True)
class Judgement:
    """How a response did. `mean_iou` counts a missed or a surplus box as 0 and is None when no box was due or given."""

    exact: bool
    mean_iou: float | None
    well_formed: bool
    predicted: int


# ---- posing


def scene_rng(seed: int, split: Split) -> np.random.Generator:
    """The generator of a split's scene: no two (split, seed) pairs share one."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    return np.random.default_rng(np.random.SeedSequence([SPLITS.index(split), seed]))


def layouts(split: Split) -> tuple[str, ...]:
    """The layouts of a split's scenes; test's are its own."""
    return HELD_OUT_LAYOUTS if split == "test" else TRAINING_LAYOUTS


def case(
    seed: int,
    split: Split,
    width: int,
    height: int,
    count: tuple[int, int],
    *,
    kinds: Sequence[Kind] | None = None,
    present_only: bool = False,
) -> Case:
    """The case of (split, seed): a scene of `count` things on width x height pixels and one question about it."""
    rng = scene_rng(seed, split)
    scene = draw(rng, width=width, height=height, count=count, layouts=layouts(split))
    return pose(scene, rng, kinds, present_only=present_only)


def pose(
    scene: Scene, rng: np.random.Generator, kinds: Sequence[Kind] | None = None, present_only: bool = False
) -> Case:
    """Ask one question of one of the kinds (all by default). `present_only`: about something that is on the image."""
    kinds = KINDS if kinds is None else kinds
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds must be some of {KINDS}, got {tuple(kinds)}")
    if present_only and not scene.things:
        raise ValueError("an empty scene shows nothing to ask about: draw at least one thing or drop present_only")
    kind = kinds[int(rng.integers(len(kinds)))]
    values: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    if kind != "list":
        absent = not scene.things or (not present_only and rng.random() < _ABSENT_SHARE[kind])
        attributes, values = _absent_label(scene, rng) if absent else _present_label(scene, rng, kind)
    targets = tuple(
        i
        for i in sorted(range(len(scene.things)), key=lambda i: scene.things[i].box)
        if all(getattr(scene.things[i], name) == value for name, value in zip(attributes, values, strict=True))
    )
    label = " ".join(values if "shape" in attributes else (*values, "thing"))
    template = _TEMPLATES[kind][int(rng.integers(len(_TEMPLATES[kind])))]
    article = "an" if label[0] in "aeiou" else "a"
    question = template.format(one=label, many=plural(label), a_one=f"{article} {label}")
    if rng.random() < _CAPITALISED_SHARE:
        question = question[0].upper() + question[1:]
    return Case(scene.image, question, kind, label, scene.things, targets, _answer(kind, len(targets)))


def plural(label: str) -> str:
    """The plural of a label: "red cross" -> "red crosses"."""
    return label + ("es" if label.endswith(("s", "x")) else "s")


def _answer(kind: Kind, found: int) -> str:
    if kind == "exists":
        return "yes" if found else "no"
    if kind == "locate":
        return f"found {found}" if found else NOTHING
    return str(found)


_Label = tuple[tuple[str, ...], tuple[str, ...]]  # the attributes named and their values


def _tally(scene: Scene, attributes: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """How many things carry each combination of values that occurs."""
    tally: dict[tuple[str, ...], int] = {}
    for thing in scene.things:
        values = tuple(getattr(thing, name) for name in attributes)
        tally[values] = tally.get(values, 0) + 1
    return tally


def _present_label(scene: Scene, rng: np.random.Generator, kind: Kind) -> _Label:
    """A label that selects something. Where the number matters, larger ones are preferred."""
    coarse = 0 if kind == "count" else 1  # "is there a thing?" and "find the things." ask nothing
    tallies = {level: _tally(scene, _LEVELS[level]) for level in range(coarse, len(_LEVELS))}
    if kind != "exists":
        numbers = sorted({number for level, tally in tallies.items() if level for number in tally.values()})
        # In proportion to the number: most labels of most scenes select one thing, and 1 must not be a safe guess.
        wanted = numbers[_pick(rng, numbers)]
        tallies = {
            level: chosen
            for level, tally in tallies.items()
            if (chosen := {values: number for values, number in tally.items() if number == wanted})
        }
    level = _pick_level(rng, list(tallies))
    options = list(tallies[level])
    return _LEVELS[level], options[int(rng.integers(len(options)))]


def _absent_label(scene: Scene, rng: np.random.Generator) -> _Label:
    """A label that selects nothing, mostly one whose words are true of things on the scene, but never together."""
    absent: dict[int, list[tuple[str, ...]]] = {}
    for level, attributes in enumerate(_LEVELS):
        present = _tally(scene, attributes)
        absent[level] = [values for values in _combinations(attributes) if values not in present]
    absent = {level: options for level, options in absent.items() if options}
    level = _pick_level(rng, list(absent))
    attributes, options = _LEVELS[level], absent[level]
    if rng.random() < _HARD_SHARE:
        # A shared size alone makes no near miss.
        weight = {"size": 1, "color": 2, "shape": 2}
        seen = [(weight[name], {getattr(thing, name) for thing in scene.things}) for name in attributes]
        shared = [sum(w for value, (w, s) in zip(values, seen, strict=True) if value in s) for values in options]
        most = max(shared)
        options = [values for values, number in zip(options, shared, strict=True) if number == most]
    return attributes, options[int(rng.integers(len(options)))]


def _pick_level(rng: np.random.Generator, levels: list[int]) -> int:
    return levels[_pick(rng, [_LEVEL_WEIGHTS[level] for level in levels])]


def _pick(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """An index, in proportion to its weight."""
    rest = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        rest -= weight
        if rest < 0:
            return i
    return len(weights) - 1


@cache
def _combinations(attributes: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(product(*(_VALUES[name] for name in attributes)))


# ---- the reference response


def response(case: Case) -> str:
    """Thinking in primitives, the end of thinking, and the answer."""
    width, height = case.image.size
    boxes = [frame_box(case.things[i].box, width, height) for i in case.targets]
    thinking = format_boxes(case.label, boxes) if boxes else f"{REF}{case.label}{END_REF}{NOTHING}"
    return f"{thinking}{END_THINK}{case.answer}"


def frame_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """A box in pixels of a width x height image, in the frame 0..999."""
    x1, y1, x2, y2 = box
    return (
        round(x1 / width * FRAME_MAX),
        round(y1 / height * FRAME_MAX),
        round(x2 / width * FRAME_MAX),
        round(y2 / height * FRAME_MAX),
    )


# ---- judging


def judge(case: Case, response_text: str) -> Judgement:
    """Score a response: the answer after </think> word for word, its boxes one to one, and the form of its primitives.

    A response that never ends its thinking has no answer, so is never exact; its boxes count all the same.
    """
    _, end, answer = response_text.partition(END_THINK)
    width, height = case.image.size
    scale = (width / FRAME_MAX, height / FRAME_MAX)
    predicted: list[Box] = []
    for primitive in parse(response_text):
        if primitive.kind == "box":
            x1, y1, x2, y2 = primitive.frame
            predicted.append((x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]))
    return Judgement(
        exact=bool(end) and answer.strip() == case.answer,
        mean_iou=mean_iou(predicted, [case.things[i].box for i in case.targets]),
        well_formed=well_formed(response_text),
        predicted=len(predicted),
    )
