"""A small suite for the tests of what works with any suite: black squares on grey, counted or looked for."""

from __future__ import annotations

from PIL import Image, ImageDraw

from model.primitives import format_boxes, parse
from model.prompt import END_THINK
from model.tasks.matching import Box, mean_iou
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
)  # fmt: skip

MOST = {"few": 2, "many": 4}


def _draw(seed: int, level: str, split: Split) -> Case:
    rng = rng_of("squares", level, split, seed)
    kind = ("count", "exists")[stratum(seed, 2)]
    width, height = (int(side) for side in rng.integers(100, 200, 2))
    image = Image.new("RGB", (width, height), (128, 128, 128))
    count = int(rng.integers(MOST[level] + 1)) if kind == "count" else int(rng.integers(2))
    boxes: list[Box] = []
    for number in range(count):
        left, top = 5 + 22 * number, int(rng.integers(5, height - 30))
        boxes.append((left, top, left + 18, top + 18))
        ImageDraw.Draw(image).rectangle((left, top, left + 17, top + 17), fill="black")
    question = "How many squares are there?" if kind == "count" else "Is there a square?"
    answer = str(count) if kind == "count" else "yes" if count else "no"
    thinking = format_boxes("square", [to_frame(box, image.size) for box in boxes]) if boxes else "none"
    response = f"{thinking}{END_THINK}{answer}"
    return Case("squares", level, kind, image, question, answer, response, tuple(boxes), {"seen": [width, height]})


def _judge(case: Case, response: str) -> Verdict:
    assert case.truth["seen"] == list(case.size), case
    found: list[Box] = []
    for primitive in parse(response):
        if primitive.kind == "box":
            x1, y1, x2, y2 = to_pixels(primitive.frame, case.size)
            found.append((x1, y1, x2, y2))
    overlap = mean_iou(found, case.boxes or ())
    exact = same_answer(final_answer(response), case.answer)
    boxes = 1.0 if overlap is None else overlap
    return verdict(SQUARES, response, {"answer": float(exact), "boxes": boxes}, exact=exact, iou=overlap)


SQUARES = Suite("squares", tuple(MOST), {"answer": 0.5, "boxes": 0.5}, _draw, _judge)
