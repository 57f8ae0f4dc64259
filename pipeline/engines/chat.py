"""One turn of `/v1/chat/completions`: an image and a question as a body, and a response's body as a text."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from model.prompt import END_THINK
from model.sampling import Sampling

_JPEG_QUALITY = 95
_MESSAGE_CHARS = 300  # of a server's own words in an error row
_REASON_CHARS = 100


class BadResponse(ValueError):
    """A body that is no completion, though its status said so."""


@dataclass(frozen=True)
class Turn:
    """What a server answered. Token counts are None where it does not tell them."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int | None
    output_tokens: int | None


def data_url(image: Image.Image, size: tuple[int, int]) -> str:
    """An RGB image at a size (width, height), as a JPEG without chroma subsampling in a data URL."""
    buffer = io.BytesIO()
    seen = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    seen.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def body_of(model: str, url: str, question: str, max_output_tokens: int, sampling: Sampling, number: int) -> bytes:
    """The body that asks one question about one image; `number`, the question's place, makes its seed its own."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        "max_tokens": max_output_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0:
        body |= {"top_p": sampling.top_p, "seed": (sampling.seed + number) % (1 << 31)}
    return json.dumps(body).encode("utf-8", "replace")


def turn_of(body: bytes) -> Turn:
    """The completion in a response's body. BadResponse when there is none, or it was held back by a filter.

    Thinking that a server puts beside the answer goes before it, as the model wrote it.
    """
    try:
        parsed = json.loads(body)
        choice = parsed["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        content = message.get("content") or ""
        thinking = message.get("reasoning_content") or message.get("reasoning") or ""
        usage = parsed.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadResponse(f"not a chat completion ({type(error).__name__}): {shown(body)}") from None
    if not isinstance(content, str) or not isinstance(thinking, str):
        raise BadResponse(f"the message is not a text: {shown(body)}")
    if reason not in ("stop", "length"):
        told = repr(reason)[:_REASON_CHARS]  # whatever stands there
        raise BadResponse(f"finish_reason is {told}, where stop or length are answers: {shown(body)}")
    prompt_tokens, output_tokens = (count if isinstance(count, int) else None for count in counts)
    text = f"{thinking}{END_THINK}{content}" if thinking else content
    return Turn(text, reason, prompt_tokens, output_tokens)


def shown(body: bytes) -> str:
    """The beginning of a body, or of the message in it, for an error row."""
    text = body.decode("utf-8", "replace")
    try:
        error = json.loads(text).get("error")
        text = str(error["message"] if isinstance(error, dict) else error or text)
    except (ValueError, LookupError, AttributeError, RecursionError):
        pass
    return text if len(text) <= _MESSAGE_CHARS else text[:_MESSAGE_CHARS] + "…"
