"""The actor that answers: image rows in, answer rows out. It holds one engine and keeps it full.

Ray Data calls it with several batches at a time, all on one event loop; images are decoded by processes beside it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import torch

from model.engine import Completion, EngineDead, NativeEngine, Request, RequestError
from model.pointing import PrimitivesMode
from model.sampling import Sampling

from .answers import Author, answer_row, error_row
from .canvas import canvas_for
from .collector import DEATHS_ALLOWED
from .decoder_pool import DecoderPool
from .decoding import ImageError
from .gold import score
from .rows import questions_of
from .sharing import Asked, Shared, SharedAnswers
from .sink import TRACED_ANSWERS

_CPU_KV_BUDGET_MB = 64
_Outcome = Shared | Mapping[str, Any]  # or an error: stage, kind, message, attempts
_DECODED_BYTES = 2_000_000_000  # of pixels that wait for the engine or are in it, in one actor


@dataclass(frozen=True)
class Plan:
    """What an actor needs to know. See the settings of the same names."""

    run_id: str
    checkpoint: str
    device: str
    dtype: str
    kv_budget_mb: int | None
    kv_share: float
    max_output_tokens: int
    primitives: PrimitivesMode
    sampling: Sampling
    images_in_flight: int
    threads: int
    decoding: tuple[int, int, float]  # most bytes and pixels of an image, and seconds to decode it


class Answerer:
    """A Ray Data UDF: CHECKED_ROWS in, TRACED_ANSWERS out, one row for each question of each image."""

    def __init__(self, plan: Plan, collector: Any) -> None:
        torch.set_num_threads(plan.threads)
        self._plan = plan
        self._collector = collector
        # A restarted actor keeps its id; its engine's figures begin anew.
        self._actor = f"{ray.get_runtime_context().get_actor_id()}-{os.getpid()}"
        self._engine = NativeEngine(
            plan.checkpoint,
            kv_budget_bytes=kv_budget_bytes(plan),
            device=plan.device,
            dtype=plan.dtype,
            max_output_tokens=plan.max_output_tokens,
        )
        self._author = Author(plan.run_id, self._engine.name, self._engine.revision, self._engine.config)
        self._decoders = DecoderPool(plan.threads, *plan.decoding)
        self._waiters = ThreadPoolExecutor(plan.threads, thread_name_prefix="decode")  # for the decoders
        self._shared = SharedAnswers(sampled=plan.sampling.temperature > 0)
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
        asked = tuple(Asked(questions[n] or "", self._mode(image["primitives"], n), n) for n in places)
        seconds: dict[str, float] = {}
        outcomes: dict[int, _Outcome] = {}
        error = image["error"]
        if error is None and asked:
            try:
                completions = await self._shared.get(
                    image["image_sha256"], asked, partial(self._complete, image, seconds)
                )
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
        seconds: dict[str, float],
        asked: tuple[Asked, ...],
    ) -> list[Completion]:
        size = (image["image_width"], image["image_height"])
        canvas = canvas_for(*size, self._author.config)
        width, height = canvas[:2] if canvas else size
        async with self._places, self._decoded.holding(width * height * 3):
            began = time.perf_counter()
            loop = asyncio.get_running_loop()
            picture = await loop.run_in_executor(self._waiters, self._decoders.decode, image["image"], size, canvas)
            seconds["decode"], began = time.perf_counter() - began, time.perf_counter()
            try:
                sampling = self._plan.sampling.for_image(image["image_sha256"])
                texts, modes = tuple(one.question for one in asked), tuple(one.mode for one in asked)
                return await self._engine.answer(Request(picture, texts, self._plan.max_output_tokens, modes, sampling))
            finally:
                seconds["answer"] = time.perf_counter() - began

    def _mode(self, modes: list[PrimitivesMode | None] | None, index: int) -> PrimitivesMode:
        """One mode stands for all questions, several for one each, none for the job's."""
        own = None if not modes else modes[0] if len(modes) == 1 else _at(modes, index)
        return own or self._plan.primitives

    def _row(
        self, image: Mapping[str, Any], index: int, outcome: _Outcome, seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        now = datetime.now(UTC)
        if isinstance(outcome, Shared):
            row = answer_row(self._author, image, index, outcome.completion, now, outcome.was_shared)
        else:
            row = error_row(self._author, image, index, outcome, now)
        exact, iou = score(row, _at(image["gold_answers"], index), _at(image["gold_boxes"], index))
        trace: dict[str, Any] = {"first_of_image": index == 0, "gold_exact": exact, "gold_iou": iou}
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


def kv_budget_bytes(plan: Plan) -> int:
    """The KV budget of one engine: as set, or a share of the GPU's free memory, or a small one for a CPU."""
    if plan.kv_budget_mb is not None:
        return plan.kv_budget_mb * 1_000_000
    if plan.device != "cpu" and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free * plan.kv_share)
    return _CPU_KV_BUDGET_MB * 1_000_000


def _at(values: Any, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None
