"""The suite "counting": how many of something there are, with a box around each.

Levels: "shapes" draws scenes and count questions as the lesson `shapes` does, in its form of response; "easy", "medium"
and "hard" draw collages and shelves with up to 5, 10 and 20 things to count, every number from 0 on as often as any
other, for each kind of question:

    coarse     how many cups are there?
    attribute  how many red cups, large cups, red things are there?
    position   how many cups are in the left half?
    shelf      how many red bottles are on the shelf? how many cans are on the top shelf?

The thinking of a coarse question says what it looks for, boxes all of it at once and tallies; that of the others (fine)
scans what might count one by one and names each for what it is: in lines of 84 pixels, a shelf board by board. A box
counts towards the answer when its label is the one asked for, or when it has none:

    I look for cups. <｜ref｜>cup<｜/ref｜><｜box｜>[[12,40,210,260],[500,31,690,230]]<｜/box｜> 2 in total.</think>2
    I look for red cups. <｜ref｜>red cup<｜/ref｜><｜box｜>[[12,40,210,260]]<｜/box｜> 1.
        <｜ref｜>blue cup<｜/ref｜><｜box｜>[[500,31,690,230]]<｜/box｜> no. 1 in total.</think>1
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from model.primitives import Primitive, format_boxes, parse, well_formed
from model.prompt import END_REF, END_THINK, REF
from model.tasks import counting_shelves, scenes, shapes
from model.tasks.collages import arrange, canvas, paint
from model.tasks.counting_plans import LEVELS, cells_of, plan, sides_of
from model.tasks.counting_shelves import Counted
from model.tasks.looks import choose_look
from model.tasks.matching import Box, hits, mean_iou
from model.tasks.suite import (
    Case,
    Split,
    Suite,
    Verdict,
    final_answer,
    rng_of,
    stratum,
    to_frame,
    to_pixels,
    verdict,
)

KINDS = ("coarse", "attribute", "position", "shelf")

# Our own weights; 0.7 and the curve of the count are the paper's. `tally`: there are as many boxes as the answer says.
# `form`: the grammar is kept, thinking ends, and no box is given twice.
WEIGHTS = {"count": 0.7, "boxes": 0.15, "tally": 0.05, "form": 0.1}
FOUND_IOU = 0.5  # a box has found a thing from here on

# The lesson's scenes: squares at, below and above what the default checkpoint sees at once, and common photo shapes.
_SHAPES_CANVASES = ((168, 168), (252, 252), (320, 240), (240, 320), (300, 200), (200, 300), (320, 180))
_SHAPES_COUNT = (1, 6)

_TEMPLATES = (
    "how many {many}{verb}{place}?", "how many {many} do you see{place}?", "count the {many}{place}.",
    "count every {one}{place}.", "number of {many}{place}?",
)  # fmt: skip
_CAPITALISED_SHARE = 0.25
_LINE = 84  # pixels: about what two rows of image tokens show, which are read column by column
_Scanned = tuple[str, Box]
_INTEGER = re.compile(r"\d+")


def draw(seed: int, level: str, split: Split) -> Case:
    """The case of (level, split, seed)."""
    rng = rng_of("counting", level, split, seed)
    if level == "shapes":
        return _draw_shapes(rng, split)
    most = LEVELS[level].most
    kind, number = divmod(stratum(seed, len(KINDS) * (most + 1)), most + 1)
    if KINDS[kind] == "shelf":
        return _draw_shelf(rng, level, number, split)
    return _draw_collage(rng, level, KINDS[kind], number, split)


def _draw_shapes(rng: np.random.Generator, split: Split) -> Case:
    width, height = _SHAPES_CANVASES[int(rng.integers(len(_SHAPES_CANVASES)))]
    scene = scenes.draw(rng, width=width, height=height, count=_SHAPES_COUNT, layouts=shapes.layouts(split))
    posed = shapes.pose(scene, rng, ["count"])
    boxes = tuple(posed.things[i].box for i in posed.targets)
    return Case(
        "counting", "shapes", "count", scene.image, posed.question, posed.answer, shapes.response(posed), boxes,
        {"label": posed.label, "plural": shapes.plural(posed.label),
         "things": [_thing(each.shape, each.color, each.size, each.box) for each in posed.things]},
    )  # fmt: skip


def _draw_collage(rng: np.random.Generator, level: str, kind: str, number: int, split: Split) -> Case:
    """A collage with `number` things to count."""
    bounds = LEVELS[level]
    width, height = canvas(rng, *bounds.canvas)
    asked = plan(rng, kind, number, bounds, split)
    sides = sides_of(rng, asked.items, bounds, min(width, height))
    placed = arrange(rng, asked.items, sides, width, height, split, cells_of(asked.cells, width, height))
    image = paint(rng, placed, choose_look(rng, split), width, height)
    scanned = tuple((label, each.box) for label, each in zip(asked.labels, placed, strict=False))
    things = [_thing(each.item.noun, each.item.color, each.item.size, each.box) for each in placed]
    return _pose(rng, level, kind, Counted(image, asked.one, asked.many, asked.place, asked.label, scanned, things))


def _draw_shelf(rng: np.random.Generator, level: str, number: int, split: Split) -> Case:
    """A shelf with `number` products to count."""
    return _pose(rng, level, "shelf", counting_shelves.draw(rng, number, counting_shelves.LEVELS[level], split))


def _pose(rng: np.random.Generator, level: str, kind: str, counted: Counted) -> Case:
    """The case that asks for what counts in an image."""
    boxes = tuple(sorted(box for name, box in counted.scanned if name == counted.label))
    many = f"{counted.many} {counted.place}".strip()
    question = question_of(rng, counted.one, counted.many, counted.place)
    scanned = counted.scanned if kind == "shelf" else _line_by_line(counted.scanned)
    return Case(
        "counting", level, kind, counted.image, question, str(len(boxes)),
        respond(kind, many, counted.label, scanned, counted.image.size), boxes,
        {"label": counted.label, "plural": many if counted.label.endswith(counted.place) else counted.many,
         "things": counted.things},
    )  # fmt: skip


def _thing(noun: str, color: str, size: str, box: Box) -> dict[str, Any]:
    return {"noun": noun, "color": color, "size": size, "box": list(box)}


def question_of(rng: np.random.Generator, one: str, many: str, place: str) -> str:
    """How many of a thing there are, in one of several phrasings; `place` is "in the left half" or empty."""
    template = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))]
    place = f" {place}" if place else ""
    question = template.format(one=one, many=many, place=place, verb=" are" if place else " are there")
    return question[0].upper() + question[1:] if rng.random() < _CAPITALISED_SHARE else question


# ---- the reference response


def _line_by_line(scanned: Sequence[_Scanned]) -> list[_Scanned]:
    """As a page is read: what has its centre in one line, from the left, before the line below.

    The image's tokens come in nearly this order, so that what is next is the next such token. From left to right over
    the whole image, things near in x were passed over: one in four where others are near, one in nine where none is.
    """
    return sorted(scanned, key=lambda each: ((each[1][1] + each[1][3]) / 2 // _LINE, each[1][0] + each[1][2]))


def respond(kind: str, many: str, label: str, scanned: Sequence[_Scanned], size: tuple[int, int]) -> str:
    """Thinking and answer. `scanned`: what might count, in order, as (what it is called, its box in pixels)."""
    ordered = [(name, to_frame(box, size)) for name, box in scanned]
    found = sum(name == label for name, _ in ordered)
    if not ordered:
        steps = [f"{REF}{label}{END_REF}none."]
    elif kind == "coarse":
        steps = [format_boxes(label, [frame for _, frame in ordered])]
    else:
        steps, counted = [], 0
        for name, frame in ordered:
            counted += name == label
            steps.append(f"{format_boxes(name, [frame])} {f'{counted}.' if name == label else 'no.'}")
    return f"I look for {many}. {' '.join(steps)} {found} in total.{END_THINK}{found}"


# ---- judging


def judge(case: Case, response: str) -> Verdict:
    """Score a response to a case of this suite."""
    assert case.boxes is not None, case.question
    primitives = parse(response)
    counted = [each for each in primitives if _counts(each, case)]
    boxes: list[Box] = [to_pixels(each.frame, case.size) for each in counted]  # type: ignore[misc]
    due = max(len(boxes), len(case.boxes))
    answer, gold = _number(final_answer(response)), int(case.answer)
    twice = len({each.frame for each in primitives}) < len(primitives)
    parts = {
        "count": 0.0 if answer is None else math.exp(-3 * abs(answer - gold) / (gold + 1)),
        "boxes": hits(boxes, case.boxes, FOUND_IOU) / due if due else 1.0,
        "tally": float(answer == len(boxes)),
        "form": float(well_formed(response) and END_THINK in response and not twice),
    }
    return verdict(SUITE, response, parts, exact=answer == gold, iou=mean_iou(boxes, case.boxes))


def _counts(primitive: Primitive, case: Case) -> bool:
    """Whether a primitive is a box around something that the response counts."""
    named = primitive.label is None or primitive.label.casefold() in (case.truth["label"], case.truth["plural"])
    return primitive.kind == "box" and named


def _number(answer: str | None) -> int | None:
    """The one number of an answer; None where there is none, or several."""
    numbers = _INTEGER.findall(answer or "")
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < 10 else None


SUITE = Suite("counting", ("shapes", *LEVELS), WEIGHTS, draw, judge)
