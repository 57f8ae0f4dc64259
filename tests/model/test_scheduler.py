"""Who enters when: by bytes, in order but for a bounded number of smaller ones."""

from __future__ import annotations

from concurrent.futures import Future

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cache import Cache
from model.image import plan
from model.runner import Picture
from model.sampling import GREEDY
from model.scheduler import LOOKAHEAD, OVERTAKEN_AT_MOST, Job, Running, Scheduler
from tests.tiny import TINY

PICTURE = Picture(plan(168, 168, TINY), torch.zeros(0))
NOWHERE = None  # of a question's place in the grammar, which the scheduler never looks at


def job_of(cache: Cache, prefix: int, tails: list[int]) -> Job:
    footprint = cache.layout.footprint(prefix, tails)
    return Job(PICTURE, [0] * prefix, [[0]] * len(tails), [], 8, GREEDY, footprint, Future())


def finish(scheduler: Scheduler, job: Job) -> None:
    for number, sequence in enumerate(job.sequences):
        question = Running(job, number, sequence, NOWHERE, NOWHERE, 0, [])  # type: ignore[arg-type]
        scheduler.running.append(question)
        scheduler.retire(question)


jobs = st.tuples(st.integers(5, 120), st.lists(st.integers(1, 60), min_size=1, max_size=7))


@settings(max_examples=60, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=120), st.randoms(use_true_random=False))
def test_everybody_enters_once_within_the_budget_and_is_overtaken_a_bounded_number_of_times(
    wanted: list[tuple[int, list[int]]], random: object
) -> None:
    cache = Cache(TINY, 150_000, torch.float32, torch.device("cpu"), typical_tokens=80)
    scheduler = Scheduler(cache)
    made = [job_of(cache, *each) for each in wanted]
    fitting = [job for job in made if cache.can_ever_hold(job.footprint)]
    scheduler.waiting += fitting
    entered: list[Job] = []
    inside: list[Job] = []
    while len(entered) < len(fitting):
        new = scheduler.admit(10_000)
        entered += new
        inside += new
        assert cache.used_bytes <= cache.budget_bytes
        assert inside, "nobody runs and nobody enters"
        finish(scheduler, inside.pop(random.randrange(len(inside))))  # type: ignore[attr-defined]
    for job in inside:
        finish(scheduler, job)
    cache.check_integrity()
    order = {id(job): place for place, job in enumerate(fitting)}
    for place, job in enumerate(entered):
        later = sum(order[id(other)] > order[id(job)] for other in entered[:place])
        assert later == job.overtaken <= OVERTAKEN_AT_MOST


def test_a_small_request_enters_past_a_large_one_until_that_has_waited_long_enough() -> None:
    cache = Cache(TINY, 150_000, torch.float32, torch.device("cpu"), typical_tokens=80)
    scheduler = Scheduler(cache)
    first, large = job_of(cache, 20, [30]), job_of(cache, 20, [30] * (cache.slots.count // 2))
    assert cache.can_ever_hold(large.footprint)
    small = [job_of(cache, 20, [30]) for _ in range(OVERTAKEN_AT_MOST + 5)]
    scheduler.waiting += [first, large, *small]
    running = scheduler.admit(10_000)
    assert first in running and large not in running and len(running) > 1
    entered = len(running)
    while large not in running:
        finish(scheduler, running.pop(0))
        running += (new := scheduler.admit(10_000))
        entered += len(new)
        if not running:
            break
    assert large in running
    assert entered == 1 + OVERTAKEN_AT_MOST + 1  # the first, those that passed, the large one: nobody else before it


def test_a_step_takes_in_no_more_images_than_its_tokens() -> None:
    cache = Cache(TINY, 900_000, torch.float32, torch.device("cpu"), typical_tokens=80)
    scheduler = Scheduler(cache)
    scheduler.waiting += [job_of(cache, 40, [20]) for _ in range(LOOKAHEAD)]
    assert [len(scheduler.admit(100)) for _ in range(3)] == [3, 3, 3]
