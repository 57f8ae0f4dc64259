"""The reward of a response, by three heads: its format, the quality of its thinking, and its accuracy.

    format    0..1         the grammar is kept and an answer follows; less for each box around what had one already
    quality   0, 0.5 or 1  by the rules of `quality`: without a fault, with one, with more or done for the reward alone
    accuracy  0..1         the score of the suite's own verdict, whose parts are the paper's where it gives them

Accuracy already has parts for the form of a response and for its tally; the heads ask for more than those do: every
suite for an answer, near copies of boxes, thinking that leads to its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..primitives import Primitive, parse, well_formed
from ..tasks.matching import iou
from ..tasks.suite import Case, Verdict, final_answer
from ..tasks.suites import suite_of
from .quality import HACKS, SAME_FROM, faults

# The paper does not tell its own. An honest response that is wrong gets less than a right one, and of two with the same
# answer the one that shows how it came to it gets more.
WEIGHTS: Mapping[str, float] = {"format": 0.1, "quality": 0.2, "accuracy": 0.7}


@dataclass(frozen=True)
class Reward:
    """What a response earns, each head in 0..1; `faults`: why its quality is not full."""

    format: float
    quality: float
    accuracy: float
    faults: tuple[str, ...]
    verdict: Verdict

    @property
    def total(self) -> float:
        """The weighted sum, 0..1."""
        return sum(weight * float(getattr(self, head)) for head, weight in WEIGHTS.items())

    @property
    def correct(self) -> bool:
        """Whether the answer is right, and the way too where one was due."""
        return self.verdict.exact and self.verdict.path_valid is not False

    @property
    def clean(self) -> bool:
        """Whether there is nothing to be said against its form and its thinking."""
        return self.format == 1.0 and self.quality == 1.0


def reward_of(case: Case, response: str) -> Reward:
    """The reward of a response to a suite's case."""
    verdict = suite_of(case.suite).judge(case, response)
    found = faults(case, response)
    return Reward(format_reward(response), quality_reward(found), verdict.score, found, verdict)


def format_reward(response: str) -> float:
    """0 unless it is well formed with an answer after its thinking; else the share of its boxes that copy no other."""
    if not well_formed(response) or not final_answer(response):
        return 0.0
    boxes = [each for each in parse(response) if each.kind == "box"]
    copies = sum(any(_same(box, other) for other in boxes[:at]) for at, box in enumerate(boxes))
    return 1 - copies / len(boxes) if boxes else 1.0


def quality_reward(found: Sequence[str]) -> float:
    """0, 0.5 or 1 for these faults."""
    if any(fault in HACKS for fault in found):
        return 0.0
    return {0: 1.0, 1: 0.5}.get(len(found), 0.0)


def _same(a: Primitive, b: Primitive) -> bool:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.frame, b.frame
    return a.frame == b.frame or iou((ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2)) >= SAME_FROM
