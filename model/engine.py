"""The native engine: step() is schedule -> run -> collect, in a thread of its own.

Requests come in from any thread or event loop; images are patched and questions tokenised on the caller's side, ahead
of need. Each image is prefilled once and forked for its questions; everybody decodes in one batch.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .attention import LayerState
from .cache import Cache, Footprint
from .grammar import Grammar
from .image import plan, span, to_patches
from .pointing import Decision, PrimitivesMode, Trigger
from .prompt import Tokenizer
from .request import Completion, EngineDead, EngineStats, Request, RequestError, Usage
from .sampling import choose
from .scheduler import Job, Running, Scheduler, alike
from .state import select
from .weights import load, revision

__all__ = ["Completion", "EngineDead", "EngineStats", "NativeEngine", "Request", "RequestError", "Usage"]

TYPICAL_QUESTION_TOKENS = 24
FAILED_STEPS_BEFORE_DEATH = 3


class NativeEngine:
    """Answers requests with one checkpoint under one KV budget.

    `device` and `dtype` "auto": a GPU with bf16 where there is one, else the CPU with fp32 (which is what the default
    checkpoint is tested in). ValueError for a checkpoint or a budget that can't work.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        kv_budget_bytes: int,
        device: str = "auto",
        dtype: str = "auto",
        max_output_tokens: int = 256,
    ) -> None:
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        kind = ("bfloat16" if self.device.type == "cuda" else "float32") if dtype == "auto" else dtype
        if kind not in ("float32", "bfloat16"):
            raise ValueError(f"dtype {dtype!r}: choose auto, float32 or bfloat16")
        self.model = load(checkpoint, dtype=getattr(torch, kind), device=self.device)
        self.tokenizer, self.trigger = Tokenizer(checkpoint), Trigger.of_checkpoint(checkpoint)
        self.config = self.model.config
        self.frame = self.config.primitive_frame
        self.name, self.revision = Path(checkpoint).resolve().name, revision(checkpoint)
        self.grammar = Grammar(self.tokenizer, self.config.vocab_size)
        typical = self.config.vision_max_n_token + TYPICAL_QUESTION_TOKENS + max_output_tokens
        self.cache = Cache(self.config, kv_budget_bytes, getattr(torch, kind), self.device, typical)
        self.scheduler = Scheduler(self.cache)
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
        geometry = plan(*request.image.size, self.config)
        prefix, tails, decisions = self._prompt(request)
        longest = len(prefix) + max(map(len, tails)) + request.max_output_tokens
        if longest > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise RequestError("too_long", f"{longest} tokens; this checkpoint takes {limit}")
        footprint = self.cache.layout.footprint(len(prefix), [len(tail) + request.max_output_tokens for tail in tails])
        if not self.cache.can_ever_hold(footprint):
            raise RequestError(
                "kv_budget",
                f"needs {footprint.total_bytes} bytes of KV cache ({footprint.slots} slots, {footprint.pages} pages); "
                f"the budget of {self.cache.budget_bytes} holds {self.cache.num_slots} and {self.cache.num_pages}",
            )
        patches = to_patches(request.image, geometry, self.config)
        limits = (request.max_output_tokens, request.sampling)
        return Job(geometry, patches, prefix, tails, decisions, *limits, footprint, Future())

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
            self._stats.busy_s += time.perf_counter() - started
        self._fail_everything(EngineDead(f"the engine stopped: {self._death or 'closed'}"))

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
        """Admit what fits, prefill it, decode one token for everybody, collect who is done."""
        for batch in alike(self.scheduler.admit()):
            self._prefill(batch)
        if self.scheduler.running:
            self._decode(self.scheduler.running)
        self._collect()
        self._stats.steps += 1

    def _prefill(self, jobs: list[Job]) -> None:
        """Images of one geometry: one pass of the vision tower, one of their prompts; then each question's tail."""
        patches = torch.stack([job.patches for job in jobs]).to(self.device)
        ids = torch.tensor([job.prefix_ids for job in jobs], device=self.device)
        embeddings = self.model.embed_prompt(ids, self.model.see(patches, jobs[0].geometry))
        positions = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
        _, state = self.model(embeddings, ids, positions, self.model.empty_state(len(jobs)))
        questions: dict[int, list[tuple[int, int]]] = defaultdict(list)  # tails of one length run together
        for row, job in enumerate(jobs):
            for number, tail in enumerate(job.tails):
                questions[len(tail)].append((row, number))
        for members in questions.values():
            self._prefill_tails(jobs, members, state, ids.shape[1])
        self._stats.images_in_flight_peak = max(self._stats.images_in_flight_peak, len(self.scheduler.admitted))
        self._stats.requests += len(jobs)

    def _prefill_tails(
        self, jobs: list[Job], members: list[tuple[int, int]], state: list[LayerState], start: int
    ) -> None:
        tails = torch.tensor([jobs[row].tails[number] for row, number in members], device=self.device)
        positions = (torch.arange(tails.shape[1], device=self.device) + start).expand_as(tails)
        forked = select(state, torch.tensor([row for row, _ in members], device=self.device))
        hidden, after = self.model(self.model.embed_prompt(tails), tails, positions, forked)
        sequences = [jobs[row].sequences[number] for row, number in members]
        self.cache.write_prefilled(sequences, after)
        started = []
        for (row, number), sequence in zip(members, sequences, strict=True):
            sequence.length = start + tails.shape[1]
            place = self.grammar.start("thinking", jobs[row].decisions[number].point)
            started.append(Running(jobs[row], number, sequence, place, sequence.length))
        self.scheduler.running += started
        self._stats.prompt_tokens += sum(len(jobs[row].tails[number]) for row, number in members)
        self._choose(started, hidden[:, -1])

    def _decode(self, running: list[Running]) -> None:
        """One token for every running question that still wants one."""
        active = [question for question in running if not question.done]
        if not active:
            return
        sequences = [question.sequence for question in active]
        ids = torch.tensor([[question.output[-1]] for question in active], device=self.device)
        positions = torch.tensor([[sequence.length] for sequence in sequences], device=self.device)
        hidden, state = self.model(self.model.embed_prompt(ids), ids, positions, self.cache.gather(sequences))
        self.cache.append(sequences, state)
        self._choose(active, hidden[:, -1])

    def _choose(self, questions: list[Running], hidden_BH: Tensor) -> None:
        masks = [self.grammar.allowed(q.place, q.job.max_output_tokens - len(q.output)) for q in questions]
        allowed = torch.stack(masks).to(self.device)
        tokens, log_probabilities = choose(self.model.head(hidden_BH), allowed, [q.draw() for q in questions])
        open_choice = (allowed.sum(dim=1) > 1).tolist()
        for question, token, log_probability, is_open in zip(
            questions, tokens.tolist(), log_probabilities.tolist(), open_choice, strict=True
        ):
            question.place = self.grammar.advance(question.place, token)
            if is_open:
                question.log_probability += log_probability
                question.choices += 1
            if not question.place.finished:
                question.output.append(token)

    def _collect(self) -> None:
        for question in [question for question in self.scheduler.running if question.done]:
            job = question.job
            self.scheduler.retire(question)
            self._stats.answers += 1
            self._stats.output_tokens += len(question.output)
            if len(job.finished) == len(job.tails):
                self._stats.kv_bytes_predicted += job.footprint.total_bytes
                self._stats.kv_bytes_measured += self._held_bytes(job)
                job.resolve([self._completion(job.finished[number]) for number in range(len(job.tails))])

    def _held_bytes(self, job: Job) -> int:
        """What the sequences of a job held of the cache together."""
        pages = {page for sequence in job.sequences for page in sequence.pages}
        return len(job.sequences) * self.cache.layout.slot_bytes + len(pages) * self.cache.layout.page_bytes

    def _completion(self, question: Running) -> Completion:
        job, layout = question.job, self.cache.layout
        inside = span(job.geometry.rows, job.geometry.columns, 3)  # at position 3 there are no alignment pads
        usage = Usage(
            image_tokens=len(inside.types),
            prompt_tokens=question.prompt_tokens,
            output_tokens=len(question.output),
            kv_entries=(len(inside.types) - 2) // 4,
            kv_bytes=layout.slot_bytes + len(question.sequence.pages) * layout.page_bytes,
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
