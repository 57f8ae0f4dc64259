"""Who runs next, by KV bytes: first come, first served, each when its whole footprint fits."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from .cache import Cache, CachedSequence, Footprint
from .grammar import State
from .image import Geometry
from .pointing import Decision
from .request import Completion
from .sampling import Draw, Sampling


@dataclass(eq=False)
class Running:
    """One question that is being answered."""

    job: Job
    number: int  # which question of its request
    sequence: CachedSequence
    place: State
    prompt_tokens: int
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
    """One request on its way: prepared (patches, ids), then running as one `Running` for each question."""

    geometry: Geometry
    patches: Tensor  # [N, 3, P, P]
    prefix_ids: list[int]
    tails: list[list[int]]
    decisions: list[Decision]  # of each question: whether to point
    max_output_tokens: int
    sampling: Sampling
    footprint: Footprint
    future: Future[list[Completion]]
    sequences: list[CachedSequence] = field(default_factory=list)  # once admitted, one for each question
    finished: dict[int, Running] = field(default_factory=dict)

    def resolve(self, completions: list[Completion]) -> None:
        """Hand the completions to whoever waits for them, if anybody still does."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(completions)

    def fail(self, error: Exception) -> None:
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def alike(admitted: list[Job]) -> Iterable[list[Job]]:
    """Admitted jobs by the grid of their patches: those that can run through the vision tower together."""
    groups: dict[tuple[int, int], list[Job]] = defaultdict(list)
    for job in admitted:
        groups[job.geometry.patch_rows, job.geometry.patch_columns].append(job)
    return groups.values()


class Scheduler:
    """The queue of jobs that wait, the jobs admitted, and their questions that run."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.waiting: deque[Job] = deque()
        self.admitted: dict[int, Job] = {}
        self.running: list[Running] = []

    def admit(self) -> list[Job]:
        """Take jobs from the front of the queue while their footprints fit. Nobody overtakes."""
        admitted = []
        while self.waiting and self.cache.can_hold(self.waiting[0].footprint):
            job = self.waiting.popleft()
            job.sequences = self.cache.reserve(job.footprint)
            self.admitted[id(job)] = job
            admitted.append(job)
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
