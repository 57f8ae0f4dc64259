"""The suite "reading": prices and labels on a shelf. What does a thing cost, what is cheapest, what does a label say.

A response points at the product and at its tag, whose label is what stands there, and answers:

    <｜ref｜>red jar<｜/ref｜><｜box｜>[[12,40,210,260]]<｜/box｜>
    <｜ref｜>3.50<｜/ref｜><｜box｜>[[20,270,180,320]]<｜/box｜></think>3.50

(on one line). For the cheapest and the dearest it reads every tag first, in reading order, and ends on the product:

    price     the price of a product             label  what the label under a product says
    cheapest  the product that costs the least   which  the product that costs what the question says
    dearest   the product that costs the most    sum    what two products cost together

Prices are written without their sign. What the answer is comes from the seed before anything is drawn, so that digits,
places, kinds and colours balance; the image's size follows the font, never the text.

The weights are ours. The answer is worth half; pointing at the products asked for and at the tags to read, as mean IoU,
0.15 each; reading each tag right, where it hangs, 0.1; form 0.1: well formed, thinking ended, no box given twice. A box
is a product's when its label is the name of a product on the shelf; any other is a tag's, its label what was read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from model.primitives import format_boxes, parse, well_formed
from model.prompt import END_THINK
from model.tasks.labels import widest_labels
from model.tasks.lettering import fonts, widest
from model.tasks.matching import Box, iou, mean_iou
from model.tasks.prices import cents_of
from model.tasks.reading_plan import CELL_PX, LEVELS, Kind, Level, Plan, plan
from model.tasks.shelf import TAG_MARGIN_PX, Item, Lettering, Shelf
from model.tasks.shelf import draw as draw_shelf
from model.tasks.suite import Case, Split, Suite, Verdict, final_answer, rng_of, same_answer, to_frame, verdict

_TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "price": (
        "what does the {one} cost?", "how much is the {one}?", "what is the price of the {one}?",
        "how much does the {one} cost?", "read the price of the {one}.",
    ),
    "label": (
        "what does the label under the {one} say?", "what is written under the {one}?", "read the label of the {one}.",
        "what does the {one}'s label say?",
    ),
    "cheapest": (
        "which product is the cheapest?", "what costs the least?", "name the cheapest product.", "what is cheapest?",
    ),
    "dearest": (
        "which product is the most expensive?", "what costs the most?", "name the dearest product.",
        "what is most expensive?",
    ),
    "which": (
        "which product costs {price}?", "what costs {price}?", "what is sold for {price}?",
        "find the product that costs {price}.",
    ),
    "sum": (
        "how much do the {one} and the {two} cost together?", "what do the {one} and the {two} cost together?",
        "what is the price of the {one} and the {two} together?", "add up the prices of the {one} and the {two}.",
    ),
}  # fmt: skip

WEIGHTS = {"answer": 0.5, "product": 0.15, "tag": 0.15, "reading": 0.1, "form": 0.1}
_PRODUCT_PX = 36  # the least height a row leaves for its products
_READ_FROM = 0.3  # least IoU with a tag at which a box says what stands there
_TWICE_FROM = 0.8  # IoU of two boxes from which one repeats the other; products and tags never touch

_Labelled = Sequence[tuple[str, Box]]


# ---- how it is drawn


@cache
def _text_px(font: str, cap_px: int, sign: str, digits: int, longest: int, split: Split) -> int:
    """The width in pixels that any price or label of a level takes: an image must not tell by its size what it says."""
    prices = [sign.format(f"{digit * (digits - 2)}.{digit * 2}") for digit in "0123456789"]
    return widest([*prices, *widest_labels(longest, split)], font, cap_px)


def _lettering_and_size(
    rng: np.random.Generator, level: Level, a_plan: Plan, split: Split
) -> tuple[Lettering, int, int]:
    """A font in the largest print, up to one drawn from the level's, that an image of the level has room for, and the
    image's width and height in pixels."""
    choice, (low, high) = fonts(split), level.cells
    font = choice[int(rng.integers(len(choice)))]
    for cap_px in range(int(rng.integers(level.cap_px[0], level.cap_px[1] + 1)), level.cap_px[0] - 1, -1):
        lettering = Lettering(font, cap_px, level.askew)
        tall = lettering.tag_height(max(len(item.lines) for item in a_plan.items))
        text = _text_px(font, cap_px, a_plan.sign, max(level.digits), level.longest, split)
        wide = text + 2 * TAG_MARGIN_PX + math.ceil(tall * math.sin(math.radians(level.askew))) + 4
        columns = max(low, math.ceil(a_plan.places * wide / CELL_PX))
        lines = max(low, math.ceil(a_plan.rows * (tall + _PRODUCT_PX) / CELL_PX))
        if columns <= high and lines <= high:
            width, height = (int(rng.integers(least, high + 1)) * CELL_PX for least in (columns, lines))
            return lettering, width, height
    raise AssertionError((font, level, a_plan))


