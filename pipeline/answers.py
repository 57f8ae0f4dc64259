"""How a response, or an error, becomes a row of the answers table: parsed, and in the pixels of the original."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from model import primitives
from model.prompt import END_THINK, THINK
from model.tasks.general import number_in

from .engines.frames import Located
from .engines.views import View
from .redaction import redacted
from .rows import ANSWERS, questions_of

if TYPE_CHECKING:
    from model.engine import Completion


@dataclass(frozen=True)
class Author:
    """Who answers: the run, the model's name, the hash of its weights, and how it sees images."""

    run_id: str
    model: str
    model_revision: str | None  # None when no engine was started
    view: View


def answer_row(
    author: Author, image: Mapping[str, Any], index: int, completion: Completion, now: datetime, shared: bool = False
) -> dict[str, Any]:
    """The row of one answered question. `image` has the fields of CHECKED_ROWS. `shared`: the answer was made for
    another row with the same bytes and question."""
    thinking, markup = primitives.split(completion.text)
    size = (image["image_width"], image["image_height"])
    reading = author.view.read(completion.text, size)
    return _row(author, image, index, now) | {
        "status": "ok",
        "answer": reading.answer,
        "answer_markup": markup,
        "answer_number": number_in(reading.answer),
        "reasoning": thinking if END_THINK in completion.text else None,
        "primitives": [_primitive(found) for found in reading.primitives],
        "finish_reason": completion.finish_reason,
        "confidence": completion.confidence,
        "usage": asdict(completion.usage) | {"shared_answer": shared},
        "image_notes": [*(image["notes"] or ()), *author.view.notes(size)],
    }


def error_row(
    author: Author, image: Mapping[str, Any], index: int, error: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The row of one question that got no answer; `error` has stage, kind, message and attempts."""
    return _row(author, image, index, now) | {
        "status": "error",
        "error": {**error, "message": redacted(error["message"])},
    }


def response_of(row: Mapping[str, Any]) -> str:
    """The response that an answered row was made of, letter for letter but for one `<think>` that opened it.

    So whatever was malformed still is: a `<think>` that was doubled comes back doubled.
    """
    reasoning, answer = row["reasoning"], row["answer_markup"]
    if reasoning is None:
        return answer
    return f"{THINK if reasoning.startswith(THINK) else ''}{reasoning}{END_THINK}{answer}"


def prompt_sha256(question: str) -> str:
    """Identifies what was asked; which model was asked is `model_revision`."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()


def _row(author: Author, image: Mapping[str, Any], index: int, now: datetime) -> dict[str, Any]:
    question = questions_of(image["questions"])[index]
    row: dict[str, Any] = dict.fromkeys(ANSWERS.names)
    row |= {name: image[name] for name in ("image_id", "image_uri", "image_sha256", "image_width", "image_height")}
    question_ids, row_keys = image.get("question_ids"), image.get("row_keys")
    return row | {
        "run_id": author.run_id,
        "image_notes": list(image["notes"] or ()),
        "question_id": question_ids[index] if question_ids else str(index),
        "question": question,
        "model": author.model,
        "model_revision": author.model_revision,
        "prompt_sha256": None if question is None else prompt_sha256(question),
        "answered_at": now,
        "row_key": row_keys[index] if row_keys else None,
    }


def _primitive(found: Located) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in ("kind", "label", "part", "group", "item", "valid")}
    corners = dict(zip(("x1", "y1", "x2", "y2"), (*(found.pixels or ()), None, None, None, None), strict=False))
    frame = (*found.frame, None, None, None, None)[:4] if found.frame else None
    return values | corners | {"frame": frame}
