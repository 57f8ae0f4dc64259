"""A run from end to end: what is due, the stages put together on Ray Data, carried out, read back and recorded."""

from __future__ import annotations

import json
import math
import secrets
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from . import store
from .answering import Answerer
from .catalog import Catalog, open_catalog
from .collector import Collector, forget_suspects
from .commits import count
from .committing import Committer
from .engines.makers import ENGINES, Maker, Plan, conditions
from .images import Limits, fetch_and_check
from .keys import Conditions
from .lease import Lease, LostLease
from .placement import Placement
from .progress import Progress
from .reading import CatalogSource
from .record import run_record, summary
from .resume import read_back, take_up, terms_of
from .runtime import TASK_CPUS, ray_runtime, warn_when_actors_do_not_fit
from .settings import Settings
from .sink import RECORD, STORE_FAILURES, WriteError, write_empty

_IMAGES_PER_CALL = 32  # of an actor
_TASKS_PER_ACTOR = 2  # of each kind; one fetches some hundred images a second
_MAX_RECORD_BYTES = 1 << 24
_ROWS_BEFORE_ERRORS_COUNT = 100
_KINDS_SHOWN = 5


class RunStopped(RuntimeError):
    """A run ended before its table was complete. What was answered is kept: the same command goes on."""


class TooManyErrors(RuntimeError):
    """More errors than the settings allow."""


@dataclass(frozen=True)
class Job:
    """What one run is about."""

    run_id: str
    settings: Settings
    output: str
    catalog: Catalog
    maker: Maker
    plan: Plan
    conditions: Conditions
    asked: np.ndarray  # [rows] uint64: the short keys of all rows, in the catalog's order


@dataclass(frozen=True)
class Figures:
    """What is known of a session beyond its rows. `engines`: an EngineStats of each, as a mapping; `deaths`: of engines
    that had images in flight."""

    engines: Sequence[Mapping[str, Any]] = ()
    seconds_answering: float = 0.0
    deaths: int = 0
    write_microseconds: int = 0


def run(
    settings: Settings, out: TextIO = sys.stdout, err: TextIO = sys.stderr, maker: Maker | None = None
) -> dict[str, Any]:
    """Answers what is not yet answered of a catalog and returns the run record.

    ValueError for what the user must mend; RunStopped when rows are missing at the end.
    """
    started = datetime.now(UTC)
    job = _job(settings, f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}", maker or ENGINES[settings.engine])
    with _store_is_the_users(), Lease(job.output, job.run_id, err) as lease:
        done = take_up(job.output, settings, job.asked, terms_of(settings, job.catalog.name, job.conditions))
        if len(done) == len(job.asked):
            return _nothing_to_do(job, started, out)
        if settings.retry_errors:
            forget_suspects(job.output)
        figures = _answer(job, done, lease, err)
        _refuse_missing(job)
        forget_suspects(job.output)
        record, first = _recorded(job, started, figures)
    print(summary(record, first, job.output), file=out)
    return record


@contextmanager
def _store_is_the_users() -> Iterator[None]:
    """A store that fails is for the user to mend, and another run in the same output is not to be disturbed."""
    try:
        yield
    except (WriteError, *STORE_FAILURES) as error:
        if isinstance(error, ConnectionError):  # Ray's, not a store's
            raise
        raise ValueError(f"{error}. Make room or mend it, and start the same command again: it goes on") from None
    except LostLease as lost:
        raise RunStopped(f"{lost}: this run stops") from None


def _job(settings: Settings, run_id: str, maker: Maker) -> Job:
    """All that can be known before anything is written or started, checked."""
    output = _output(settings, run_id)
    catalog = open_catalog(settings)
    plan = Plan.of(settings, run_id)
    terms = conditions(plan, maker)
    catalog.check()
    return Job(run_id, settings, output, catalog, maker, plan, terms, catalog.keys(terms))


def _answer(job: Job, done: np.ndarray, lease: Lease, err: TextIO) -> Figures:
    """Carries the rows that are due through the stages and into files."""
    settings = job.settings
    with ray_runtime(settings):
        collector = _collector(job)
        warn_when_actors_do_not_fit(settings, err)
        due = len(job.asked) - len(done)
        committer = Committer(
            lease, job.output, settings.format, job.run_id,
            settings.rows_per_file, settings.commit_seconds, settings.write_seconds,
        )  # fmt: skip
        try:
            with (
                Progress(err, due, lambda: ray.get(collector.progress.remote())),
                committer,
                closing(_stages(job, done, collector)) as stages,
            ):
                for blocks, rows in stages:
                    committer.add(blocks, rows, settings.actors)
                    _refuse_errors(settings.max_error_share, ray.get(collector.progress.remote()))
        except TooManyErrors as stopped:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in committer.tally.errors.most_common(_KINDS_SHOWN))
            raise RunStopped(f"{stopped}: {kinds}. They are in the table; the same command goes on") from None
        except Exception:  # Ray wraps what an actor raises, in one way or another
            if why := ray.get(collector.why_stopped.remote()):
                raise RunStopped(f"{why}. What was answered is kept: the same command goes on") from None
            raise
        told = (collector.engines, collector.seconds_answering, collector.deaths)
        engines, answering, deaths = ray.get([method.remote() for method in told])
    return Figures(engines, answering, deaths, committer.tally.microseconds["write"])


