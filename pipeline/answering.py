"""The actor that answers: image rows in, answer rows out. It holds one engine and keeps it full.

Ray Data calls it with several batches at a time, all on one event loop; images are decoded by threads beside it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray
import torch

from model.pointing import PrimitivesMode
from model.request import Completion, EngineDead, Request, RequestError

from .answers import Author, answer_row, error_row
from .collector import DEATHS_ALLOWED
from .decoding import ImageError, decode
from .engines import Maker, Plan
from .gold import score
from .keys import mode_of
from .rows import questions_of
from .tally import TRACED_ANSWERS

_Outcome = Completion | Mapping[str, Any]  # or an error: stage, kind, message, attempts
_DECODED_BYTES = 2_000_000_000  # of pixels that wait for the engine or are in it, in one actor


class Answerer:
    """A Ray Data UDF: CHECKED_ROWS in, TRACED_ANSWERS out, one row for each question of each image."""

    def __init__(self, plan: Plan, maker: Maker, collector: Any) -> None:
        torch.set_num_threads(plan.threads)
        self._plan = plan
        self._collector = collector
        # A restarted actor keeps its id; its engine's figures begin anew.
        self._actor = f"{ray.get_runtime_context().get_actor_id()}-{os.getpid()}"
        self._engine = maker.make(plan)
        self._author = Author(plan.run_id, self._engine.name, self._engine.revision, self._engine.config)
        self._decoders = ThreadPoolExecutor(plan.threads, thread_name_prefix="decode")
        self._places = asyncio.Semaphore(plan.images_in_flight)
        self._decoded = ByteGate(_DECODED_BYTES)
        self._done = {"images": 0, "answers": 0, "errors": 0}
        ray.get(collector.report.remote(self._actor, dict(self._done), self._engine_figures()))

    async def __call__(self, images: pa.Table) -> pa.Table:
        rows = await asyncio.gather(*(self._answer_image(image) for image in images.to_pylist()))
        answers = [row for image_rows in rows for row in image_rows]
        self._done["images"] += len(rows)
        self._done["answers"] += len(answers)
        self._done["errors"] += sum(row["status"] == "error" for row in answers)
        # Waited for, so that the last report is in before the last rows are.
        await self._collector.report.remote(self._actor, dict(self._done), self._engine_figures())
        return pa.Table.from_pylist(answers, schema=TRACED_ANSWERS)

    def _engine_figures(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # given in KiB
        return asdict(self._engine.stats()) | {"process_peak_bytes": peak}

    async def _answer_image(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of one image, in the order of its questions."""
        questions = questions_of(image["questions"])
        places = [index for index, question in enumerate(questions) if question is not None]
        asked = tuple(question for question in questions if question is not None)
        modes = tuple(mode_of(image["primitives"], index) or self._plan.primitives for index in places)
        seconds: dict[str, float] = {}
        outcomes: dict[int, _Outcome] = {}
        error = image["error"]
        if error is None and asked:
            try:
                completions = await self._complete(image, asked, modes, seconds)
                outcomes.update(zip(places, completions, strict=True))
            except ImageError as broken:
                error = broken.as_row()
            except RequestError as refused:
                error = {"stage": "generate", "kind": refused.kind, "message": str(refused), "attempts": 1}
            except EngineDead as dead:
                await self._die(dead)
            except Exception as failed:  # a failed step fails the requests in it, and only those
                error = {"stage": "generate", "kind": type(failed).__name__, "message": str(failed), "attempts": 1}
        unasked = {"stage": "check", "kind": "no_question", "message": "the row has no question here", "attempts": 1}
        for index, question in enumerate(questions):
            outcomes.setdefault(index, unasked if question is None else error)
        return [self._row(image, index, outcomes[index], seconds) for index in range(len(questions))]

    async def _complete(
        self,
        image: Mapping[str, Any],
        asked: tuple[str, ...],
        modes: tuple[PrimitivesMode, ...],
        seconds: dict[str, float],
    ) -> list[Completion]:
        pixel_bytes = image["image_width"] * image["image_height"] * 3
        async with self._places, self._decoded.holding(pixel_bytes):
            began = time.perf_counter()
            loop = asyncio.get_running_loop()
            picture = await loop.run_in_executor(self._decoders, decode, image["image"])
            seconds["decode"], began = time.perf_counter() - began, time.perf_counter()
            try:
                sampling = self._plan.sampling.for_image(image["image_sha256"])
                return await self._engine.answer(Request(picture, asked, self._plan.max_output_tokens, modes, sampling))
            finally:
                seconds["answer"] = time.perf_counter() - began

    def _row(
        self, image: Mapping[str, Any], index: int, outcome: _Outcome, seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        now = datetime.now(UTC)
        make: Callable[..., dict[str, Any]] = answer_row if isinstance(outcome, Completion) else error_row
        row = make(self._author, image, index, outcome, now)
        exact, iou = score(row, _at(image["gold_answers"], index), _at(image["gold_boxes"], index))
        trace: dict[str, Any] = {"gold_exact": exact, "gold_iou": iou}
        if index == 0:
            trace |= {"read_seconds": image["read_seconds"], "fetch_seconds": image["fetch_seconds"]}
            trace |= {f"{stage}_seconds": spent for stage, spent in seconds.items()}
            trace["notes"] = image["notes"]
        return row | {"trace": trace}

    async def _die(self, dead: EngineDead) -> None:
        """Ends this process, so that Ray gives its rows to another; RuntimeError when engines die again and again."""
        deaths = await self._collector.report_death.remote(str(dead))
        if deaths > DEATHS_ALLOWED:
            raise RuntimeError(f"{deaths} engines have died, the last one with: {dead}")
        os._exit(1)


class ByteGate:
    """Lets work through while the bytes that it holds stay within a limit; what is larger goes through alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._condition = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._limit)
        async with self._condition:
            await self._condition.wait_for(lambda: self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            async with self._condition:
                self._held -= size
                self._condition.notify_all()


def _at(values: Any, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None
