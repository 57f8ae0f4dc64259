"""The native engine: step() is schedule -> run -> collect, in a thread of its own.

Requests come in from any thread or event loop; images are patched and questions tokenised on the caller's side, ahead
of need. Each image is prefilled once and forked for its questions. Every step is one pass over all that is due:
images that were admitted, questions of those before, and the next tokens of everybody who runs.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .cache import Cache, Footprint
from .grammar import Grammar
from .image import plan, span
from .pictures import Pictures
from .pointing import Decision, PrimitivesMode, Trigger
from .prompt import Tokenizer
from .request import Completion, EngineDead, EngineStats, Request, RequestError, Usage
from .runner import Feed, runner_of
from .sampling import choose
from .scheduler import Job, Running, Scheduler
from .weights import load, revision

__all__ = ["Completion", "EngineDead", "EngineStats", "NativeEngine", "Request", "RequestError", "Usage"]

TYPICAL_QUESTION_TOKENS = 24
FAILED_STEPS_BEFORE_DEATH = 3
STEP_PROMPT_TOKENS = 4096  # of images that one step takes in: more would keep everybody else waiting


class NativeEngine:
    """Answers requests with one checkpoint under one KV budget.

    `device` and `dtype` "auto": a GPU with bf16 where there is one, else the CPU with fp32 (which is what the default
    checkpoint is tested in), on as many threads as torch has. `kv_dtype` "auto": the cache keeps entries as they were
    computed; "fp8": as the released model does (`entries.py`). ValueError for a checkpoint or a budget that can't work.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        kv_budget_bytes: int,
        device: str = "auto",
        dtype: str = "auto",
        kv_dtype: str = "auto",
        max_output_tokens: int = 256,
    ) -> None:
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        kind = ("bfloat16" if self.device.type == "cuda" else "float32") if dtype == "auto" else dtype
        if kind not in ("float32", "bfloat16"):
            raise ValueError(f"dtype {dtype!r}: choose auto, float32 or bfloat16")
        if kv_dtype not in ("auto", "fp8"):
            raise ValueError(f"kv_dtype {kv_dtype!r}: choose auto or fp8")
        self.model = load(checkpoint, dtype=getattr(torch, kind), device=self.device)
        if kv_dtype == "fp8":
            self.model.keep_in_fp8()
        self.tokenizer, self.trigger = Tokenizer(checkpoint), Trigger.of_checkpoint(checkpoint)
        self.config = self.model.config
        self.frame = self.config.primitive_frame
        self.name, self.revision = Path(checkpoint).resolve().name, revision(checkpoint)
        self.grammar = Grammar(self.tokenizer, self.config.vocab_size)
        typical = self.config.vision_max_n_token + TYPICAL_QUESTION_TOKENS + max_output_tokens
        self.cache = Cache(
            self.config, kv_budget_bytes, getattr(torch, kind), self.device, typical, fp8=kv_dtype == "fp8"
        )  # fmt: skip
        self.scheduler = Scheduler(self.cache)
        self.runner = runner_of(self.model, self.cache, torch.get_num_threads())
        self.pictures = Pictures(self.config)
        self._stats = EngineStats(kv_budget_bytes=kv_budget_bytes)
        self._wake = threading.Condition()
        self._arrived: list[Job] = []
        self._preparing = 0
        self._closed = False
        self._failed_steps = 0
        self._death: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- the callers' side

    def footprint(self, request: Request) -> Footprint:
        """The cache bytes of a request at its longest."""
        prefix, tails, _ = self._prompt(request)
        return self.cache.layout.footprint(len(prefix), [len(tail) + request.max_output_tokens for tail in tails])

    async def answer(self, request: Request) -> list[Completion]:
        """One completion for each question, in order. RequestError: this request can't be; EngineDead: nothing can."""
        if not request.questions:
            return []
        with self._wake:
            self._preparing += 1
        try:
            job = await asyncio.to_thread(self._prepare, request)
            with self._wake:
                if self._death is not None or self._closed:
                    raise EngineDead(f"the engine does not run any more: {self._death}")
                self._arrived.append(job)
        finally:
            with self._wake:
                self._preparing -= 1
                self._wake.notify()
        return await asyncio.wrap_future(job.future)

    def stats(self) -> EngineStats:
        """A copy of the counters."""
        stats = EngineStats(**vars(self._stats))
        stats.idle_reasons = dict(self._stats.idle_reasons)
        stats.kv_peak_bytes = self.cache.peak_bytes
        return stats

    def close(self) -> None:
        """Stop after the current step; requests that are not finished fail with EngineDead."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _prompt(self, request: Request) -> tuple[list[int], list[list[int]], list[Decision]]:
        """Ids up to and with the image span, then those of each question, and whether it is to point."""
        questions = request.questions
        modes: list[PrimitivesMode] = list(request.primitives) or ["on"] * len(questions)
        decisions = [self.trigger.decide(question, mode) for question, mode in zip(questions, modes, strict=True)]
        asked = [self.trigger.words(question, it.point) for question, it in zip(questions, decisions, strict=True)]
        (prefix, _), *_ = encoded = [self.tokenizer.encode_question(words) for words in asked]
        geometry = plan(*request.image.size, self.config)
        return self.model.expand(prefix, [geometry], self.tokenizer.image_id), [tail for _, tail in encoded], decisions

    def _prepare(self, request: Request) -> Job:
        if request.max_output_tokens < 1:
            raise RequestError("bad_limit", f"max_output_tokens = {request.max_output_tokens}; give at least 1")
        prefix, tails, decisions = self._prompt(request)
        longest = len(prefix) + max(map(len, tails)) + request.max_output_tokens
        if longest > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise RequestError("too_long", f"{longest} tokens; this checkpoint takes {limit}")
        footprint = self.cache.layout.footprint(len(prefix), [len(tail) + request.max_output_tokens for tail in tails])
        if not self.cache.can_ever_hold(footprint):
            raise RequestError(
                "kv_budget",
                f"needs {footprint.total_bytes} bytes of KV cache ({footprint.slots} slots, {footprint.windows} "
                f"windows, {footprint.pages} pages); the budget of {self.cache.budget_bytes} has "
                f"{self.cache.slots.count}, {self.cache.windows.count} and {self.cache.pages.count}",
            )
        limits = (request.max_output_tokens, request.sampling)
        return Job(self.pictures.of(request.image), prefix, tails, decisions, *limits, footprint, Future())

    # ---- the engine's thread

    def _run(self) -> None:
        torch.set_grad_enabled(False)
        while True:
            with self._wake:
                self._wait_for_work()
                if self._closed:
                    break
                self.scheduler.waiting += self._arrived
                self._arrived.clear()
            started = time.perf_counter()
            try:
                self.step()
                self._failed_steps = 0
            except Exception as error:
                self._fail_running(error)
                self._failed_steps += 1
                if self._failed_steps >= FAILED_STEPS_BEFORE_DEATH:
                    self._death = error
                    break
            spent = time.perf_counter() - started
            self._stats.busy_s += spent
            self._stats.budget_full_s += spent if self.scheduler.full else 0.0
        self._fail_everything(EngineDead(f"the engine stopped: {self._death or 'closed'}"))
        self.runner.close()

    def _wait_for_work(self) -> None:
        while not (self._closed or self._arrived or self.scheduler.waiting or self.scheduler.running):
            self.cache.check_integrity()
            reason = "waiting for images" if self._preparing else "no work"
            started = time.perf_counter()
            self._wake.wait()
            idle = time.perf_counter() - started
            self._stats.idle_s += idle
            self._stats.idle_reasons[reason] = self._stats.idle_reasons.get(reason, 0.0) + idle

    @torch.inference_mode()
    def step(self) -> None:
        """Admit what fits; run what was admitted and what is due of everybody else in one pass; collect who is done."""
        admitted = self.scheduler.admit(STEP_PROMPT_TOKENS)
        in_flight = len(self.scheduler.admitted)
        self._stats.images_in_flight_peak = max(self._stats.images_in_flight_peak, in_flight)
        running = list(self.scheduler.running)
        feeds = [Feed(question.sequence, question.due) for question in running]
        feeds += [Feed(job.sequences[0], job.prefix_ids, job.picture, wanted=False) for job in admitted]
        unseen = len({id(job.picture) for job in admitted if job.picture.features is None})
        logits = self.runner.run(feeds)
        if running:
            self._choose(running, logits)
        self._fork(admitted)
        self._collect()
        self._count(running, admitted, unseen)

    def _fork(self, jobs: list[Job]) -> None:
        """From the image that they share, each question goes on by itself; its own words are due next."""
        self.cache.fork([(job.sequences[0], other) for job in jobs for other in job.sequences[1:]])
        for job in jobs:
            for number, (sequence, tail) in enumerate(zip(job.sequences, job.tails, strict=True)):
                place = self.grammar.start("thinking", job.decisions[number].point)
                prompt_tokens = len(job.prefix_ids) + len(tail)
                choice = self.grammar.choice(place, job.max_output_tokens)
                self.scheduler.running.append(Running(job, number, sequence, place, choice, prompt_tokens, tail))

    def _choose(self, questions: list[Running], logits_BV: Tensor) -> None:
        """The next token of each question, and those after it that the grammar forces, are due next."""
        masks, draws = [q.choice.row for q in questions], [q.draw() for q in questions]
        tokens, log_probabilities = choose(logits_BV, self.grammar.table, masks, draws)
        for question, token, log_probability in zip(questions, tokens, log_probabilities, strict=True):
            question.log_probability += log_probability
            question.choices += 1
            question.due = []
            self._append(question, token)
            while not question.done and question.choice.only is not None:
                self._append(question, question.choice.only)

    def _append(self, question: Running, token: int) -> None:
        question.place = self.grammar.advance(question.place, token)
        if not question.place.finished:
            question.output.append(token)
            question.due.append(token)
            if (remaining := question.job.max_output_tokens - len(question.output)) > 0:
                question.choice = self.grammar.choice(question.place, remaining)

    def _count(self, running: list[Running], admitted: list[Job], unseen: int) -> None:
        stats = self._stats
        stats.steps += 1
        stats.sequence_steps += len(running)
        stats.requests += len(admitted)
        stats.images_seen += unseen
        stats.prompt_tokens += sum(len(tail) for job in admitted for tail in job.tails)

    def _collect(self) -> None:
        for question in [question for question in self.scheduler.running if question.done]:
            job = question.job
            self.scheduler.retire(question)
            self._stats.answers += 1
            self._stats.output_tokens += len(question.output)
            if len(job.finished) == len(job.tails):
                self._stats.kv_bytes_predicted += job.footprint.total_bytes
                self._stats.kv_bytes_measured += self.cache.held_bytes(job.sequences)
                completions = [self._completion(job.finished[number]) for number in range(len(job.tails))]
                job.finished.clear()  # they hold the job, which holds the picture: nobody would free the ring for long
                job.resolve(completions)

    def _completion(self, question: Running) -> Completion:
        job, geometry = question.job, question.job.picture.geometry
        inside = span(geometry.rows, geometry.columns, 3)  # at position 3 there are no alignment pads
        usage = Usage(
            image_tokens=len(inside.types),
            prompt_tokens=question.prompt_tokens,
            output_tokens=len(question.output),
            kv_entries=(len(inside.types) - 2) // 4,
            kv_bytes=self.cache.held_bytes([question.sequence]),
            shared_prefill=question.number > 0,
            pointing=job.decisions[question.number].point,
            pointing_reason=job.decisions[question.number].reason,
        )
        confidence = math.exp(question.log_probability / max(question.choices, 1))
        reason: Literal["stop", "length"] = "stop" if question.place.finished else "length"
        text = self.tokenizer.decode(question.output)
        return Completion(text, tuple(question.output), reason, confidence, usage)

    # ---- when something breaks

    def _fail_running(self, error: Exception) -> None:
        """A failed step fails the requests in it, not the engine."""
        for job in self.scheduler.drop_running():
            job.fail(RequestError("engine_step", f"{type(error).__name__}: {error}"))

    def _fail_everything(self, error: EngineDead) -> None:
        with self._wake:
            self._closed = True
            waiting = [*self.scheduler.waiting, *self._arrived]
            self.scheduler.waiting.clear()
            self._arrived.clear()
        for job in [*waiting, *self.scheduler.drop_running()]:
            job.fail(error)
