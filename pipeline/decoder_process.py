"""The process that touches pixels: asked over pipes, answering in shared memory, made to be killed.

`python -m pipeline.decoder_process FD MAX_PIXELS` is what `decoder_pool.py` starts. It has no credentials in its
environment, may write no file, and sets its own limits of memory and time anew for every image. Whatever an image does
to it costs that image alone.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageOps

from .decoding import ImageError, check, decode

READY = b"ready"
_QUESTION = struct.Struct("<?QQQdII?")
_LENGTH = struct.Struct("<I")
_SPARE_BYTES = 256 << 20  # over what an image itself explains
_LONGEST_ANSWER = 1 << 20  # a process gone mad must not fill the memory of the one that asked
_OPEN_FILES = 32
GREY = (127, 127, 127)


class Canvas(NamedTuple):
    """The size that a picture is brought to: padded with grey to keep its aspect, or squeezed."""

    width: int
    height: int
    padded: bool


class Question(NamedTuple):
    """What is asked about the bytes at the start of the shared memory: only their header, or their pixels, which then
    stand there instead; on the canvas, if there is one. The process ends itself after `seconds`."""

    decode: bool
    num_bytes: int
    shared_bytes: int
    memory_bytes: int  # that answering may take, beside the shared ones
    seconds: float
    canvas: Canvas | None

    def pack(self) -> bytes:
        return _QUESTION.pack(*self[:5], *(self.canvas or (0, 0, False)))

    @classmethod
    def read(cls, pipe: BinaryIO) -> Question | None:
        """The next one; None when the other end is closed."""
        packed = pipe.read(_QUESTION.size)
        if len(packed) < _QUESTION.size:
            return None
        wants_pixels, num_bytes, shared_bytes, memory_bytes, seconds, width, height, padded = _QUESTION.unpack(packed)
        canvas = Canvas(width, height, padded) if width else None
        return cls(wants_pixels, num_bytes, shared_bytes, memory_bytes, seconds, canvas)


def pack_answer(answer: Mapping[str, Any]) -> bytes:
    text = json.dumps(answer).encode()
    return _LENGTH.pack(len(text)) + text


def read_answer(read: Any) -> dict[str, Any]:
    """An answer by `read(num_bytes)`, which returns so many bytes or raises. ValueError when it is none."""
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    return json.loads(read(min(length, _LONGEST_ANSWER)))


def fitted(picture: Image.Image, canvas: Canvas | None) -> Image.Image:
    """The picture on its canvas, exactly as `model.image.to_canvas` puts it there."""
    if canvas is None:
        return picture
    size = (canvas.width, canvas.height)
    if canvas.padded:
        return ImageOps.pad(picture, size, Image.Resampling.BICUBIC, GREY)
    return picture.resize(size, Image.Resampling.BICUBIC)


def answer(question: Question, shared: mmap.mmap, max_pixels: int) -> dict[str, Any]:
    """What there is to say about the image; its error, if it has one, as stage, kind and message."""
    data = shared[: question.num_bytes]
    try:
        if not question.decode:
            header = check(data, len(data), max_pixels)
            return {"size": (header.width, header.height), "notes": header.notes}
        picture = decode(data)
        pixels = fitted(picture, question.canvas).tobytes()
        shared[: len(pixels)] = pixels  # an IndexError, were they more than was expected
        return {"size": picture.size}
    except ImageError as error:
        return {"error": (error.stage, error.kind, error.message)}
    except MemoryError:
        return {"error": ("decode", "out_of_memory", "bringing the picture to its canvas took too much memory")}
    except IndexError:
        return {"error": ("decode", "corrupt", f"the pixels are not of the size in the header, but {picture.size}")}


def serve(shared_fd: int, max_pixels: int, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answers questions until the other end is closed."""
    _limit_files()
    own_bytes = _own_bytes()
    shared: mmap.mmap | None = None
    answers.write(READY)
    answers.flush()
    while (question := Question.read(questions)) is not None:
        signal.setitimer(signal.ITIMER_REAL, question.seconds)  # whose signal ends the process, also inside C code
        if shared is None or len(shared) != question.shared_bytes:
            shared = mmap.mmap(shared_fd, question.shared_bytes)
        if own_bytes:
            limit = own_bytes + question.shared_bytes + question.memory_bytes + _SPARE_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        said = pack_answer(answer(question, shared, max_pixels))
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(said)
        answers.flush()


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))


def _own_bytes() -> int:
    """Address space in use before the first image; 0 where that isn't told, and memory then isn't limited."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what C libraries print must not be taken for an answer
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
