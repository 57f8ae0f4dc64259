"""What is wrong with how a response thinks, told by rules: the judge of the quality reward.

The paper asks a generative model; these rules look for what it looks for: thinking that repeats itself, that another
answer follows from, that contradicts itself, that names what means nothing, or that is only there to be rewarded. None
of them looks at what is true of the image: that is the suite's own verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..primitives import FRAME_MAX, Primitive, parse, split, strip
from ..prompt import BOX, END_BOX, POINT, REF
from ..tasks.matching import iou
from ..tasks.prices import cents_of
from ..tasks.reading import same_text
from ..tasks.scenes import COLORS, SIZES
from ..tasks.suite import Case, final_answer, same_answer, to_pixels
from .facts import NOUNS

HOLLOW = "thinks nothing"
MEGA = "a box around everything"
REPEATS = "says the same twice"
DISAGREES = "the thinking ends elsewhere than the answer"
CONTRADICTS = "calls one thing by two names"
MEANINGLESS = "a label that means nothing"
HACKS = (HOLLOW, MEGA)  # done for the reward alone

MEGA_SHARE = 0.9  # of the image, from which a box points at nothing
SAME_FROM = 0.8  # IoU of two boxes from which they are around one thing

_TAG = re.compile(f"{REF}|{BOX}|{POINT}")
_WORD = re.compile(r"[^\W\d_]+")
_PLACES = "thing things in on the left right top bottom middle second third half quarter shelf"
_WORDS = frozenset(_WORD.findall(" ".join((*NOUNS, *COLORS, *SIZES, _PLACES))))
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_STUTTER = re.compile(r"\b(\w+)(?:\W+\1\b){2}")
_TOTAL = re.compile(r"(\d+) in total")
_RUNNING = re.compile(rf"{END_BOX} ?(\d+)\.")
_NOTHING_LEFT = re.compile(r"(?<!\d)0 closed$")
_NO = "there is no "


@dataclass(frozen=True)
class _Thought:
    """A response in parts: what it thinks, as written, in words, and what it points at; and its answer."""

    text: str
    words: str
    primitives: tuple[Primitive, ...]
    answer: str
    answered: tuple[Primitive, ...]

    @property
    def labels(self) -> list[str]:
        """Of the tags with one, in their order."""
        firsts = {each.group: each.label for each in reversed(self.primitives)}
        return [label for _, label in sorted(firsts.items()) if label]

    @property
    def last_sentence(self) -> str:
        return _SENTENCE.split(self.words)[-1]


def faults(case: Case, response: str) -> tuple[str, ...]:
    """What is wrong, each fault once, the worst first; none for a suite's reference."""
    answer = final_answer(response)
    text = split(response)[0]
    if answer is None or not _TAG.search(text):
        return (HOLLOW,)
    each = parse(response)
    thinks, answers = (tuple(p for p in each if p.part == part) for part in ("reasoning", "answer"))
    thought = _Thought(text, strip(text), thinks, answer, answers)
    if case.suite in ("maze", "path_tracing") and not thinks:
        return (HOLLOW,)
    found = {
        MEGA: any(_is_mega(p) for p in thinks),
        REPEATS: _repeats(thought),
        DISAGREES: not _AGREES[case.suite](case, thought),
        CONTRADICTS: _contradicts(thinks),
        MEANINGLESS: any(not _is_known(label, case) for label in thought.labels),
    }
    return tuple(fault for fault, is_there in found.items() if is_there)


def _is_mega(primitive: Primitive) -> bool:
    if primitive.kind != "box":
        return False
    x1, y1, x2, y2 = primitive.frame
    return (x2 - x1) * (y2 - y1) > MEGA_SHARE * FRAME_MAX**2


def _repeats(thought: _Thought) -> bool:
    """A sentence, a whole tag, or one word three times running."""
    sentences = _SENTENCE.split(thought.text.strip())
    groups: dict[int, list[object]] = {}
    for each in thought.primitives:
        groups.setdefault(each.group, [each.kind, each.label]).append(each.frame)
    tags = [tuple(parts) for parts in groups.values()]
    # In the text as written: "fork" after each of three moves of a maze is no stutter.
    stutters = any(_STUTTER.search(part) for part in re.split(r"<[^>]*>", thought.text) if not part.startswith("["))
    return len(set(sentences)) < len(sentences) or len(set(tags)) < len(tags) or stutters


