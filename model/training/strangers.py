"""Strangers: now and then a pictogram on a training image looks like nothing there is, and goes by a name never drawn.

A name that is only ever drawn is learnt as a look, and one that is never drawn is not learnt at all: asked for it, the
model looks for something else. So it meets things in disguise (`pictograms.disguised`), each another, under the names
of the kinds that are the test split's own: what is called by a strange name is what looks like none of the known. The
pictures that bear these names by right stay the test split's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np

from ..tasks import pictograms
from ..tasks.suite import Case

ASKED_SHARE = 0.2  # of the examples that name a pictogram in their question: one of those is a stranger
BESIDE_SHARE = 0.1  # of the examples: a stranger is there that nobody speaks of


def with_stranger(draw: Callable[[], Case], seed: int) -> tuple[Case, str, str, str | None]:
    """A case that `draw` makes, with its question and response, and which kind is in disguise, if any is.

    Deterministic in `seed`. The case is drawn again in disguise; one whose response gives away a stranger that its
    question does not name is left as it was.
    """
    case = draw()
    plain = case, case.question, case.response, None
    rng = np.random.default_rng([seed, 97])
    chance = float(rng.random())
    if chance >= ASKED_SHARE + BESIDE_SHARE:
        return plain
    named, spoken = _said(case.question), _said(case.question + case.response)
    there = {thing["noun"] for thing in case.truth.get("things", ())} & set(pictograms.TRAINING_KINDS)
    choice = sorted(named if chance < ASKED_SHARE else there - spoken)
    if not choice:
        return plain
    kind = choice[int(rng.integers(len(choice)))]
    with pictograms.disguised({kind: seed}):
        case = draw()
    if kind in _said(case.question):
        new = pictograms.HELD_OUT_KINDS[int(rng.integers(len(pictograms.HELD_OUT_KINDS)))]
        return case, _told(case.question, kind, new), _told(case.response, kind, new), kind
    return plain if kind in _said(case.response) else (case, case.question, case.response, kind)


def _said(text: str) -> set[str]:
    return {_kinds()[word] for word in _spoken().findall(text)}


def _told(text: str, old: str, new: str) -> str:
    """A text with one kind under another name."""
    forms = {old: new, pictograms.PLURALS[old]: pictograms.PLURALS[new]}
    return _spoken().sub(lambda found: forms.get(found[0], found[0]), text)


@cache
def _kinds() -> dict[str, str]:
    """The kind that each form is of, singular and plural."""
    return {form: kind for kind in pictograms.TRAINING_KINDS for form in (kind, pictograms.PLURALS[kind])}


@cache
def _spoken() -> re.Pattern[str]:
    """Any form, the longest that fits, as a whole word."""
    forms = sorted(_kinds(), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, forms))})(?![\w-])")
