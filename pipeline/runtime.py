"""Ray, joined or started, and quiet."""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import ray
import ray.data

from .settings import Settings
from .sources import PROJECT

_BYTES_PER_BLOCK = 8 << 20  # of encoded images: small, so that every actor gets some
_NO_PROGRESS_SECONDS = 2 * 3600  # Ray's half hour is less than a large model may take to load
_INIT_DEATHS = 3  # of engines that die while they load, in a row, until the run ends
# Ray ends workers that were idle for a second, and each file of answers would start another: a second of CPU.
CONFIG_OF_OUR_OWN = {"idle_worker_killing_time_threshold_ms": 600_000}
TASK_CPUS = 0.25  # a task that reads and fetches mostly waits


@contextmanager
def ray_runtime(settings: Settings) -> Iterator[None]:
    """Ray, joined or started, and quiet; what was started here is stopped again."""
    _quieten_ray()
    if ray.is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        # Workers inherit the environment: they find the code as this process did, installed or not.
        paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        num_cpus = max(os.cpu_count() or 1, math.ceil(settings.actors * settings.cpus_per_actor))
        config = dict(CONFIG_OF_OUR_OWN)  # Ray writes into what it is given
        with _without_stderr():  # Ray's core says there which log level it was given
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, _system_config=config, **quiet)
    elif "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        ray.init(address=address, **quiet)  # a submitted job: its working directory travels already
    else:
        code = [str(PROJECT / name) for name in ("model", "pipeline")]
        ray.init(address=address, runtime_env={"py_modules": code}, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """What C++ code writes to the process's standard error goes nowhere; Python's exceptions are untouched."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _quieten_ray() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\.data")  # advice on tuning what is tuned here
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BYTES_PER_BLOCK
    context.execution_no_progress_timeout_s = _NO_PROGRESS_SECONDS
    context.max_consecutive_actor_init_deaths = _INIT_DEATHS


def reserved_cpus(settings: Settings) -> float:
    """What an actor reserves of Ray: of its CPUs it leaves room for the tasks that read and write for it.

    Without that, a cluster that just fits the actors would never start the tasks, and wait for ever.
    """
    return max(settings.cpus_per_actor - 2 * TASK_CPUS, settings.cpus_per_actor / 2)


def warn_when_actors_do_not_fit(settings: Settings, err: TextIO) -> None:
    present = ray.cluster_resources()
    for name, each in (("CPU", settings.cpus_per_actor), ("GPU", settings.gpus_per_actor)):
        if present.get(name, 0) < settings.actors * each:
            print(
                f"the cluster has {present.get(name, 0):g} {name}s now and the actors want {settings.actors * each:g}:"
                f" waiting for nodes to come (if none will, lower --actors or --{name.lower()}s-per-actor)",
                file=err,
            )