def draw(seed: int, level: str, split: Split) -> Case:
    """The case of (level, split, seed)."""
    rng = rng_of("reading", level, split, seed)
    of_level = LEVELS[level]
    a_plan = plan(rng, seed, of_level, split)
    lettering, width, height = _lettering_and_size(rng, of_level, a_plan, split)
    slots: list[Item | None] = [None] * (a_plan.rows * a_plan.places)
    for slot, item in zip(sorted(rng.permutation(len(slots))[: len(a_plan.items)].tolist()), a_plan.items, strict=True):
        slots[slot] = item
    stocked = [slots[row * a_plan.places : (row + 1) * a_plan.places] for row in range(a_plan.rows)]
    a_shelf = draw_shelf(rng, stocked, width, height, split, lettering)
    templates = _TEMPLATES[a_plan.kind]
    return _case(a_plan, a_shelf, lettering, level, templates[int(rng.integers(len(templates)))])


def _case(a_plan: Plan, a_shelf: Shelf, lettering: Lettering, level: str, template: str) -> Case:
    """The case that a drawn plan makes."""
    names, size = [item.name for item in a_plan.items], a_shelf.image.size
    one, two = a_plan.targets[0], a_plan.targets[-1]
    read = tuple(range(len(names))) if a_plan.kind in ("cheapest", "dearest") else a_plan.targets
    boxes = [product.box for product in a_shelf.products]
    tags = [product.tag for product in a_shelf.products if product.tag is not None]
    assert len(boxes) == len(tags) == len(names), (boxes, tags, names)
    found = {i: format_boxes(names[i], [to_frame(boxes[i], size)]) for i in a_plan.targets}
    shown = {i: format_boxes(a_plan.texts[i], [to_frame(tags[i], size)]) for i in read}
    if a_plan.kind in ("price", "label", "sum"):
        thinking = "".join(found[i] + shown[i] for i in a_plan.targets)
    else:
        thinking = "".join([*shown.values(), *found.values()])
    return Case(
        "reading", level, a_plan.kind, a_shelf.image,
        question=template.format(one=names[one], two=names[two], price=a_plan.prices[one]),
        answer=a_plan.answer,
        response=f"{thinking}{END_THINK}{a_plan.answer}",
        boxes=tuple([boxes[i] for i in a_plan.targets] + [tags[i] for i in read]),
        truth={
            "shelf": [
                {"name": name, "box": list(box), "text": text, "tag": list(tag)}
                for name, box, text, tag in zip(names, boxes, a_plan.texts, tags, strict=True)
            ],
            "products": list(a_plan.targets),
            "tags": list(read),
            "print": {"font": lettering.font, "cap_px": lettering.cap_px, "sign": a_plan.sign},
        },
    )  # fmt: skip


# ---- judging


def same_text(given: str | None, due: str) -> bool:
    """Whether two readings agree: as prices where both are, else as words."""
    price = cents_of(due)
    return same_answer(given, due) if price is None else given is not None and cents_of(given) == price


def judge(case: Case, response: str) -> Verdict:
    """Score a response; boxes are compared in the frame, where the reference's are exact."""
    boxes = [(p.label or "", _floats(p.frame)) for p in parse(response) if p.kind == "box"]
    shelf = case.truth["shelf"]
    names = {_plain(product["name"]) for product in shelf}
    products = [(_plain(label), box) for label, box in boxes if _plain(label) in names]
    tags = [(label, box) for label, box in boxes if _plain(label) not in names]
    due_products = [
        (_plain(shelf[i]["name"]), _floats(to_frame(shelf[i]["box"], case.size))) for i in case.truth["products"]
    ]
    due_tags = [(shelf[i]["text"], _floats(to_frame(shelf[i]["tag"], case.size))) for i in case.truth["tags"]]
    right = same_text(final_answer(response), case.answer)
    parts = {
        "answer": float(right),
        "product": _named_iou(products, due_products),
        "tag": mean_iou([box for _, box in tags], [box for _, box in due_tags]) or 0.0,
        "reading": _reading(tags, due_tags),
        "form": float(well_formed(response) and END_THINK in response and not _repeats([box for _, box in boxes])),
    }
    overall = mean_iou([box for _, box in boxes], [box for _, box in (*due_products, *due_tags)])
    return verdict(SUITE, response, parts, exact=right, iou=overall)


def _named_iou(given: _Labelled, due: _Labelled) -> float:
    """Mean IoU where a box counts for the product of its name alone; missed and surplus boxes count as 0."""
    total = 0.0
    for name in {name for name, _ in due}:
        ours, theirs = ([box for label, box in group if label == name] for group in (given, due))
        total += (mean_iou(ours, theirs) or 0.0) * max(len(ours), len(theirs))
    return total / max(len(given), len(due))


def _reading(given: _Labelled, due: _Labelled) -> float:
    """The share of the tags that a box lies on and whose text is its label; surplus boxes count as misread."""
    read = sum(any(iou(at, box) >= _READ_FROM and same_text(label, text) for label, at in given) for text, box in due)
    return read / max(len(given), len(due))


def _repeats(boxes: Sequence[Box]) -> bool:
    return any(iou(a, b) >= _TWICE_FROM for i, a in enumerate(boxes) for b in boxes[:i])


def _plain(name: str) -> str:
    return name.strip().casefold()


def _floats(frame: Sequence[int]) -> Box:
    x1, y1, x2, y2 = frame
    return (float(x1), float(y1), float(x2), float(y2))


SUITE = Suite("reading", tuple(LEVELS), WEIGHTS, draw, judge)
