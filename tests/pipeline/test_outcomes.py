"""Outcomes: whatever became of a question, there is a row that says it, and a table that holds the row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from model.request import Completion, RequestError, Usage
from pipeline.answers import Author
from pipeline.engines.views import NativeView
from pipeline.outcomes import Outcome, answers_table, as_error, asked_of, at, row_of
from pipeline.sharing import Asked
from pipeline.tally import TRACED_ANSWERS
from tests.tiny import TINY

AUTHOR = Author("run-1", "tiny", "0", NativeView(TINY))
IMAGE: dict[str, Any] = {
    "image_id": "i", "image_uri": None, "image_sha256": "0", "image_width": 60, "image_height": 40, "notes": None,
    "questions": ["a?", " ", "b?"], "primitives": ["on", None, None],
}  # fmt: skip


def completion(text: Any) -> Completion:
    return Completion(text, (1,), "stop", 1.0, Usage(0, 0, 1, 0, 0, False))


def row(outcome: Outcome) -> dict[str, Any]:
    return row_of(AUTHOR, IMAGE, 0, outcome)


def test_the_questions_that_are_there_keep_their_places_and_modes() -> None:
    assert asked_of(IMAGE, "auto") == (Asked("a?", "on", 0), Asked("b?", "auto", 2))
    assert asked_of(IMAGE | {"questions": None}, "auto") == ()


def test_an_answer_a_refusal_an_error_and_what_cannot_be_read_each_have_their_row() -> None:
    broken = {"stage": "decode", "kind": "corrupt", "message": "no", "attempts": 2}
    rows = [row(made) for made in (completion("</think>2"), RequestError("too_long", "by far", 3), broken)]
    rows.append(row(completion(None)))
    assert [one["answer"] for one in rows] == ["2", None, None, None]
    told = [(one["error"]["stage"], one["error"]["kind"], one["error"]["attempts"]) for one in rows[1:]]
    assert told[:2] == [("prepare", "too_long", 3), ("decode", "corrupt", 2)] and told[2][0] == "parse"
    assert as_error(RequestError("http_500", "it broke"))["stage"] == "generate"


def test_a_row_that_arrow_cannot_hold_costs_its_neighbours_nothing_and_keeps_its_engine() -> None:
    schema = TRACED_ANSWERS.append(pa.field("engine", pa.string(), nullable=False))
    rows = [row(completion(text)) | {"engine": "A", "trace": {}} for text in ("</think>2", "\ud83c", "</think>3")]
    made = answers_table(rows, schema).to_pylist()
    assert [(one["answer"], one["engine"], one["error"] and one["error"]["stage"]) for one in made] == [
        ("2", "A", None), (None, "A", "write"), ("3", "A", None),
    ]  # fmt: skip


def test_a_list_that_is_short_or_missing_has_nothing_there() -> None:
    assert (at(["x"], 0), at(["x"], 1), at(None, 0)) == ("x", None, None)
