"""Rows back to their cases: verdicts, what counts when nothing came, and the figures of a group."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from model.config import Config
from model.engine import Completion, Usage
from model.primitives import format_boxes
from model.tasks.suite import to_frame
from pipeline.answers import Author, answer_row, error_row
from pipeline.benchmark.cases import Asked
from pipeline.benchmark.scoring import Scored, errors_of, figures, score_rows
from pipeline.engines.views import NativeView
from tests.squares import SQUARES

NOW, VIEW = datetime(2026, 1, 2, tzinfo=UTC), NativeView(Config())
AUTHOR = Author("run-1", "tiny", "cafe", VIEW)


def asked(count: int) -> list[Asked]:
    return [Asked(f"s{seed}", SQUARES.case(seed, "many", "test"), SQUARES) for seed in range(count)]


def row(one: Asked, place: str, text: str | None, tokens: int = 10) -> dict[str, Any]:
    """The answer row of one case in image row `place`; without a text an error."""
    image: dict[str, Any] = {
        "image_id": place,
        "image_uri": None,
        "image_sha256": "00",
        "notes": None,
        "questions": [one.case.question],
    }
    image |= {"image_width": one.case.size[0], "image_height": one.case.size[1]}
    if text is None:
        error = {"stage": "generate", "kind": "too_large", "message": "no room", "attempts": 1}
        return error_row(AUTHOR, image, 0, error, NOW)
    return answer_row(AUTHOR, image, 0, Completion(text, (1,), "stop", 0.5, Usage(9, 12, tokens, 7, 99, False)), NOW)


def scored(texts: list[str | None]) -> list[Scored]:
    """The cases answered with these texts, the last case with no row at all."""
    cases = asked(len(texts) + 1)
    rows = [row(one, str(n), text) for n, (one, text) in enumerate(zip(cases, texts, strict=False))]
    places = {(str(n), "0"): one for n, one in enumerate(cases)}
    return score_rows(places, reversed(rows), VIEW)


def test_every_case_gets_the_verdict_of_its_own_row_whatever_their_order() -> None:
    texts = [one.case.response for one in asked(6)]
    found = scored([*texts])
    assert [one.asked.id for one in found] == [f"s{n}" for n in range(7)]
    assert [one.verdict.score for one in found[:6]] == pytest.approx([1] * 6, abs=0.03)
    assert [one.response for one in found[:6]] == texts


def test_an_error_and_a_row_that_never_came_are_wrong_and_shown() -> None:
    found = scored([None])
    assert [one.error for one in found] == ["generate/too_large", "missing"]
    assert errors_of(found) == {"generate/too_large": 1, "missing": 1}
    for one in found:
        verdict = one.verdict
        assert (verdict.score, verdict.exact, verdict.well_formed, one.response) == (0, False, False, None)
        assert set(verdict.parts.values()) == {0.0} and verdict.iou in (None, 0.0)
    boxless = next(one for one in asked(50) if not one.case.boxes)
    assert SQUARES.judge(boxless.case, "").score > 0  # silence earns something there, an error does not
    (silent,) = score_rows({("0", "0"): boxless}, [], VIEW)
    assert silent.verdict.score == 0


def test_figures_are_means_over_all_cases_and_over_what_was_due() -> None:
    cases = asked(4)
    texts = [*(one.case.response for one in cases[:2]), "<｜box｜>[[1,2", None]
    found = scored(texts)
    held = figures(found)
    assert (held["cases"], held["errors"]) == (5, 2)
    assert held["exact_percent"] == 40.0 and held["well_formed_percent"] == 40.0
    assert held["score"] == pytest.approx(sum(one.verdict.score for one in found) / 5, abs=1e-3)
    due = [one.verdict.iou for one in found if one.verdict.iou is not None]
    assert held["mean_iou"] == pytest.approx(sum(due) / len(due), abs=1e-3)
    numbers = [one for one in found if one.asked.case.kind == "count"]
    share = sum(one.verdict.exact for one in numbers) / len(numbers)
    assert held["count_exact_percent"] == pytest.approx(100 * share, abs=0.01)
    assert (held["output_tokens"], held["kv_entries"], held["path_valid_percent"]) == (10, 7, None)


def test_a_malformed_response_is_not_mended_on_the_way() -> None:
    one = next(one for one in asked(50) if one.case.boxes)
    frame = to_frame(one.case.boxes[0] if one.case.boxes else (), one.case.size)
    good, bad = (f"{text}</think>1" for text in (format_boxes("it", [frame]), "<｜box｜>[[01,2,3,4]]<｜/box｜>"))
    broken = f"</think>1<｜box｜>[[{','.join(map(str, frame))}]]"
    found = [score_rows({("0", "0"): one}, [row(one, "0", text)], VIEW)[0].verdict for text in (good, bad, broken)]
    assert [verdict.well_formed for verdict in found] == [True, False, False]


def test_a_row_that_answers_no_case_is_our_mistake() -> None:
    (one,) = asked(1)
    with pytest.raises(AssertionError, match="answer no case"):
        score_rows({}, [row(one, "9", "</think>1")], VIEW)
