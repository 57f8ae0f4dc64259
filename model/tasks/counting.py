"""The first skill, counting and locating: pose a question about a scene, write the reference response, judge one.

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
cluster (`scenes.TRAINING_LAYOUTS`, `scenes.HELD_OUT_LAYOUTS`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
from PIL import Image

from model.tasks.scenes import COLORS, HELD_OUT_LAYOUTS, SHAPES, SIZES, TRAINING_LAYOUTS, Box, Scene, Thing, draw

Kind = Literal["count", "locate", "exists", "list"]
Split = Literal["train", "validation", "test"]
KINDS: tuple[Kind, ...] = ("count", "locate", "exists", "list")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

END_OF_THINKING = "</think>"
NOTHING = "none"  # stands where the boxes would, and is the answer to "locate", when nothing was asked for
FRAME = 999  # the largest coordinate of a primitive

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
    """A question about an image and what is true. `targets` index `things`, left to right; `label` is in the singular."""

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
    if not kinds or (unknown := set(kinds) - set(KINDS)):
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
    """A label that selects something. Where the number matters each number that occurs is as likely as another."""
    coarse = 0 if kind == "count" else 1  # "is there a thing?" and "find the things." ask nothing
    tallies = {level: _tally(scene, _LEVELS[level]) for level in range(coarse, len(_LEVELS))}
    if kind != "exists":
        numbers = sorted({number for level in tallies if level for number in tallies[level].values()})
        wanted = numbers[int(rng.integers(len(numbers)))]
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
    level = _pick_level(rng, list(range(1, len(_LEVELS))))
    attributes = _LEVELS[level]
    present = _tally(scene, attributes)
    options = [values for values in _combinations(attributes) if values not in present]
    if not options:  # more kinds of things than values: all colours are there, for one
        return _absent_label(scene, rng)
    if rng.random() < _HARD_SHARE:
        seen = [{getattr(thing, name) for thing in scene.things} for name in attributes]
        shared = [sum(value in s for value, s in zip(values, seen, strict=True)) for values in options]
        most = max(shared)
        options = [values for values, number in zip(options, shared, strict=True) if number == most]
    return attributes, options[int(rng.integers(len(options)))]


def _pick_level(rng: np.random.Generator, levels: list[int]) -> int:
    weights = np.array([_LEVEL_WEIGHTS[level] for level in levels])
    return levels[int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))]


@cache
def _combinations(attributes: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(product(*(_VALUES[name] for name in attributes)))


# ---- the reference response


def response(case: Case) -> str:
    """Thinking in primitives, the end of thinking, and the answer."""
    width, height = case.image.size
    found = ",".join(frame_box(case.things[i].box, width, height) for i in case.targets)
    boxes = f"<｜box｜>[{found}]<｜/box｜>" if found else NOTHING
    return f"<｜ref｜>{case.label}<｜/ref｜>{boxes}{END_OF_THINKING}{case.answer}"


def frame_box(box: Box, width: int, height: int) -> str:
    """A box in pixels as "[x1,y1,x2,y2]" in the frame 0..999 of a width x height image."""
    x1, y1, x2, y2 = box
    numbers = (x1 / width, y1 / height, x2 / width, y2 / height)
    return "[" + ",".join(str(min(FRAME, max(0, round(number * FRAME)))) for number in numbers) + "]"


# ---- judging

_BOX_ITEM = r"\[\d{1,3},\d{1,3},\d{1,3},\d{1,3}\]"
_BOX_TAG = re.compile(rf"<｜box｜>\[({_BOX_ITEM}(?:,{_BOX_ITEM})*)\]<｜/box｜>")
_THINKING = re.compile(rf"(?:<｜ref｜>[^<>｜]+<｜/ref｜>(?:{_BOX_TAG.pattern}|{NOTHING}))*")
_EXACT_MATCHING_UP_TO = 8


def judge(case: Case, response_text: str) -> Judgement:
    """Score a response: the answer word for word, the boxes one to one, and whether every primitive is well formed."""
    thinking, end, answer = response_text.partition(END_OF_THINKING)
    well_formed = bool(end) and "｜" not in answer and _THINKING.fullmatch(thinking.strip()) is not None
    width, height = case.image.size
    predicted: list[Box] = []
    for tag in _BOX_TAG.finditer(thinking):
        for item in re.findall(_BOX_ITEM, tag[1]):
            x1, y1, x2, y2 = (int(number) / FRAME for number in item[1:-1].split(","))
            predicted.append((x1 * width, y1 * height, x2 * width, y2 * height))
    targets = [case.things[i].box for i in case.targets]
    due = max(len(predicted), len(targets))
    mean_iou = _matched_iou(predicted, targets) / due if due else None
    return Judgement(bool(end) and answer.strip() == case.answer, mean_iou, well_formed, len(predicted))


def iou(a: Box, b: Box) -> float:
    """Intersection over union; a box with no area, or turned inside out, overlaps nothing."""
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if overlap > 0 and union > 0 else 0.0


def _matched_iou(left: list[Box], right: list[Box]) -> float:
    """The largest sum of IoUs over one-to-one matchings; greedy where the exact search would take long."""
    few, many = sorted((left, right), key=len)
    table = [[iou(a, b) for b in few] for a in many]
    if len(few) > _EXACT_MATCHING_UP_TO:
        return _greedy_iou(table)
    best = {0: 0.0}  # set of matched `few`, as bits -> best sum so far
    for row in table:
        grown = dict(best)
        for taken, total in best.items():
            for j, value in enumerate(row):
                if value > 0 and not taken >> j & 1:
                    grown[taken | 1 << j] = max(grown.get(taken | 1 << j, 0.0), total + value)
        best = grown
    return max(best.values())


def _greedy_iou(table: list[list[float]]) -> float:
    pairs = sorted(((value, i, j) for i, row in enumerate(table) for j, value in enumerate(row)), reverse=True)
    rows: set[int] = set()
    columns: set[int] = set()
    total = 0.0
    for value, i, j in pairs:
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            total += value
    return total
