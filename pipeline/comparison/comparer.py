"""The actor of a comparison: it holds all engines, decodes each image once, and asks one engine after the other.

Asked by turns, engines don't take each other's time, so that their speeds compare; each is asked one question before
the first batch, and who begins changes with each batch. What an engine can't do is an error in its own rows: the
others' answers stay.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from PIL import Image

from model.request import Completion, EngineDead, EngineStats, Request, RequestError

from ..answers import Author
from ..decoder_pool import DecoderPool
from ..decoder_process import Canvas, fitted
from ..decoding import ImageError
from ..engines.frames import Size
from ..engines.makers import Maker, Plan
from ..footprint.backbones import peer_of
from ..outcomes import UNASKED, Outcome, answers_table, as_error, asked_of, at, failure, row_of
from ..rows import ANSWERS, GOLD_BOXES, questions_of
from .comparison import largest_gap

# What a comparison knows beyond the answers. What an engine took for a batch is shared evenly among the batch's rows,
# so that sums over rows are right.
TRACE = pa.struct(
    [
        ("seconds", pa.float64()),
        ("kv_bytes", pa.float64()),
        ("kv_images", pa.float64()),
        ("kv_predicted", pa.bool_()),
        ("gold_answer", pa.string()),
        ("gold_boxes", GOLD_BOXES.value_type),
        ("picture", pa.large_binary()),  # JPEG, in the first engine's row, where answers differ and it is wanted
    ]
)
ENGINE_ANSWERS = ANSWERS.append(pa.field("engine", pa.string(), nullable=False))
COMPARED = ENGINE_ANSWERS.append(pa.field("trace", TRACE))
PICTURE = 300  # pixels: the longer side of such a picture
_DECODED_BYTES = 1_000_000_000  # of pixels that are in the engines at a time


@dataclass(frozen=True)
class Candidate:
    """One engine of a comparison; it travels to the actor."""

    name: str
    plan: Plan
    maker: Maker


class Shown(NamedTuple):
    """An image as it lies before the engines: a row of CHECKED_ROWS, and its picture or why there is none. `whole`:
    the picture is not yet on any engine's canvas."""

    image: Mapping[str, Any]
    picture: Image.Image | None
    error: Mapping[str, Any] | None
    whole: bool

    @property
    def size(self) -> Size:
        return self.image["image_width"], self.image["image_height"]


class Turn(NamedTuple):
    """What one engine made of a batch: for each image its outcomes by place, and what that took."""

    outcomes: list[dict[int, Outcome]]
    seconds: float
    kv_bytes: float
    kv_images: int
    kv_predicted: bool


class Contender:
    """One engine at work, on one event loop."""

    def __init__(self, candidate: Candidate) -> None:
        self.name, self._plan = candidate.name, candidate.plan
        self._engine = candidate.maker.make(candidate.plan)
        self.view = candidate.maker.view(candidate.plan)
        self.author = Author(self._plan.run_id, self._engine.name, self._engine.revision, self.view)
        self._peer = peer_of(self._engine.name)
        self._gone: dict[str, Any] | None = None  # why it answers no more

    async def warm_up(self, shown: Sequence[Shown]) -> None:
        """One question that is in no figure and no row: the first one of an engine takes longer."""
        for one in shown:
            asks = () if one.picture is None else asked_of(one.image, self._plan.primitives)
            if asks:
                await self._complete(self._request(one, asks[:1]))
                return

    async def ask(self, shown: Sequence[Shown]) -> Turn:
        """Asks about all the images together. Preparing them for this engine is not in the time."""
        asked = [() if one.picture is None else asked_of(one.image, self._plan.primitives) for one in shown]
        requests = [self._request(one, asks) if asks else None for one, asks in zip(shown, asked, strict=True)]
        before, began = self._engine.stats(), time.perf_counter()
        made = await asyncio.gather(*(self._complete(request) for request in requests if request is not None))
        seconds = time.perf_counter() - began
        outcomes: list[dict[int, Outcome]] = []
        left = iter(made)
        for asks in asked:
            outcomes.append(dict(zip((one.place for one in asks), next(left), strict=True)) if asks else {})
        return Turn(outcomes, seconds, *self._kv(before, shown, outcomes))

    def _request(self, one: Shown, asks: Sequence[Any]) -> Request:
        assert one.picture is not None
        picture = fitted(one.picture, self.view.canvas(one.size)) if one.whole else one.picture
        texts, modes = tuple(ask.question for ask in asks), tuple(ask.mode for ask in asks)
        sampling = self._plan.sampling.for_image(one.image["image_sha256"])
        return Request(picture, texts, self._plan.max_output_tokens, modes, sampling)

    async def _complete(self, request: Request) -> Sequence[Outcome]:
        """An outcome for each question. An engine that died, or hung, is not asked again."""
        count = len(request.questions)
        if self._gone is not None:
            return [self._gone] * count
        scope = asyncio.timeout(self._plan.image_seconds)
        try:
            async with scope:
                completions = await self._engine.answer(request)
            assert len(completions) == count, (len(completions), count)
            return completions
        except RequestError as refused:
            error = as_error(refused)
        except EngineDead as dead:
            error = self._gone = {"stage": "generate", "kind": "engine_dead", "message": str(dead), "attempts": 1}
        except Exception as failed:
            error = failure("generate", failed)
            if scope.expired():
                message = f"no answer within {self._plan.image_seconds:g} s (--image-seconds)"
                error = self._gone = error | {"kind": "hung", "message": message}
        return [error] * count

    def _kv(
        self, before: EngineStats, shown: Sequence[Shown], outcomes: Sequence[Mapping[int, Outcome]]
    ) -> tuple[float, int, bool]:
        """Cache bytes, of how many images, and whether they are computed: by the model's public shape, from its tokens
        for an image and what the engine says of the text's."""
        after = self._engine.stats()
        if measured := after.kv_bytes_measured - before.kv_bytes_measured:
            return measured, after.requests - before.requests, False
        if self._peer is None:
            return 0.0, 0, False
        total = images = 0
        for one, of_image in zip(shown, outcomes, strict=True):
            usages = [made.usage for made in of_image.values() if isinstance(made, Completion)]
            if usages:
                canvas = self.view.canvas(one.size)
                image_tokens = self._peer.image_tokens(*(canvas[:2] if canvas else one.size))
                texts = (max((u.prompt_tokens or 0) - image_tokens, 0) + (u.output_tokens or 0) for u in usages)
                total += (image_tokens + sum(texts)) * self._peer.bytes_per_token
                images += 1
        return total, images, images > 0


