"""What became of a question, whoever was asked, and the row of the answers table that says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from model.pointing import PrimitivesMode
from model.request import Completion, RequestError

from .answers import Author, answer_row, error_row
from .keys import mode_of
from .rows import questions_of
from .sharing import Asked

Outcome = Completion | RequestError | Mapping[str, Any]  # or an error: stage, kind, message, attempts

UNASKED = {"stage": "check", "kind": "no_question", "message": "the row has no question here", "attempts": 1}
_BEFORE_ASKING = ("bad_limit", "too_long", "kv_budget")  # kinds of requests that never reached the model
_KEPT = ("run_id", "image_id", "question_id", "model", "model_revision", "answered_at", "row_key", "engine")


def asked_of(image: Mapping[str, Any], default: PrimitivesMode) -> tuple[Asked, ...]:
    """The questions of an image row that are there, each with its mode and its place. Catalogs' modes were checked."""
    questions, modes = questions_of(image["questions"]), image["primitives"]
    own: list[Any] = [mode_of(modes, place) or default for place in range(len(questions))]
    return tuple(Asked(question, own[place], place) for place, question in enumerate(questions) if question is not None)


def row_of(
    author: Author, image: Mapping[str, Any], index: int, outcome: Outcome, shared: bool = False
) -> dict[str, Any]:
    """The row of one question; one response that can't be read is one row's misfortune."""
    now = datetime.now(UTC)
    try:
        if isinstance(outcome, Completion):
            return answer_row(author, image, index, outcome, now, shared)
        error = as_error(outcome) if isinstance(outcome, RequestError) else outcome
        return error_row(author, image, index, error, now)
    except Exception as failed:
        return error_row(author, image, index, failure("parse", failed), now)


def as_error(refused: RequestError) -> dict[str, Any]:
    """The error of a request that an engine refused."""
    stage = "prepare" if refused.kind in _BEFORE_ASKING else "generate"
    return {"stage": stage, "kind": refused.kind, "message": str(refused), "attempts": refused.attempts}


def failure(stage: str, failed: Exception) -> dict[str, Any]:
    """The error of a step that failed as it never should."""
    return {"stage": stage, "kind": type(failed).__name__, "message": str(failed), "attempts": 1}


def answers_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows under the answers' schema with some more columns, `trace` among them; one that Arrow can't hold (half
    a surrogate in a text) becomes an error."""
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, UnicodeError, ValueError, TypeError, OverflowError) as failed:
        if len(rows) != 1:
            return pa.concat_tables(answers_table([row], schema) for row in rows)
        error = failure("write", failed) | {"message": ascii(str(failed))[1:-1]}
        row = {name: rows[0][name] for name in _KEPT if name in rows[0]}
        return pa.Table.from_pylist([row | {"status": "error", "error": error, "trace": {}}], schema=schema)


def at(values: Any, index: int) -> Any:
    """An entry of a list that may be shorter, or not there."""
    return values[index] if values is not None and index < len(values) else None
