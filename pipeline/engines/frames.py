"""Frames: how a family of models is asked to point, how its text is read, and which pixels its numbers mean.

| frame | a box; a point | numbers |
|---|---|---|
| deepseek | `<｜box｜>[[x1,y1,x2,y2]]<｜/box｜>`; `<｜point｜>[[x,y]]<｜/point｜>` | 0..999 of the image |
| qwen2.5-vl | `{"bbox_2d": [x1, y1, x2, y2], "label": "cup"}`; `{"point_2d": [x, y]}` | pixels of the image as sent |
| qwen3-vl | the same keys | 0..1000 of the image |
| gemini | `{"box_2d": [ymin, xmin, ymax, xmax], "label": "cup"}`; `{"point": [y, x]}` | 0..1000 of the image |
| unit | `{"box": [x1, y1, x2, y2], "label": "cup"}`; `{"point": [x, y]}` | 0..1 of the image |
| json | the same keys, within `{"objects": […], "answer": "…"}` | 0..1000 of the image |

Images are sent at `sent_size`, which the model's own preprocessing leaves as it is, so that "pixels of the image as
sent" is known here. Nothing is guessed: what lies outside of the frame, has its corners in the wrong order or looks
like another frame's numbers is marked `valid = False` and gets no pixels. No text makes `read` raise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from model import primitives
from model.primitives import FRAME_MAX, Kind, Part

from .loose_json import prose_of, values_in

Size = tuple[int, int]  # width, height in pixels

_INT16_MAX = 32767
_THOUSANDTHS = 1000  # how a fraction is kept among the model's own integers
_TEXT = {"type": "string"}  # in a schema
_ARITY: dict[Kind, int] = {"box": 4, "point": 2}
_LABELS = ("label", "name", "text_content")
_ANSWER_LINE = re.compile(r"^[^\w\n]*(?:final )?answer[^\w\n:]*:[ \t*_]*(.*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Located:
    """One box or point. `frame`: the model's own integers (of fractions, thousandths), clamped into int16, in the order
    x1, y1, x2, y2 or x, y, and empty when they were not numbers of a fit number; `pixels`: of the original image, None
    when not valid. `group` counts the lists, `item` the entries within one."""

    kind: Kind
    label: str | None
    part: Part
    group: int
    item: int
    frame: tuple[int, ...]
    pixels: tuple[float, ...] | None
    valid: bool


@dataclass(frozen=True)
class Reading:
    """A response, read: its short answer, free of markup, and where it points."""

    answer: str
    primitives: tuple[Located, ...]


class Frame(Protocol):
    """One family's way to point."""

    def sent_size(self, original: Size, max_pixels: int) -> Size:
        """The size in pixels to send an image at."""
        ...

    def ask(self, question: str, point: bool) -> str:
        """The question in the words that make such a model point, or as it is."""
        ...

    def schema(self, point: bool) -> dict[str, Any] | None:
        """The JSON schema of a response to that, for engines that can hold a model to one; None: free text."""
        ...

    def read(self, text: str, original: Size, sent: Size) -> Reading:
        """The response to a question about an image of `original` size that was sent at `sent` size."""
        ...


class TagFrame:
    """DeepSeek's tags. The image's own frame: padding of a model that counts it is the native engine's to undo."""

    def sent_size(self, original: Size, max_pixels: int) -> Size:
        return fitted(original, max_pixels, 1)

    def ask(self, question: str, point: bool) -> str:
        if not point:
            return question
        example = primitives.format_boxes("name", [(0, 0, FRAME_MAX, FRAME_MAX)])
        return (
            f"{question}\nWhile you think, mark each thing that you speak of like this: {example}. The numbers are"
            f" x1, y1, x2, y2, from 0 to {FRAME_MAX} of the image's width and height. Then give the short answer."
        )

    def schema(self, point: bool) -> dict[str, Any] | None:
        return None

    def read(self, text: str, original: Size, sent: Size) -> Reading:
        _, answer = primitives.split(text)
        found = []
        for it in primitives.parse(text):
            pixels = _scaled(it.frame, original, (FRAME_MAX, FRAME_MAX)) if it.valid else None
            found.append(Located(it.kind, it.label, it.part, it.group, it.item, it.frame, pixels, it.valid))
        return Reading(primitives.strip(answer), tuple(found))


