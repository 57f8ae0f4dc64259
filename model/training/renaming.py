"""Renaming: now and then a thing on a training image goes by a name that no training picture bears.

A name that is only ever drawn is learnt as a look, and one that is never drawn is not learnt at all: asked for it, the
model looks for something else. So it hears such names too, of things that it knows by another, and learns to take a
name from the question as it stands. The pictures that bear these names stay the test split's own.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from ..tasks import pictograms

SHARE = 0.12  # of the examples that name a pictogram in their question


def renamed(question: str, response: str, seed: int) -> tuple[str, str]:
    """Question and response as they are, or with one pictogram of the question under another name in both.

    Deterministic in `seed`.
    """
    rng = np.random.default_rng([seed, 97])
    if rng.random() >= SHARE:
        return question, response
    named = sorted({_kinds()[word] for word in _spoken().findall(question)})
    if not named:
        return question, response
    old = named[int(rng.integers(len(named)))]
    new = pictograms.HELD_OUT_KINDS[int(rng.integers(len(pictograms.HELD_OUT_KINDS)))]
    forms = {old: new, pictograms.PLURALS[old]: pictograms.PLURALS[new]}

    def told(text: str) -> str:
        return _spoken().sub(lambda found: forms.get(found[0], found[0]), text)

    return told(question), told(response)


@cache
def _kinds() -> dict[str, str]:
    """The kind that each form is of, singular and plural."""
    return {form: kind for kind in pictograms.TRAINING_KINDS for form in (kind, pictograms.PLURALS[kind])}


@cache
def _spoken() -> re.Pattern[str]:
    """Any form, the longest that fits, as a whole word."""
    forms = sorted(_kinds(), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, forms))})(?![\w-])")
