"""Who runs next, by KV bytes: each request when its whole footprint fits, in order but for a few small ones.

When the first in the queue does not fit, smaller ones behind it may enter what is free, so that memory does not stand
empty; each request is overtaken a bounded number of times, after which everybody waits for it.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from .cache import Cache, CachedSequence, Footprint
from .grammar import Choice, State
from .pointing import Decision
from .request import Completion
from .runner import Picture
from .sampling import Draw, Sampling

LOOKAHEAD = 16  # of waiting requests that don't fit, how many are passed by in search of one that does
OVERTAKEN_AT_MOST = 32  # times that one request is passed by


@dataclass(eq=False)
class Running:
    """One question that is being answered."""

    job: Job
    number: int  # which question of its request
    sequence: CachedSequence
    place: State
    choice: Choice  # what the grammar allows there
    prompt_tokens: int
    due: list[int]  # ids that the model has not read yet: its own words, then what was chosen last
    output: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    choices: int = 0  # tokens that the grammar left open

    @property
    def done(self) -> bool:
        return self.place.finished or len(self.output) >= self.job.max_output_tokens

    def draw(self) -> Draw:
        """What decides its next token."""
        return self.job.sampling.draw(self.number, len(self.output))


@dataclass(eq=False)
class Job:
    """One request on its way: prepared (picture, ids), then running as one `Running` for each question."""

    picture: Picture
    prefix_ids: list[int]
    tails: list[list[int]]
    decisions: list[Decision]  # of each question: whether to point
    max_output_tokens: int
    sampling: Sampling
    footprint: Footprint
    future: Future[list[Completion]]
    sequences: list[CachedSequence] = field(default_factory=list)  # once admitted, one for each question
    finished: dict[int, Running] = field(default_factory=dict)
    overtaken: int = 0  # by requests that came later and entered earlier

    def resolve(self, completions: list[Completion]) -> None:
        """Hand the completions to whoever waits for them, if anybody still does."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(completions)

    def fail(self, error: Exception) -> None:
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Scheduler:
    """The queue of jobs that wait, the jobs admitted, and their questions that run."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.waiting: deque[Job] = deque()
        self.admitted: dict[int, Job] = {}
        self.running: list[Running] = []
        self.full = False  # whether somebody did not fit when the last ones were admitted

    def admit(self, prompt_tokens: int) -> list[Job]:
        """Take jobs whose footprints fit, until those taken have `prompt_tokens` of image prompts."""
        admitted: list[Job] = []
        passed: list[Job] = []
        while self.waiting and prompt_tokens > 0 and len(passed) < LOOKAHEAD:
            job = self.waiting.popleft()
            if not self.cache.can_hold(job.footprint):
                passed.append(job)
                if job.overtaken >= OVERTAKEN_AT_MOST:
                    break
                continue
            job.sequences = self.cache.reserve(job.footprint)
            self.admitted[id(job)] = job
            admitted.append(job)
            prompt_tokens -= len(job.prefix_ids)
            for other in passed:
                other.overtaken += 1
            if any(other.overtaken >= OVERTAKEN_AT_MOST for other in passed):
                break
        self.waiting.extendleft(reversed(passed))
        self.full = bool(passed)
        return admitted

    def retire(self, question: Running) -> None:
        """Release what a finished question held; its job is done with its last one."""
        job = question.job
        self.running.remove(question)
        self.cache.release(question.sequence)
        job.finished[question.number] = question
        if len(job.finished) == len(job.tails):
            del self.admitted[id(job)]

    def drop_running(self) -> list[Job]:
        """Release everything that was admitted and is not done; returns those jobs."""
        dropped = list(self.admitted.values())
        for job in dropped:
            for number, sequence in enumerate(job.sequences):
                if number not in job.finished:
                    self.cache.release(sequence)
        self.admitted.clear()
        self.running.clear()
        return dropped