def _contradicts(primitives: Sequence[Primitive]) -> bool:
    boxes = [(each.label, each.frame) for each in primitives if each.kind == "box"]
    return any(
        a != b and iou((one[0], one[1], one[2], one[3]), (two[0], two[1], two[2], two[3])) >= SAME_FROM
        for (a, one), (b, two) in combinations(boxes, 2)
    )


def _is_known(label: str, case: Case) -> bool:
    """Whether a label names something: words of the tasks' world, the question or the answer; or what a tag says."""
    words = _WORD.findall(label.casefold())
    if len(set(words)) < len(words):
        return False
    if case.suite == "reading" and " " not in label:
        return True
    known = _WORDS | set(_WORD.findall(f"{case.question} {case.answer}".casefold()))
    return all(word in known for word in words)


# ---- whether the answer follows from the thinking


def _counting_agrees(case: Case, thought: _Thought) -> bool:
    """The tally said is the answer, and a count kept box by box runs from 1 up to it. (How many boxes there are is in
    the suite's own verdict.)"""
    said = [int(number) for number in _TOTAL.findall(thought.words)]
    running = [int(number) for number in _RUNNING.findall(thought.text)]
    if running != list(range(1, len(running) + 1)) or any(str(number) != thought.answer for number in said):
        return False
    return not running or str(running[-1]) == thought.answer


def _spatial_agrees(case: Case, thought: _Thought) -> bool:
    answer, end = thought.answer.strip().removesuffix("."), thought.last_sentence
    refused = answer.casefold().startswith(_NO)
    if refused != ("I find no " in thought.words):
        return False
    if refused:
        missing = answer[len(_NO) :]
        pointed = [each.label for each in thought.primitives]
        return missing not in pointed and missing in end
    if case.truth["form"] == "true_false":
        return same_answer(answer, "false" if " is not " in end else "true")
    if case.truth["form"] == "colour":
        return same_answer(answer, end.removesuffix(".").rpartition(" ")[2])
    return bool(thought.labels) and same_answer(answer, thought.labels[-1])


def _reading_agrees(case: Case, thought: _Thought) -> bool:
    """The last thing pointed at is the answer; a sum is that of the prices read."""
    labels = thought.labels
    if case.kind == "sum":
        prices = [cents for label in labels if (cents := cents_of(label)) is not None]
        return len(prices) == len(case.truth["tags"]) and sum(prices) == cents_of(thought.answer)
    return bool(labels) and same_text(thought.answer, labels[-1])


def _maze_agrees(case: Case, thought: _Thought) -> bool:
    """The word "goal" goes with "True" and a way between the exploration's ends; "closed", with no way left
    to take, with "False" and no way."""
    word = thought.words.rpartition(" ")[2].strip()
    if same_answer(thought.answer, "False"):
        return bool(_NOTHING_LEFT.search(thought.text.strip())) and not thought.answered
    if not same_answer(thought.answer, "True") or not word.endswith("goal") or not thought.answered:
        return False
    ends = ((thought.primitives[0], thought.answered[0]), (thought.primitives[-1], thought.answered[-1]))
    near = case.truth["pitch"] / 2
    away = [math.dist(to_pixels(a.frame[:2], case.size), to_pixels(b.frame[:2], case.size)) for a, b in ends]
    return max(away) <= near


def _path_agrees(case: Case, thought: _Thought) -> bool:
    """It starts at an icon that the question names and ends at the one that the answer names."""
    first, last = thought.primitives[0].label, thought.primitives[-1].label
    if not first or not last:
        return False
    return first.casefold() in case.question.casefold() and same_answer(thought.answer, last)


_AGREES: dict[str, Callable[[Case, _Thought], bool]] = {
    "counting": _counting_agrees, "spatial": _spatial_agrees, "reading": _reading_agrees, "maze": _maze_agrees,
    "path_tracing": _path_agrees,
}  # fmt: skip
