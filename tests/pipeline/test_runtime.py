"""Ray as a run uses it: joined where there is one, and never asked for what it lacks without a word."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import ray

from pipeline.runtime import TASK_CPUS, ray_runtime, reserved_cpus, warn_when_actors_do_not_fit
from pipeline.settings import Settings


@pytest.mark.parametrize("cpus", [0.5, 1.0, 4.0])
def test_an_actor_leaves_room_for_the_tasks_that_feed_it(cpus: float) -> None:
    reserved = reserved_cpus(Settings(cpus_per_actor=cpus))
    assert 0 < reserved <= cpus - min(2 * TASK_CPUS, cpus / 2)


@pytest.mark.usefixtures("local_ray")
def test_a_ray_that_is_there_is_used_and_left_running() -> None:
    before = ray.get_runtime_context().get_job_id()
    with ray_runtime(Settings()):
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


@pytest.mark.usefixtures("local_ray")
def test_actors_that_do_not_fit_are_waited_for_with_a_word() -> None:
    err = io.StringIO()
    warn_when_actors_do_not_fit(Settings(), err)
    assert err.getvalue() == ""
    warn_when_actors_do_not_fit(Settings(actors=1000, gpus_per_actor=1), err)
    cpus, gpus = err.getvalue().splitlines()
    assert "the actors want 1000: waiting" in cpus and "lower --actors or --gpus-per-actor" in gpus


TWICE = """
import os, time, ray
from pipeline.runtime import ray_runtime
from pipeline.settings import Settings

with ray_runtime(Settings()):
    kind = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(type("Resident", (), {"here": lambda self: None}))
    resident = kind.remote()  # it takes all CPUs, for which Ray would keep workers in any case
    ray.get(resident.here.remote())
    task = ray.remote(num_cpus=0)(lambda: os.getpid())
    first = ray.get(task.remote())
    time.sleep(4)
    print(first == ray.get(task.remote()))
"""


@pytest.mark.slow
def test_a_worker_that_was_idle_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr
