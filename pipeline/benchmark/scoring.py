"""Answer rows back to the cases they answer: verdicts, and the figures of a group of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.tasks.suite import Verdict

from ..answers import response_of
from ..engines.views import View
from .cases import Asked

NO_ROW = "missing"  # stands for an answer row that never came


@dataclass(frozen=True)
class Scored:
    """A case with what became of it. `error` is `stage/kind`, None where there is a response."""

    asked: Asked
    verdict: Verdict
    response: str | None
    error: str | None
    output_tokens: int | None
    kv_entries: int | None


def score_rows(places: Mapping[tuple[str, str], Asked], rows: Iterable[Mapping[str, Any]], view: View) -> list[Scored]:
    """The verdict on every case, in the order of `places`; an error and a row that never came are wrong."""
    by_place = {(row["image_id"], row["question_id"]): row for row in rows}
    strangers = sorted(by_place.keys() - places.keys())
    assert not strangers, f"rows that answer no case: {strangers[:3]}"
    return [_scored(asked, by_place.get(place), view) for place, asked in places.items()]


def figures(scored: Sequence[Scored]) -> dict[str, Any]:
    """Means over a group of cases; None where nothing was due. Exact is the answer alone, score all that is judged."""
    verdicts = [one.verdict for one in scored]
    counts = [one.verdict.exact for one in scored if one.asked.case.answer.isdecimal()]
    return {
        "cases": len(scored),
        "errors": sum(one.error is not None for one in scored),
        "score": _mean(verdict.score for verdict in verdicts),
        "exact_percent": _percent(verdict.exact for verdict in verdicts),
        "count_exact_percent": _percent(counts),
        "mean_iou": _mean(verdict.iou for verdict in verdicts),
        "path_valid_percent": _percent(verdict.path_valid for verdict in verdicts),
        "well_formed_percent": _percent(verdict.well_formed for verdict in verdicts),
        "output_tokens": _mean(one.output_tokens for one in scored),
        "kv_entries": _mean(one.kv_entries for one in scored),
    }


def errors_of(scored: Iterable[Scored]) -> dict[str, int]:
    """How many cases got no answer, by stage and kind."""
    return dict(Counter(one.error for one in scored if one.error is not None).most_common())


def _scored(asked: Asked, row: Mapping[str, Any] | None, view: View) -> Scored:
    if row is None or row["status"] != "ok":
        error = NO_ROW if row is None else f"{row['error']['stage']}/{row['error']['kind']}"
        return Scored(asked, _nothing(asked), None, error, None, None)
    response = view.judged(response_of(row), asked.case.size)
    usage = row["usage"]
    return Scored(
        asked, asked.suite.judge(asked.case, response), response, None, usage["output_tokens"], usage["kv_entries"]
    )


def _nothing(asked: Asked) -> Verdict:
    """The verdict on no response at all: nothing of what is judged is worth anything."""
    silent = asked.suite.judge(asked.case, "")
    return Verdict(
        score=0.0,
        exact=False,
        well_formed=False,
        parts=dict.fromkeys(silent.parts, 0.0),
        iou=None if silent.iou is None else 0.0,
        path_valid=None if silent.path_valid is None else False,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    due = [value for value in values if value is not None]
    return round(sum(due) / len(due), 4) if due else None


def _percent(values: Iterable[bool | None]) -> float | None:
    share = _mean(None if value is None else float(value) for value in values)
    return None if share is None else round(100 * share, 2)
