"""A run from end to end: the stages put together on Ray Data, carried out, and recorded."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import ray
import ray.data

from model.sampling import Sampling

from . import store
from .answering import Answerer, Plan
from .catalog import Catalog, open_catalog
from .collector import Collector
from .images import Limits, fetch_and_check
from .progress import Progress
from .reading import CatalogSource
from .record import run_record, summary
from .settings import PROJECT, Settings, require_checkpoint
from .sink import RECORD, AnswerSink, Tally, parse_tally, prepare_output, write_empty

_IMAGES_PER_CALL = 32  # of an actor
_BYTES_PER_BLOCK = 8 << 20  # of encoded images: small, so that every actor gets some
_TASK_CPUS = 0.25  # a task that reads and fetches, or one that writes, mostly waits
_TASKS_PER_ACTOR = 2  # of each kind; one fetches some hundred images a second
_NO_PROGRESS_SECONDS = 2 * 3600  # Ray's half hour is less than a large model may take to load


def run(settings: Settings, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> dict[str, Any]:
    """Answers a catalog and returns the run record. ValueError, before anything runs, for what the user must mend."""
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    output = _output(settings, run_id)
    catalog = open_catalog(settings)
    require_checkpoint(settings.model)
    total = catalog.check()
    prepare_output(output, settings.overwrite)
    with ray_runtime(settings):
        collector: Any = ray.remote(num_cpus=0)(Collector).remote()
        tally = Tally()
        if catalog.num_images:
            _warn_when_actors_do_not_fit(settings, err)
            with Progress(err, total, lambda: ray.get(collector.progress.remote())):
                for written in _stages(settings, catalog, collector, run_id, output):
                    tally.add(written)
        else:
            write_empty(output, settings.format)
        engines, answering = ray.get([collector.engines.remote(), collector.seconds_answering.remote()])
    if tally.rows != total or tally.images != catalog.num_images:
        due = f"{total} for {catalog.num_images} were due"
        raise RuntimeError(f"{tally.rows} answer rows for {tally.images} images were written, {due}")
    record = run_record(run_id, settings, tally, engines, (started, datetime.now(UTC)), answering)
    record["output"] = output
    store.write(store.join(output, RECORD), json.dumps(record, indent=2, ensure_ascii=False).encode())
    print(summary(record, tally.first, output), file=out)
    return record


def _stages(settings: Settings, catalog: Catalog, collector: Any, run_id: str, output: str) -> Iterator[Tally]:
    """read -> fetch and check -> answer -> write; yields what each written file holds, as it is written."""
    limits = Limits.of(settings, catalog.root, _TASKS_PER_ACTOR * settings.actors)
    plan = Plan(
        run_id=run_id,
        checkpoint=str(Path(settings.model).expanduser().absolute()),
        device=settings.device,
        dtype=settings.dtype,
        kv_budget_mb=settings.kv_budget_mb,
        kv_share=settings.kv_share,
        max_output_tokens=settings.max_output_tokens,
        primitives=settings.primitives,
        sampling=Sampling(settings.temperature, settings.top_p, settings.seed),
        images_in_flight=settings.images_in_flight,
        threads=max(1, round(settings.cpus_per_actor)),
        decoding=(settings.max_image_bytes, settings.max_image_pixels, settings.decode_seconds),
    )
    in_call = min(_IMAGES_PER_CALL, settings.images_in_flight)
    calls = math.ceil(settings.images_in_flight / in_call)
    pool = ray.data.ActorPoolStrategy(size=settings.actors, max_concurrent_calls_per_actor=calls)
    sink = AnswerSink(output, settings.format)
    tasks: dict[str, Any] = {"num_cpus": _TASK_CPUS, "concurrency": _TASKS_PER_ACTOR * settings.actors}
    dataset = (
        ray.data.read_datasource(CatalogSource(catalog), override_num_blocks=len(catalog.units), **tasks)
        .map_batches(partial(fetch_and_check, limits=limits), batch_format="pyarrow", batch_size=in_call, **tasks)
        .map_batches(
            Answerer,
            fn_constructor_kwargs={"plan": plan, "collector": collector},
            compute=pool,
            batch_size=in_call,
            batch_format="pyarrow",
            num_cpus=_reserved_cpus(settings),
            num_gpus=settings.gpus_per_actor or None,
        )
        .map_batches(sink.write, batch_format="pyarrow", batch_size=settings.rows_per_file, **tasks)
    )
    for block in dataset.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=0):
        assert isinstance(block, pa.Table), type(block)
        yield from (parse_tally(text) for text in block.column("tally").to_pylist())


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
        with _without_stderr():  # Ray's core says there which log level it was given
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)
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


def _reserved_cpus(settings: Settings) -> float:
    """What an actor reserves of Ray: of its CPUs it leaves room for the tasks that read and write for it.

    Without that, a cluster that just fits the actors would never start the tasks, and wait for ever.
    """
    return max(settings.cpus_per_actor - 2 * _TASK_CPUS, settings.cpus_per_actor / 2)


def _warn_when_actors_do_not_fit(settings: Settings, err: TextIO) -> None:
    present = ray.cluster_resources()
    for name, each in (("CPU", settings.cpus_per_actor), ("GPU", settings.gpus_per_actor)):
        if present.get(name, 0) < settings.actors * each:
            print(
                f"the cluster has {present.get(name, 0):g} {name}s now and the actors want {settings.actors * each:g}:"
                f" waiting for nodes to come (if none will, lower --actors or --{name.lower()}s-per-actor)",
                file=err,
            )


def _output(settings: Settings, run_id: str) -> str:
    output = settings.output or f"results/{run_id}"
    if (scheme := store.scheme(output)) not in ("", "s3"):
        raise ValueError(f"output must be a folder or an s3:// prefix, got {output}")
    return output.rstrip("/") if scheme else str(Path(output).expanduser().absolute())