class Comparer:
    """A Ray Data UDF: CHECKED_ROWS in, COMPARED out, one row for each question of each image and each engine.

    `pictures`: with what it takes to show the answers that differ.
    """

    def __init__(self, candidates: Sequence[Candidate], pictures: bool = False) -> None:
        plan = candidates[0].plan
        torch.set_num_threads(plan.threads)
        self._contenders = [Contender(candidate) for candidate in candidates]
        self._pictures = pictures
        self._decoders = DecoderPool(plan.threads, *plan.decoding)
        self._waiters = ThreadPoolExecutor(plan.threads, thread_name_prefix="decode")
        self._runner = asyncio.Runner()  # engines stay on one event loop
        self._batches = 0

    def __call__(self, images: pa.Table) -> pa.Table:
        # A comparison goes on with nothing, so keys to go on by would only be wrong for all engines but one.
        rows = [row | {"row_keys": None} for row in images.to_pylist()]
        return self._runner.run(self._compared(rows))

    async def _compared(self, images: list[dict[str, Any]]) -> pa.Table:
        made: list[dict[str, Any]] = []
        for batch in batches(images, self._decoded_bytes, _DECODED_BYTES):
            shown = list(self._waiters.map(self._shown, batch))
            if not self._batches:
                for one in self._contenders:
                    await one.warm_up(shown)
            first = self._batches % len(self._contenders)
            self._batches += 1
            turns: dict[str, Turn] = {}
            for one in self._contenders[first:] + self._contenders[:first]:
                turns[one.name] = await one.ask(shown)
            made += self._rows(shown, turns)
        return answers_table(made, COMPARED)

    def _canvas(self, size: Size) -> Canvas | None:
        """What the decoder brings a picture to: the engines' canvas if they have one in common, else nothing."""
        first, *others = (one.view.canvas(size) for one in self._contenders)
        return first if not self._pictures and all(other == first for other in others) else None

    def _decoded_bytes(self, image: Mapping[str, Any]) -> int:
        if image["error"] is not None:
            return 0
        size = (image["image_width"], image["image_height"])
        width, height = (self._canvas(size) or size)[:2]
        return width * height * 3

    def _shown(self, image: Mapping[str, Any]) -> Shown:
        size, error = (image["image_width"], image["image_height"]), image["error"]
        if error is not None:
            return Shown(image, None, error, False)
        canvas = self._canvas(size)
        try:
            return Shown(image, self._decoders.decode(image["image"], size, canvas), None, canvas is None)
        except ImageError as broken:
            return Shown(image, None, broken.as_row(), False)

    def _rows(self, shown: Sequence[Shown], turns: Mapping[str, Turn]) -> Iterator[dict[str, Any]]:
        """Image by image, question by question, engine by engine."""
        count = sum(len(questions_of(one.image["questions"])) for one in shown)
        shares = {name: _shares(turn, count) for name, turn in turns.items()}
        for number, one in enumerate(shown):
            for index, question in enumerate(questions_of(one.image["questions"])):
                gold = {"gold_answer": at(one.image["gold_answers"], index)}
                gold |= {"gold_boxes": at(one.image["gold_boxes"], index)}
                rows = []
                for contender in self._contenders:
                    fallback: Any = UNASKED if question is None else one.error
                    outcome = turns[contender.name].outcomes[number].get(index, fallback)
                    row = row_of(contender.author, one.image, index, outcome)
                    rows.append(row | {"engine": contender.name, "trace": gold | shares[contender.name]})
                if self._pictures and one.picture is not None and largest_gap(rows) > 0:
                    rows[0]["trace"] |= {"picture": _jpeg(one.picture)}
                yield from rows


def batches(images: Sequence[Any], bytes_of: Any, most: int) -> Iterator[list[Any]]:
    """The images in their order, in lists of at most so many bytes, or of one image."""
    batch: list[Any] = []
    held = 0
    for image in images:
        size = bytes_of(image)
        if batch and held + size > most:
            yield batch
            batch, held = [], 0
        batch.append(image)
        held += size
    if batch:
        yield batch


def _shares(turn: Turn, rows: int) -> dict[str, Any]:
    names = ("seconds", "kv_bytes", "kv_images")
    return {name: getattr(turn, name) / rows for name in names} | {"kv_predicted": turn.kv_predicted}


def _jpeg(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((PICTURE, PICTURE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
