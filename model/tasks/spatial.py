"""The suite "spatial": true or false, and open questions, about where things stand to each other.

    true_false  true or false: the cup is left of the key.              true, false
    name        what is the thing nearest to the cup?                   key
    colour      what colour is the thing nearest to the cup?            red
    refusal     any of these about a thing that is not there            there is no cup

The level says how many relations a question chains ("easy" one, "medium" two, "hard" three) and how much else there is.
Kinds come equally often, and so do true and false, and all colours. The thinking points at each thing it comes to:

    I find the <｜ref｜>cup<｜/ref｜><｜box｜>[[12,40,210,260]]<｜/box｜>. Nearest to it is the
        <｜ref｜>key<｜/ref｜><｜box｜>[[500,31,690,230]]<｜/box｜>. The key is red.</think>red
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from model.primitives import format_boxes, parse, well_formed
from model.prompt import END_REF, END_THINK, REF
from model.tasks.collages import Placed, canvas, paint
from model.tasks.looks import choose_look
from model.tasks.matching import Box, iou, mean_iou
from model.tasks.scenes import COLORS
from model.tasks.spatial_chains import HOPS, refer
from model.tasks.spatial_plans import LEVELS, Found, Question, arrange_scene, choose, search
from model.tasks.suite import (
    Case,
    Split,
    Suite,
    Verdict,
    final_answer,
    rng_of,
    same_answer,
    stratum,
    to_frame,
    to_pixels,
    verdict,
)

KINDS = ("true_false", "name", "colour", "refusal")

# Our own weights. `boxes`: each thing of the chain has one box with its name, and there are no others. `form`: the
# grammar is kept, thinking ends, and no box is given twice.
WEIGHTS = {"answer": 0.75, "boxes": 0.15, "form": 0.1}
FOUND_IOU = 0.5  # a box has found a thing from here on

_TEMPLATES = {
    "true_false": ("true or false: {a} is {relation} {b}.", "is it true that {a} is {relation} {b}?",
                   "{a} is {relation} {b}. true or false?"),
    "name": ("what is {a}?", "which thing is {a}?", "name {a}."),
    "colour": ("what colour is {a}?", "name the colour of {a}.", "which colour does {a} have?"),
}  # fmt: skip
_CAPITALISED_SHARE = 0.25
_SCENES = 60  # arranged in search of one where a question can be asked, before another question is tried


def draw(seed: int, level: str, split: Split) -> Case:
    """The case of (level, split, seed)."""
    rng = rng_of("spatial", level, split, seed)
    kind, value = KINDS[stratum(seed, len(KINDS))], stratum(seed // len(KINDS), len(COLORS))
    width, height = canvas(rng, *LEVELS[level].canvas)
    while True:
        question = choose(rng, kind, LEVELS[level])
        for _ in range(_SCENES):
            scene = arrange_scene(rng, question, LEVELS[level], width, height, split)
            found = search(rng, question, scene, value, (width, height))
            if found is not None:
                image = paint(rng, found.scene.placed, choose_look(rng, split), width, height)
                return _pose(rng, level, kind, question, found, image)


def _pose(
    rng: np.random.Generator, level: str, kind: str, question: Question, found: Found, image: Image.Image
) -> Case:
    """The case that asks a question in a way that was found."""
    pointed = [*found.chain, *([found.beside] if found.beside else [])]
    return Case(
        "spatial", level, kind, image, question_of(rng, question, found), found.answer,
        respond(question, found, image.size), tuple(each.box for each in pointed),
        {"names": [question.name(each.item) for each in pointed], "form": question.form, "hops": list(question.hops),
         "relation": question.relation,
         "things": [{"noun": each.item.noun, "color": each.item.color, "box": list(each.box)}
                    for each in found.scene.placed]},
    )  # fmt: skip


def question_of(rng: np.random.Generator, question: Question, found: Found) -> str:
    """The question in words, in one of several phrasings."""
    template = _TEMPLATES[question.form][int(rng.integers(len(_TEMPLATES[question.form])))]
    other = f"the {question.name(found.other)}" if found.other else ""
    words = template.format(a=refer(question.name(found.base), question.hops), b=other, relation=question.relation)
    return words[0].upper() + words[1:] if rng.random() < _CAPITALISED_SHARE else words


# ---- the reference response


def respond(question: Question, found: Found, size: tuple[int, int]) -> str:
    """Thinking that points at each thing it comes to, and the answer."""

    def point(placed: Placed) -> str:
        return format_boxes(question.name(placed.item), [to_frame(placed.box, size)])

    steps = [f"I find the {point(found.chain[0])}."] if found.chain else []
    steps += [f"{HOPS[hop][1]} {point(each)}." for hop, each in zip(question.hops, found.chain[1:], strict=False)]
    if found.beside is not None:
        steps.append(f"I find the {point(found.beside)}.")
    end = question.name(found.chain[-1].item) if found.chain else ""
    if found.answer.startswith("there is no"):
        missing = found.answer.removeprefix("there is no ")
        steps.append(f"I find no {REF}{missing}{END_REF}.")
    elif found.other is not None:
        verb = "is" if found.answer == "true" else "is not"
        steps.append(f"The {end} {verb} {question.relation} the {question.name(found.other)}.")
    elif question.form == "colour":
        steps.append(f"The {end} is {found.answer}.")
    return f"{' '.join(steps)}{END_THINK}{found.answer}"


# ---- judging


def judge(case: Case, response: str) -> Verdict:
    """Score a response to a case of this suite."""
    assert case.boxes is not None, case.question
    primitives = [each for each in parse(response) if each.kind == "box"]
    boxes: list[Box] = [to_pixels(each.frame, case.size) for each in primitives]  # type: ignore[misc]
    labels = [(each.label or "").casefold() for each in primitives]
    found = sum(
        any(label == name and iou(box, due) >= FOUND_IOU for box, label in zip(boxes, labels, strict=True))
        for due, name in zip(case.boxes, case.truth["names"], strict=True)
    )
    most = max(len(boxes), len(case.boxes))
    exact = same_answer(final_answer(response), case.answer)
    twice = len({each.frame for each in primitives}) < len(primitives)
    parts = {
        "answer": float(exact),
        "boxes": found / most if most else 1.0,
        "form": float(well_formed(response) and END_THINK in response and not twice),
    }
    return verdict(SUITE, response, parts, exact=exact, iou=mean_iou(boxes, case.boxes))


SUITE = Suite("spatial", tuple(LEVELS), WEIGHTS, draw, judge)
