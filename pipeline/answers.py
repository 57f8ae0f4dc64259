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
from model.prompt import END_THINK, THINK
from model.tasks.general import number_in
from model.tasks.suite import to_frame

from .redaction import redacted
from .rows import ANSWERS, questions_of

if TYPE_CHECKING:
    from model.engine import Completion

_SQUEEZED = 1.25  # beyond the rounding to whole patches
# One entry of a coordinate list as the grammar writes it: two or four numbers 0..999.
_ENTRY = re.compile(r"(?<=\[)[0-9]{1,3}(?:,[0-9]{1,3}){1,3}(?=\])")


@dataclass(frozen=True)
class Author:
    """Who answers: the run, the model's name, the hash of its weights, and its config (which knows its frame)."""

    run_id: str
    model: str
    model_revision: str | None  # None when no engine was started
    config: Config


def answer_row(
    author: Author, image: Mapping[str, Any], index: int, completion: Completion, now: datetime, shared: bool = False
) -> dict[str, Any]:
    """The row of one answered question. `image` has the fields of CHECKED_ROWS. `shared`: the answer was made for
    another row with the same bytes and question."""
    reasoning, answer = primitives.split(completion.text)
    plain = primitives.strip(answer)
    size = (image["image_width"], image["image_height"])
    return _row(author, image, index, now) | {
        "status": "ok",
        "answer": plain,
        "answer_markup": answer,
        "answer_number": number_in(plain),
        "reasoning": reasoning if END_THINK in completion.text else None,
        "primitives": [_primitive(found, size, author.config) for found in primitives.parse(completion.text)],
        "finish_reason": completion.finish_reason,
        "confidence": completion.confidence,
        "usage": asdict(completion.usage) | {"shared_answer": shared},
        "image_notes": [*(image["notes"] or ()), *fitting_notes(*size, author.config)],
    }


def error_row(
    author: Author, image: Mapping[str, Any], index: int, error: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The row of one question that got no answer; `error` has stage, kind, message and attempts."""
    return _row(author, image, index, now) | {
        "status": "error",
        "error": {**error, "message": redacted(error["message"])},
    }


def fitting_notes(width: int, height: int, config: Config) -> list[str]:
    """What the model's resize policy does to a picture of this size, in words for the table."""
    _, _, content_width, content_height = model_image.plan(width, height, config).content
    notes = []
    if content_width * content_height < width * height:
        notes.append("reduced for the model")
    elif content_width * content_height > width * height:
        notes.append("enlarged for the model")
    aspect = width / height * content_height / content_width
    if max(aspect, 1 / aspect) > _SQUEEZED:
        notes.append("squeezed for the model")
    return notes


def response_of(row: Mapping[str, Any]) -> str:
    """The response that an answered row was made of, letter for letter but for one `<think>` that opened it.

    So whatever was malformed still is: a `<think>` that was doubled comes back doubled.
    """
    reasoning, answer = row["reasoning"], row["answer_markup"]
    if reasoning is None:
        return answer
    return f"{THINK if reasoning.startswith(THINK) else ''}{reasoning}{END_THINK}{answer}"


def in_image_frame(response: str, size: tuple[int, int], config: Config) -> str:
    """A response whose numbers are those of the model's frame, with numbers of the image's: what a suite's judge reads.

    Entries that are no point and no box stay as they are: what is malformed doesn't become well formed.
    """
    if config.primitive_frame == "image":
        return response

    def moved(entry: re.Match[str]) -> str:
        frame = tuple(int(number) for number in entry[0].split(","))
        plain = ",".join(map(str, frame)) == entry[0]
        ordered = len(frame) == 2 or (len(frame) == 4 and frame[0] <= frame[2] and frame[1] <= frame[3])
        return ",".join(map(str, to_frame(_pixels(frame, size, config), size))) if plain and ordered else entry[0]

    return _ENTRY.sub(moved, response)


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


def _primitive(found: primitives.Primitive, size: tuple[int, int], config: Config) -> dict[str, Any]:
    x1, y1, x2, y2 = (*_pixels(found.frame, size, config), None, None)[:4]
    values = {name: getattr(found, name) for name in ("kind", "label", "part", "group", "item", "valid")}
    return values | {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "frame": (*found.frame, None, None)[:4]}


def _pixels(frame: tuple[int, ...], size: tuple[int, int], config: Config) -> tuple[float, ...]:
    """The one place where a model's numbers become pixels of the original, upright image."""
    return model_image.to_pixels(frame, model_image.plan(*size, config), config)
