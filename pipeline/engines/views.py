"""Views: how an engine sees an image of the catalog, and where on the original its numbers lie.

Known from the settings alone, without starting the engine: decoders bring pictures to the size that will be seen, rows
are made of responses, and judges read them in one form whoever wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Protocol

from model import primitives
from model.config import Config
from model.image import plan, to_pixels
from model.prompt import END_REF, END_THINK, REF
from model.tasks.suite import to_frame

from ..decoder_process import Canvas
from .frames import Frame, Located, Reading, Size, TagFrame

_SQUEEZED = 1.25  # beyond the rounding to whole patches
# One entry of a coordinate list as the grammar writes it: two or four numbers 0..999.
_ENTRY = re.compile(r"(?<=\[)[0-9]{1,3}(?:,[0-9]{1,3}){1,3}(?=\])")


class View(Protocol):
    """Sizes are width and height in pixels of the upright original."""

    def canvas(self, size: Size) -> Canvas | None:
        """What a decoder should bring the picture to; None: nothing, the engine takes it whole."""
        ...

    def notes(self, size: Size) -> list[str]:
        """What is done to a picture of this size, in words for the table."""
        ...

    def read(self, text: str, size: Size) -> Reading:
        """A response, with its primitives in pixels of the original."""
        ...

    def judged(self, text: str, size: Size) -> str:
        """The response as a suite's judge reads it: tags, numbers 0..999 of the image. Nothing malformed is mended."""
        ...


@dataclass(frozen=True)
class NativeView:
    """The model's own preprocessing and frame, from its configuration."""

    config: Config

    def canvas(self, size: Size) -> Canvas | None:
        return _native_canvas(*size, self.config)

    def notes(self, size: Size) -> list[str]:
        _, _, width, height = plan(*size, self.config).content
        return _notes(size, (width, height))

    def read(self, text: str, size: Size) -> Reading:
        _, answer = primitives.split(text)
        found = (
            Located(
                it.kind, it.label, it.part, it.group, it.item, it.frame, self._pixels(it.frame, size), it.valid
            )
            for it in primitives.parse(text)
        )  # fmt: skip
        return Reading(primitives.strip(answer), tuple(found))

    def judged(self, text: str, size: Size) -> str:
        if self.config.primitive_frame == "image":
            return text

        def moved(entry: re.Match[str]) -> str:
            frame = tuple(int(number) for number in entry[0].split(","))
            plain = ",".join(map(str, frame)) == entry[0]
            ordered = len(frame) == 2 or (len(frame) == 4 and frame[0] <= frame[2] and frame[1] <= frame[3])
            return ",".join(map(str, to_frame(self._pixels(frame, size), size))) if plain and ordered else entry[0]

        return _ENTRY.sub(moved, text)

    def _pixels(self, frame: tuple[int, ...], size: Size) -> tuple[float, ...]:
        return to_pixels(frame, plan(*size, self.config), self.config)


@dataclass(frozen=True)
class SentView:
    """An engine that is sent images of at most `max_pixels`, and answers in a frame."""

    frame: Frame
    max_pixels: int

    def canvas(self, size: Size) -> Canvas | None:
        sent = self.frame.sent_size(size, self.max_pixels)
        return None if sent == size else Canvas(*sent, padded=False)

    def notes(self, size: Size) -> list[str]:
        return _notes(size, self.frame.sent_size(size, self.max_pixels))

    def read(self, text: str, size: Size) -> Reading:
        return self.frame.read(text, size, self.frame.sent_size(size, self.max_pixels))

    def judged(self, text: str, size: Size) -> str:
        if isinstance(self.frame, TagFrame):
            return text
        reading = self.read(text, size)
        thinking, answer = (_tagged(reading.primitives, part, size) for part in ("reasoning", "answer"))
        return f"{thinking}{END_THINK}{reading.answer}{answer}"


@lru_cache(maxsize=4096)
def _native_canvas(width: int, height: int, config: Config) -> Canvas | None:
    """The canvas of a picture of this size, if the model takes a picture of the canvas' size just as it is.

    None when it would resize that again (some very wide or tall ones): such a picture travels whole.
    """
    geometry = plan(width, height, config)
    size = (geometry.canvas_width, geometry.canvas_height)
    again = plan(*size, config)
    if (again.canvas_width, again.canvas_height) != size or again.content != (0, 0, *size):
        return None
    return Canvas(*size, padded=geometry.content != (0, 0, *size))


def _notes(size: Size, seen: Size) -> list[str]:
    before, after = size[0] * size[1], seen[0] * seen[1]
    notes = []
    if after != before:
        notes.append("reduced for the model" if after < before else "enlarged for the model")
    aspect = size[0] / size[1] * seen[1] / seen[0]
    if max(aspect, 1 / aspect) > _SQUEEZED:
        notes.append("squeezed for the model")
    return notes


def _tagged(found: Iterable[Located], part: str, size: Size) -> str:
    """The primitives of one part as tags; what is not valid becomes a tag that is not well formed."""
    texts = []
    of_part = (it for it in found if it.part == part)
    for (_, kind, label), items in groupby(of_part, key=lambda it: (it.group, it.kind, it.label)):
        located = list(items)
        if any(it.pixels is None for it in located):
            texts.append(f"{REF}{label or ''}{END_REF}{REF}")
            continue
        frames = [to_frame(it.pixels or (), size) for it in located]
        write = (
            primitives.format_boxes if kind == "box" else lambda label, points: primitives.format_points(points, label)
        )
        texts.append(write(label or None, frames))
    return "".join(texts)
