"""The judge of cases that belong to no suite: is the short answer one of those accepted, and where are its boxes?"""

from __future__ import annotations

import re

from model.primitives import parse
from model.tasks.matching import Box, mean_iou
from model.tasks.suite import Case, Split, Suite, Verdict, final_answer, to_pixels, verdict

ACCEPTED = "accepted"  # in a case's truth: a list of further answers that are right

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


def number_in(answer: str) -> float | None:
    """The number that an answer is, if it is nothing else: "3", "3.", "1,200"; None for "three" and "3 cats"."""
    text = answer.strip().removesuffix(".")
    return float(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


def same(given: str | None, due: str) -> bool:
    """Equal as numbers, or as words whatever their case, their spaces and a closing full stop."""
    if given is None:
        return False
    number = number_in(given)
    if number is not None and number == number_in(due):
        return True
    return _plain(given) == _plain(due)


def judge(case: Case, response: str) -> Verdict:
    """Full marks for an answer that is the case's or one of `truth["accepted"]`; the boxes' IoU is only reported.

    The boxes that count are those of the answer, or, when it has none, those of the thinking.
    """
    due = (case.answer, *case.truth.get(ACCEPTED, ()))
    exact = any(same(final_answer(response), one) for one in due)
    overlap = None if case.boxes is None else mean_iou(_boxes(case, response), case.boxes)
    return verdict(GENERAL, response, {"answer": float(exact)}, exact=exact, iou=overlap)


def _boxes(case: Case, response: str) -> list[Box]:
    boxes = [found for found in parse(response) if found.kind == "box" and found.valid]
    part = "answer" if any(box.part == "answer" for box in boxes) else "reasoning"
    pixels = (to_pixels(box.frame, case.size) for box in boxes if box.part == part)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in pixels]


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").casefold()


def _draw(seed: int, level: str, split: Split) -> Case:
    raise ValueError("general cases come from files: there is nothing to draw them from")


GENERAL = Suite("general", ("given",), {"answer": 1.0}, _draw, judge)
