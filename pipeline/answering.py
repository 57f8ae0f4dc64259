"""The actor that answers: image rows in, answer rows out. It holds one engine and keeps it full.

Ray Data calls it with several batches at a time, all on one event loop; images are decoded by processes beside it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import torch

from model.request import Completion, EngineDead, Request, RequestError

from .answers import Author
from .decoder_pool import DecoderPool
from .decoding import ImageError
from .engines.makers import Maker, Plan
from .gold import score
from .ledger import Suspicion
from .outcomes import UNASKED, answers_table, as_error, asked_of, at, failure, row_of
from .room import ByteGate, Room, Watch
from .rows import questions_of
from .sharing import Asked, Shared, SharedAnswers
from .tally import TRACED_ANSWERS

_Outcome = Shared | Mapping[str, Any]  # or an error: stage, kind, message, attempts
_DECODED_BYTES = 2_000_000_000  # of pixels that wait for the engine or are in it, in one actor


class Answerer:
    """A Ray Data UDF: CHECKED_ROWS in, TRACED_ANSWERS out, one row for each due question of each image."""

    def __init__(self, plan: Plan, maker: Maker, collector: Any) -> None:
        torch.set_num_threads(plan.threads)
        self._plan = plan
        self._collector = collector
        context = ray.get_runtime_context()
        # A restarted actor keeps its id; its engine's figures and its attempts begin anew.
        self._worker, self._node = f"{context.get_actor_id()}-{os.getpid()}", context.get_node_id()
        self._engine = maker.make(plan)
        self._author = Author(plan.run_id, self._engine.name, self._engine.revision, maker.view(plan))
        self._decoders = DecoderPool(plan.threads, *plan.decoding)
        self._waiters = ThreadPoolExecutor(plan.threads, thread_name_prefix="decode")  # for the decoders
        self._shared = SharedAnswers(sampled=plan.sampling.temperature > 0)
        self._room = Room()
        self._places = asyncio.Semaphore(plan.images_in_flight)
        self._decoded = ByteGate(_DECODED_BYTES)
        self._watch = Watch(plan.image_seconds)
        self._done = {"images": 0, "answers": 0, "errors": 0}
        # What is loaded stays: full collections would look through all of it, 0.2 s in which no thread computes.
        gc.freeze()
        ray.get(collector.report.remote(self._worker, dict(self._done), self._engine_figures(), [], 0))

    async def __call__(self, images: pa.Table) -> pa.Table:
        rows = images.to_pylist()
        ids = [row["image_id"] for row in rows if row["error"] is None]
        suspects: dict[str, Suspicion] = await self._collector.begin.remote(self._worker, self._node, ids)
        with self._watch.over(len(ids)):
            made = await asyncio.gather(*(self._answer_image(row, suspects.get(row["image_id"])) for row in rows))
        answers = [row for image_rows in made for row in image_rows]
        errors = sum(row["status"] == "error" for row in answers)
        for name, count in (("images", len(rows)), ("answers", len(answers)), ("errors", errors)):
            self._done[name] += count
        # Waited for, so that the last report is in before the last rows are.
        figures = self._engine_figures()
        await self._collector.report.remote(self._worker, dict(self._done), figures, ids, len(answers) - errors)
        return answers_table(answers, TRACED_ANSWERS)

    def _engine_figures(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # given in KiB
        return asdict(self._engine.stats()) | {"process_peak_bytes": peak}

    async def _answer_image(self, image: dict[str, Any], suspicion: Suspicion | None) -> list[dict[str, Any]]:
        """The rows of one image, in the order of its questions."""
        questions = questions_of(image["questions"])
        asked = asked_of(image, self._plan.primitives)
        seconds: dict[str, float] = {}
        outcomes: dict[int, _Outcome] = {}
        error = image["error"]
        if suspicion is not None and suspicion.condemned:
            error = suspicion.as_error()
        if error is None and asked:
            try:
                ask = partial(self._complete, image, suspicion is not None, seconds)
                completions = await self._shared.get(image["image_sha256"], asked, ask)
                outcomes.update(zip((one.place for one in asked), completions, strict=True))
            except ImageError as broken:
                error = broken.as_row()
            except RequestError as refused:
                error = as_error(refused)
            except Exception as failed:  # a failed step fails the requests in it, and only those
                error = failure("generate", failed)
        if error is not None and suspicion is not None:
            error = error | {"attempts": suspicion.attempts}
        for index, question in enumerate(questions):
            outcomes.setdefault(index, UNASKED if question is None else error)
        return [self._row(image, index, outcomes[index], seconds) for index in range(len(questions))]

    async def _complete(
        self, image: Mapping[str, Any], is_suspect: bool, seconds: dict[str, float], asked: tuple[Asked, ...]
    ) -> Sequence[Completion | RequestError]:
        """For each of these questions its completion, or why there is none; a suspect is alone in the engine."""
        size = (image["image_width"], image["image_height"])
        canvas = self._author.view.canvas(size)
        width, height = canvas[:2] if canvas else size
        texts, modes = tuple(one.question for one in asked), tuple(one.mode for one in asked)
        sampling = self._plan.sampling.for_image(image["image_sha256"])
        room = self._room.alone() if is_suspect else self._room.shared()
        async with room, self._places, self._decoded.holding(width * height * 3):
            try:
                async with self._deaths_end_the_process():
                    began = time.perf_counter()
                    await self._note(image, "decode", is_suspect)
                    loop = asyncio.get_running_loop()
                    decode = partial(self._decoders.decode, image["image"], size, canvas)
                    picture = await loop.run_in_executor(self._waiters, decode)
                    seconds["decode"], began = time.perf_counter() - began, time.perf_counter()
                    await self._note(image, "generate", is_suspect)
                    request = Request(picture, texts, self._plan.max_output_tokens, modes, sampling)
                    completions = await self._engine.answer(request)
                    seconds["answer"] = time.perf_counter() - began
                    return completions
            finally:
                await self._note(None, "", is_suspect)

    async def _note(self, image: Mapping[str, Any] | None, stage: str, is_suspect: bool) -> None:
        self._watch.saw_progress()
        if is_suspect:
            await self._collector.isolate.remote(self._worker, image and image["image_id"], stage)

    @asynccontextmanager
    async def _deaths_end_the_process(self) -> AsyncIterator[None]:
        """A dead engine, and one that gives no answer in time, takes the process along, so that its images move.

        The ledger knows which those were, and whom to blame.
        """
        scope = asyncio.timeout(self._plan.image_seconds)
        try:
            async with scope:
                yield
        except EngineDead as dead:
            await self._die(str(dead))
        except TimeoutError:
            if not scope.expired():
                raise
            await self._die(f"no answer within {self._plan.image_seconds:g} s (--image-seconds)")

    async def _die(self, why: str) -> None:
        await self._collector.explain.remote(self._worker, why)
        os._exit(1)

    def _row(
        self, image: Mapping[str, Any], index: int, outcome: _Outcome, seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        was_shared = isinstance(outcome, Shared) and outcome.was_shared
        made = outcome.completion if isinstance(outcome, Shared) else outcome
        row = row_of(self._author, image, index, made, was_shared)
        exact, iou = score(row, at(image["gold_answers"], index), at(image["gold_boxes"], index))
        trace: dict[str, Any] = {"gold_exact": exact, "gold_iou": iou}
        if index == 0:
            trace |= {"read_seconds": image["read_seconds"], "fetch_seconds": image["fetch_seconds"]}
            trace |= {f"{stage}_seconds": spent for stage, spent in seconds.items()}
            trace["notes"] = image["notes"]
        return row | {"trace": trace}
