"""JSON that stands somewhere in a text: between words, in fences, broken off at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_STARTS = 256  # places tried in one text: more is no answer, and each try may cost the text's length
_START = re.compile(r"[\[{]")
_FENCE = re.compile(r"```(?:json\b)?", re.IGNORECASE)


def values_in(text: str) -> Iterator[tuple[Any, int, int]]:
    """Each object or list, where it starts and where it ends; of one that broke off, those that are whole inside."""
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(_STARTS):
        start = _START.search(text, position)
        if start is None:
            return
        try:
            value, position = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):  # ValueError also for an integer of thousands of digits
            position = start.end()
        else:
            yield value, start.start(), position


def prose_of(text: str) -> str:
    """The text without its objects and lists of objects, and without fences; lists of plain values are prose."""
    pieces, position = [], 0
    for value, start, end in values_in(text):
        if isinstance(value, dict) or any(isinstance(each, dict) for each in value):
            pieces.append(text[position:start])
            position = end
    return _FENCE.sub(" ", "".join([*pieces, text[position:]])).strip()
