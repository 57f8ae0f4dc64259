"""How a response, or an error, becomes a row of the answers table: parsed, and in the pixels of the original."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from model import image as model_image
from model import primitives
from model.config import Config

from .rows import ANSWERS, questions_of

if TYPE_CHECKING:
    from model.engine import Completion

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Author:
    """Who answers: the run, the model's name, the hash of its weights, and its config (which knows its frame)."""

    run_id: str
    model: str
    model_revision: str | None  # None when no engine was started
    config: Config


def answer_row(
    author: Author, image: Mapping[str, Any], index: int, completion: Completion, now: datetime
) -> dict[str, Any]:
    """The row of one answered question. `image` has the fields of CHECKED_ROWS."""
    reasoning, answer = primitives.split(completion.text)
    plain = primitives.strip(answer)
    size = (image["image_width"], image["image_height"])
    return _row(author, image, index, now) | {
        "status": "ok",
        "answer": plain,
        "answer_number": number_in(plain),
        "reasoning": reasoning,
        "primitives": [_primitive(found, size, author.config) for found in primitives.parse(completion.text)],
        "finish_reason": completion.finish_reason,
        "confidence": completion.confidence,
        "usage": asdict(completion.usage),
    }


def error_row(
    author: Author, image: Mapping[str, Any], index: int, error: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The row of one question that got no answer; `error` has stage, kind, message and attempts."""
    return _row(author, image, index, now) | {"status": "error", "error": dict(error)}


def number_in(answer: str) -> float | None:
    """The number that an answer is, if it is nothing else: "3", "3.", "1,200"; None for "three" and "3 cats"."""
    text = answer.strip().removesuffix(".")
    return float(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


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
        "question_id": question_ids[index] if question_ids else str(index),
        "question": question,
        "model": author.model,
        "model_revision": author.model_revision,
        "prompt_sha256": None if question is None else prompt_sha256(question),
        "answered_at": now,
        "row_key": row_keys[index] if row_keys else None,
    }


def _primitive(found: primitives.Primitive, size: tuple[int, int], config: Config) -> dict[str, Any]:
    x1, y1, x2, y2 = (*_pixels(found.frame, size, config), None, None)[:4]
    values = {name: getattr(found, name) for name in ("kind", "label", "part", "group", "item", "valid")}
    return values | {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "frame": (*found.frame, None, None)[:4]}


def _pixels(frame: tuple[int, ...], size: tuple[int, int], config: Config) -> tuple[float, ...]:
    """The one place where a model's numbers become pixels of the original, upright image."""
    return model_image.to_pixels(frame, model_image.plan(*size, config), config)
