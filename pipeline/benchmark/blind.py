"""The blind guesser's figures on the cases of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from model.tasks.blindness import best_guesses, guessed, unseen
from model.tasks.general import GENERAL
from model.tasks.suite import Case

from .cases import Asked, draw


def blind_figures(asked: Sequence[Asked], count: int) -> dict[str, Any]:
    """What constant answers get on the cases of one suite and level, learnt from `count` training cases of the same.

    Other people's cases have no training split: there the guesser learns from the very cases, which flatters it.
    """
    suite, level = asked[0].suite, asked[0].case.level
    drawn = suite is not GENERAL and level in suite.levels
    sample: Iterable[Case] = (
        (unseen(case) for case in draw(suite, level, "train", count)) if drawn else [one.case for one in asked]
    )
    guesses = best_guesses(suite, sample)
    pairs = [guessed(suite, one.case, guesses) for one in asked]
    return {
        "blind_exact_percent": round(100 * sum(exact.exact for exact, _ in pairs) / len(pairs), 2),
        "blind_score": round(sum(best.score for _, best in pairs) / len(pairs), 4),
        "blind_learnt_from": "training cases" if drawn else "these cases",
    }
