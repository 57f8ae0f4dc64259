"""Ways to damage a response; and a blind reader, that sees no more than the question and the size of the image."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from PIL import Image

from model.prompt import BOX, END_BOX, END_REF, END_THINK, REF
from model.tasks.suite import Case

_ENTRY = re.compile(r"\[(\d+),(\d+),(\d+),(\d+)\]")
_TAG = re.compile("|".join((REF, END_REF, BOX, END_BOX)))


def shifted(response: str, which: int) -> str:
    """One box moved aside by more than its own width, within the frame."""
    entry = list(_ENTRY.finditer(response))[which]
    x1, y1, x2, y2 = (int(number) for number in entry.groups())
    step = x2 - x1 + 3
    move = step if x2 + step <= 999 else -step
    moved = [max(x1 + move, 0), y1, max(x2 + move, 1), y2]
    return response[: entry.start()] + f"[{','.join(map(str, moved))}]" + response[entry.end() :]


def doubled(response: str, which: int) -> str:
    """One box given twice."""
    entry = list(_ENTRY.finditer(response))[which]
    return f"{response[: entry.end()]},{entry.group()}{response[entry.end() :]}"


def without(response: str, which: int) -> str:
    """One box left out, with its tags where they held nothing else."""
    entry = list(_ENTRY.finditer(response))[which]
    before, after = response[: entry.start()], response[entry.end() :]
    if after.startswith(","):
        return before + after[1:]
    if before.endswith(","):
        return before[:-1] + after
    return before[: before.rindex(REF)] + after[after.index(END_BOX) + len(END_BOX) :]


def tag_broken(response: str, which: int) -> str:
    """One tag left out."""
    tags = list(_TAG.finditer(response))
    tag = tags[which % len(tags)]
    return response[: tag.start()] + response[tag.end() :]


def never_ending(response: str) -> str:
    """Without the end of thinking."""
    return response.replace(END_THINK, " ")


def answering(response: str, answer: str) -> str:
    """With another answer."""
    return response[: response.index(END_THINK) + len(END_THINK)] + answer


def without_pixels(case: Case) -> Case:
    """The case with an empty image of its size: thousands fit in memory."""
    return replace(case, image=Image.new("1", case.size))


def blind_score(cases: Sequence[Case]) -> tuple[float, float]:
    """How often a blind reader, taught on every second case, is right on the rest; and the commonest answer's share."""
    taught, tested = cases[::2], cases[1::2]
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    answers = Counter(case.answer for case in taught)
    for case in taught:
        seen[case.answer].update(_features(case))

    def likeliest(case: Case) -> str:
        features = _features(case)
        return max(answers, key=lambda answer: math.log(answers[answer]) + sum(
            math.log((seen[answer][feature] + 1) / (answers[answer] + 2)) for feature in features
        ))  # fmt: skip

    right = sum(likeliest(case) == case.answer for case in tested) / len(tested)
    return right, Counter(case.answer for case in tested).most_common(1)[0][1] / len(tested)


def _features(case: Case) -> set[str]:
    """The words of the question, alone and in pairs, and the size and aspect of the image, roughly."""
    words = re.findall(r"\w+", case.question.lower())
    width, height = case.size
    pairs = {f"{one} {two}" for one, two in pairwise(words)}
    return {*words, *pairs, f"w{width // 24}", f"h{height // 24}", f"r{round(4 * width / height)}"}