def _collector(job: Job) -> Any:
    """On the driver's node: it goes when the driver goes, and not with any of the others."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    kept: Any = ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1)(Collector)
    return kept.remote(job.output, job.settings.actors)


def _stages(job: Job, done: np.ndarray, collector: Any) -> Generator[tuple[list[Any], int], None, None]:
    """read -> fetch and check -> answer; yields references to blocks of answers, and how many rows they hold."""
    settings = job.settings
    limits = Limits.of(settings, job.catalog.root, _TASKS_PER_ACTOR * settings.actors)
    in_call = min(_IMAGES_PER_CALL, settings.images_in_flight)
    calls = math.ceil(settings.images_in_flight / in_call)
    pool = ray.data.ActorPoolStrategy(size=settings.actors, max_concurrent_calls_per_actor=calls)
    tasks: dict[str, Any] = {"num_cpus": TASK_CPUS, "concurrency": _TASKS_PER_ACTOR * settings.actors}
    source, placement = CatalogSource(job.catalog, job.conditions, done), Placement(settings)
    dataset = (
        ray.data.read_datasource(source, override_num_blocks=len(job.catalog.units), **tasks)
        .map_batches(partial(fetch_and_check, limits=limits), batch_format="pyarrow", batch_size=in_call, **tasks)
        .repartition(target_num_rows_per_block=in_call)
    )
    # A call's answers leave it when all its images are answered: calls of a whole block would keep them for long.
    # Ray would reserve a whole CPU for cutting them, which a cluster that just fits the actors does not have.
    dataset._logical_plan.dag.ray_remote_args["num_cpus"] = TASK_CPUS
    dataset = dataset.map_batches(
        Answerer,
        fn_constructor_kwargs={"plan": job.plan, "maker": job.maker, "collector": collector},
        compute=pool,
        batch_size=in_call,
        batch_format="pyarrow",
        **placement.arguments(),
    )
    with closing(placement):
        for bundle in dataset.iter_internal_ref_bundles():
            yield list(bundle.block_refs), bundle.num_rows() or 0


def _refuse_errors(share: float, done: Mapping[str, int]) -> None:
    answers, errors = done["answers"], done["errors"]
    if answers >= _ROWS_BEFORE_ERRORS_COUNT and errors > share * answers:
        raise TooManyErrors(
            f"{errors:,} of {answers:,} answers are errors, more than --max-error-share {share:g} allows"
        )


def _nothing_to_do(job: Job, started: datetime, out: TextIO) -> dict[str, Any]:
    """The record of a run that was complete already; made up for when the one before was stopped just before it."""
    if not len(job.asked):
        write_empty(job.output, job.settings.format)
    where = store.join(job.output, RECORD)
    if len(job.asked) and store.exists(where):
        record: dict[str, Any] = json.loads(store.read(where, _MAX_RECORD_BYTES)[0])
        counts = record["counts"]
        retry = "; --retry-errors asks those again" if counts["error"] else ""
        print(
            f"nothing to do: all {counts['answers']} answers for {counts['images']} images are there:"
            f" {counts['ok']} ok, {counts['error']} {'error' if counts['error'] == 1 else 'errors'}{retry}\n"
            f"written  {job.output}",
            file=out,
        )
        return record
    record, first = _recorded(job, started, Figures())
    print(summary(record, first, job.output), file=out)
    return record


def _refuse_missing(job: Job) -> None:
    """Reads the table back. RunStopped, with examples, unless every row that the catalog asks for is there once."""
    places = read_back(job.output, job.asked)
    if len(places):
        examples = ", ".join(job.catalog.named(places[:3].tolist()))
        raise RunStopped(
            f"{len(places):,} of {len(job.asked):,} rows are missing, e.g. {examples}:"
            " start the same command again, it asks them alone"
        )


def _recorded(job: Job, started: datetime, figures: Figures) -> tuple[dict[str, Any], list[Any]]:
    """Writes the run record, of the table as it was read back, and returns it with some rows to be shown."""
    whole, own, sessions = count(job.output, job.run_id)
    whole.microseconds["write"] = figures.write_microseconds
    times = (started, datetime.now(UTC))
    record = run_record(job.run_id, job.settings, (whole, own), figures.engines, times, figures.seconds_answering)
    record |= {"engine_deaths": figures.deaths, "output": job.output, "sessions": sessions}
    store.write(store.join(job.output, RECORD), json.dumps(record, indent=2, ensure_ascii=False).encode())
    return record, whole.first


def _output(settings: Settings, run_id: str) -> str:
    output = settings.output or f"results/{run_id}"
    if (scheme := store.scheme(output)) not in ("", "s3"):
        raise ValueError(f"output must be a folder or an s3:// prefix, got {output}")
    return output.rstrip("/") if scheme else str(Path(output).expanduser().absolute())