@dataclass(frozen=True)
class JsonFrame:
    """Boxes and points as JSON objects anywhere in the text.

    `scale`: what the image's width and height count as; None: pixels of the image as sent. `grid`: the model resizes to
    multiples of it. `y_first`: numbers come as y, x. `wrapped`: one object holds the things and the answer.
    """

    box_key: str
    point_key: str
    scale: Literal[1, 1000] | None
    grid: int = 1
    y_first: bool = False
    wrapped: bool = False

    def sent_size(self, original: Size, max_pixels: int) -> Size:
        return fitted(original, max_pixels, self.grid)

    def ask(self, question: str, point: bool) -> str:
        if not point:
            return question
        corners = "ymin, xmin, ymax, xmax" if self.y_first else "x1, y1, x2, y2"
        units = "in pixels of the image" if self.scale is None else f"from 0 to {self.scale} of its width and height"
        things = f'[{{"{self.box_key}": [{corners}], "label": "name"}}]'
        if self.wrapped:
            contract = f'{{"objects": {things}, "answer": "the short answer"}}'
            return f"{question}\nReply with JSON alone: {contract}, the numbers {units}."
        return (
            f"{question}\nFirst list the things that the answer is about as JSON, {things}, the numbers {units}."
            ' Then write a last line that begins with "Answer:" and gives the short answer.'
        )

    def schema(self, point: bool) -> dict[str, Any] | None:
        if not (point and self.wrapped):
            return None
        number = {"type": "integer" if self.scale == 1000 else "number"}
        thing = _object_of(
            **{self.box_key: {"type": "array", "items": number, "minItems": 4, "maxItems": 4}}, label=_TEXT
        )
        return _object_of(objects={"type": "array", "items": thing}, answer=_TEXT)

    def read(self, text: str, original: Size, sent: Size) -> Reading:
        thinking, response = primitives.split(text)
        found: list[Located] = []
        stated: list[str] = []
        group = 0
        parts: tuple[tuple[Part, str], ...] = (("reasoning", thinking), ("answer", response))
        for part, words in parts:
            for value, _, _ in values_in(words):
                entries = list(self._entries(value))
                found += [self._located(part, group, item, each, original, sent) for item, each in enumerate(entries)]
                group += bool(entries)
                if part == "answer" and self.wrapped:
                    stated += _stated_answer(value)
        answer = stated[-1] if stated else _answer_line(prose_of(response))
        return Reading(primitives.strip(answer), tuple(found))

    def _entries(self, value: Any) -> Iterator[_Entry]:
        """The boxes and points in a JSON value, in its order, at any depth."""
        kinds: tuple[tuple[str, Kind], ...] = ((self.box_key, "box"), (self.point_key, "point"))
        stack = [value]
        while stack:
            current = stack.pop()
            if isinstance(current, list):
                stack.extend(reversed(current))
            elif isinstance(current, dict):
                label = next((current[key] for key in _LABELS if isinstance(current.get(key), str)), None)
                for key, kind in kinds:
                    if key in current:
                        yield from (_Entry(kind, label, each) for each in _lists_of(current[key]))
                stack.extend(reversed([each for key, each in current.items() if key not in dict(kinds)]))

    def _located(self, part: Part, group: int, item: int, entry: _Entry, original: Size, sent: Size) -> Located:
        numbers = entry.numbers
        if not _are_numbers(numbers, _ARITY[entry.kind]):
            return Located(entry.kind, entry.label, part, group, item, (), None, False)
        if self.y_first:
            numbers = [numbers[at ^ 1] for at in range(len(numbers))]
        whole = sent if self.scale is None else (self.scale, self.scale)
        valid = self._are_valid(numbers, whole)
        frame = tuple(_int16(value * _THOUSANDTHS if self.scale == 1 else value) for value in numbers)
        pixels = _scaled(numbers, original, whole) if valid else None
        return Located(entry.kind, entry.label, part, group, item, frame, pixels, valid)

    def _are_valid(self, numbers: Sequence[float], whole: Size) -> bool:
        inside = all(0 <= value <= whole[axis % 2] for axis, value in enumerate(numbers))
        ordered = len(numbers) == 2 or (numbers[0] <= numbers[2] and numbers[1] <= numbers[3])
        # Fractions where hundreds are due are shares of the image, whatever was asked for.
        of_another = self.scale != 1 and max(numbers) <= 1 and any(value != int(value) for value in numbers)
        return inside and ordered and not of_another


class _Entry(NamedTuple):
    kind: Kind
    label: str | None
    numbers: Sequence[Any]


FRAMES: dict[str, Frame] = {
    "deepseek": TagFrame(),
    "qwen2.5-vl": JsonFrame("bbox_2d", "point_2d", None, grid=28),
    "qwen3-vl": JsonFrame("bbox_2d", "point_2d", 1000, grid=32),
    "gemini": JsonFrame("box_2d", "point", 1000, y_first=True),
    "unit": JsonFrame("box", "point", 1),
    "json": JsonFrame("box", "point", 1000, wrapped=True),
}


def frame_of(name: str) -> Frame:
    """The frame of this name. ValueError when there is none."""
    if name not in FRAMES:
        raise ValueError(f"there is no frame {name!r}; choose from {', '.join(FRAMES)}")
    return FRAMES[name]


def fitted(original: Size, max_pixels: int, grid: int) -> Size:
    """About the largest size of these proportions within `max_pixels` and the original, in multiples of `grid`.

    A side shorter than one grid step becomes one. ValueError when not even one cell fits.
    """
    if max_pixels < grid * grid:
        raise ValueError(f"max_pixels = {max_pixels} is less than one cell of {grid} x {grid}; give more")
    shrink = min(1.0, math.sqrt(max_pixels / (original[0] * original[1])))
    columns, rows = (max(1, round(side * shrink / grid)) for side in original)
    while columns * rows * grid * grid > max_pixels:  # rounded up, or a thin image's short side was
        columns, rows = (columns - 1, rows) if columns >= rows else (columns, rows - 1)
    return columns * grid, rows * grid


def _object_of(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed}


def _stated_answer(value: Any) -> list[str]:
    answer = value.get("answer") if isinstance(value, dict) else None
    return [str(answer)] if isinstance(answer, str | int | float) else []


def _answer_line(prose: str) -> str:
    """What follows the last "Answer:" of a text; without one, all of it."""
    lines = _ANSWER_LINE.findall(prose)
    return lines[-1].rstrip(" \t*_") if lines else prose


def _lists_of(value: Any) -> list[Sequence[Any]]:
    """One list of numbers, or each of several; what is no list at all is one that can't be read."""
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        return value
    return [value if isinstance(value, list) else ()]


def _are_numbers(values: Sequence[Any], arity: int) -> bool:
    return len(values) == arity and all(
        isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < 1e300 for each in values
    )


def _int16(value: float) -> int:
    return max(-_INT16_MAX - 1, min(_INT16_MAX, round(value)))


def _scaled(numbers: Sequence[float], original: Size, whole: Size) -> tuple[float, ...]:
    return tuple(value / whole[axis % 2] * original[axis % 2] for axis, value in enumerate(numbers))
