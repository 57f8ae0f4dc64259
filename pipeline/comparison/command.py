"""A comparison from end to end on Ray: images read, fetched and decoded once, every engine asked, one table.

OUTPUT/answers-by-engine/part-NNNNNN.parquet   ANSWERS and `engine`: a row for each engine, image and question
OUTPUT/differences.parquet                     the questions on which engines differ most, their answers side by side
OUTPUT/differences.png                         the same with the boxes drawn, with --sheet
OUTPUT/compare.json                            the figures; written last
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray.exceptions import RayError

from .. import store
from ..catalog import Catalog, open_catalog
from ..engines.makers import ENGINES, Maker, Plan, conditions
from ..images import Limits, fetch_and_check
from ..progress import Progress
from ..reading import CatalogSource
from ..record import versions
from ..redaction import without_secrets
from ..runtime import TASK_CPUS, ray_runtime, reserved_cpus, warn_when_actors_do_not_fit
from ..settings import Settings
from .comparer import COMPARED, ENGINE_ANSWERS, Candidate, Comparer
from .comparison import Comparison, Price
from .differences import MOST_ENGINES, differences_sheet, differences_table
from .report import as_text
from .settings import CompareSettings, Named

ANSWERS_FOLDER, RECORD = "answers-by-engine", "compare.json"
DIFFERENCES, SHEET = "differences.parquet", "differences.png"
_ROWS_PER_FILE = 4096
_TASKS = 2  # of each kind


class ComparisonStopped(RuntimeError):
    """A comparison ended before every engine had been asked everything."""


@dataclass
class Table:
    """The answers of all engines on their way into files, and what they come to."""

    output: str
    comparison: Comparison
    done: dict[str, int] = field(default_factory=lambda: {"images": 0, "answers": 0, "errors": 0})
    _waiting: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # questions not all engines' yet
    _blocks: list[pa.Table] = field(default_factory=list)
    _files: int = 0

    def add(self, block: pa.Table) -> None:
        """Some rows of COMPARED. Those of one question may come in several blocks."""
        for row in block.to_pylist():
            trace = row["trace"]
            seconds, kv_bytes, kv_images = (trace[name] or 0.0 for name in ("seconds", "kv_bytes", "kv_images"))
            tally = self.comparison.tallies[row["engine"]]
            tally.took(seconds, kv_bytes, kv_images, bool(trace["kv_predicted"]))
            self.done["answers"] += 1
            self.done["errors"] += row["status"] == "error"
            key = (row["image_id"], row["question_id"])
            rows = self._waiting.setdefault(key, {})
            assert row["engine"] not in rows, (key, row["engine"])
            rows[row["engine"]] = row
            if len(rows) == len(self.comparison.engines):
                self._compare(self._waiting.pop(key))
        self._blocks.append(block.select(ENGINE_ANSWERS.names).cast(ENGINE_ANSWERS))
        if sum(each.num_rows for each in self._blocks) >= _ROWS_PER_FILE:
            self._write()

    def finish(self, rows: int) -> None:
        """Writes what is left. ComparisonStopped unless every engine has a row for each question."""
        if self._blocks or not self._files:
            self._write()
        if self._waiting or self.done["answers"] != rows:
            missing = ", ".join(f"question {question} of {image!r}" for image, question in list(self._waiting)[:3])
            raise ComparisonStopped(f"{self.done['answers']:,} of {rows:,} rows came; {missing or 'whole images'} lack")

    def _compare(self, rows: dict[str, Any]) -> None:
        def known(name: str) -> Any:
            return next((row["trace"][name] for row in rows.values() if row["trace"][name] is not None), None)

        self.comparison.add(rows, known("gold_answer"), known("gold_boxes"), known("picture"))
        self.done["images"] += next(iter(rows.values()))["question_id"] == "0"

    def _write(self) -> None:
        table = pa.concat_tables(self._blocks) if self._blocks else ENGINE_ANSWERS.empty_table()
        store.write(store.join(self.output, f"{ANSWERS_FOLDER}/part-{self._files:06}.parquet"), as_parquet(table))
        self._blocks, self._files = [], self._files + 1


def compare(
    settings: CompareSettings,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
    makers: Mapping[str, Maker] = ENGINES,
) -> dict[str, Any]:
    """Asks every engine everything and returns the record. `makers`: how to come by each kind of engine.

    ValueError, before anything is asked, for what the user must mend; ComparisonStopped when it broke off.
    """
    started = datetime.now(UTC)
    run_id = f"compare-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    named = settings.candidates()
    if len(named) > MOST_ENGINES:
        raise ValueError(f"at most {MOST_ENGINES} engines can be compared at a time, got {len(named)}")
    candidates = [_candidate(settings, one, run_id, makers) for one in named]
    catalog = open_catalog(settings, settings.gold)
    rows = catalog.check() * len(candidates)
    output = _output(settings, run_id)
    _make_room(output, settings.overwrite)
    comparison = Comparison(tuple(one.name for one in candidates), settings.differences)
    table = Table(output, comparison)
    of_run = settings.of_run(named[0].settings)
    with ray_runtime(of_run):
        warn_when_actors_do_not_fit(of_run, err)
        try:
            stages = _stages(settings, of_run, catalog, candidates)
            with Progress(err, rows, lambda: table.done), closing(stages):
                for block in stages:
                    table.add(block)
        except RayError as error:
            last = str(error).strip().splitlines()[-1:]  # after the frames, if there are any
            raise ComparisonStopped(f"the engines' process broke off: {''.join(last).strip()}") from error
    table.finish(rows)
    record = _record(settings, named, candidates, table, started)
    _write(output, record, comparison, settings.sheet)
    shown = as_text(record, comparison.differences())
    print(json.dumps(record, ensure_ascii=False) if settings.as_json else shown, file=out)
    return record


def as_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


def _candidate(settings: CompareSettings, one: Named, run_id: str, makers: Mapping[str, Maker]) -> Candidate:
    """An engine, looked at as far as that goes without starting it."""
    try:
        plan, maker = Plan.of(settings.of_run(one.settings), run_id), makers[one.settings.engine]
        maker.revision(plan)
        maker.view(plan)
    except ValueError as error:
        raise ValueError(f"--engine {one.name!r}: {error}") from None
    return Candidate(one.name, plan, maker)


def _stages(
    settings: CompareSettings, of_run: Settings, catalog: Catalog, candidates: Sequence[Candidate]
) -> Generator[pa.Table, None, None]:
    """read -> fetch and check -> compare; yields blocks of COMPARED."""
    tasks: dict[str, Any] = {"num_cpus": TASK_CPUS, "concurrency": _TASKS}
    # The source also makes keys, which nobody reads here: those of the first engine do.
    terms = conditions(candidates[0].plan, candidates[0].maker)
    source = CatalogSource(catalog, terms, np.empty(0, np.uint64))
    limits = Limits.of(settings, catalog.root, _TASKS)
    in_call = settings.images_in_flight
    dataset = (
        ray.data.read_datasource(source, override_num_blocks=len(catalog.units), **tasks)
        .map_batches(partial(fetch_and_check, limits=limits), batch_format="pyarrow", batch_size=in_call, **tasks)
        .repartition(target_num_rows_per_block=in_call)
    )
    dataset._logical_plan.dag.ray_remote_args["num_cpus"] = TASK_CPUS  # see run.py
    dataset = dataset.map_batches(
        Comparer,
        fn_constructor_kwargs={"candidates": candidates, "pictures": settings.sheet},
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=in_call,
        batch_format="pyarrow",
        num_cpus=reserved_cpus(of_run),
        num_gpus=of_run.gpus_per_actor or None,
    )
    # An engine that takes the process along would do so again, and who it was is not known here.
    dataset._logical_plan.dag.ray_remote_args.update(max_restarts=0, max_task_retries=0)
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.block_refs:
            yield ray.get(block).select(COMPARED.names)


def _make_room(output: str, overwrite: bool) -> None:
    """An output that can be written to. ValueError when it holds a comparison that is not to be replaced."""
    parts = [store.join(ANSWERS_FOLDER, name) for name in store.list_under(store.join(output, ANSWERS_FOLDER))]
    old = [name for name in (RECORD, DIFFERENCES, SHEET) if store.exists(store.join(output, name))] + parts
    if old and not overwrite:
        raise ValueError(
            f"{output} already holds a comparison: choose another --output, or replace it with --overwrite"
        )
    for name in old:
        store.remove(store.join(output, name))


def _record(
    settings: CompareSettings, named: Sequence[Named], candidates: Sequence[Candidate], table: Table, started: datetime
) -> dict[str, Any]:
    finished, comparison = datetime.now(UTC), table.comparison
    prices = {
        one.name: Price(one.settings.price_prompt, one.settings.price_output, one.settings.price_hour)
        for one in named
        if one.settings.price_prompt or one.settings.price_output or one.settings.price_hour
    }
    figures = comparison.figures(prices)
    questions = next(iter(comparison.tallies.values())).rows
    engines = {}
    for one, candidate in zip(named, candidates, strict=True):
        own = {name: getattr(one.settings, name) for name in sorted(one.settings.model_fields_set)}
        told = {"settings": own, "model_revision": candidate.maker.revision(candidate.plan)}
        engines[one.name] = without_secrets(told) | figures["engines"][one.name]
    return {
        "run_id": candidates[0].plan.run_id,
        "started_at": started.isoformat(),
        "finished_at": finished.isoformat(),
        "seconds": round((finished - started).total_seconds(), 3),
        "settings": without_secrets(settings.model_dump()),
        "versions": versions(),
        "counts": {
            "images": table.done["images"],
            "questions": questions,
            "rows": table.done["answers"],
            "errors": table.done["errors"],
            "differing": comparison.differing,
        },
        "engines": engines,
        "pairs": figures["pairs"],
        "output": table.output,
    }


def _write(output: str, record: Mapping[str, Any], comparison: Comparison, sheet: bool) -> None:
    differences = comparison.differences()
    store.write(store.join(output, DIFFERENCES), as_parquet(differences_table(differences, comparison.engines)))
    if sheet:
        store.write(store.join(output, SHEET), differences_sheet(differences, comparison.engines))
    store.write(store.join(output, RECORD), json.dumps(record, indent=1, ensure_ascii=False).encode())


def _output(settings: CompareSettings, run_id: str) -> str:
    output = settings.output or f"results/{run_id}"
    if (scheme := store.scheme(output)) not in ("", "s3"):
        raise ValueError(f"output must be a folder or an s3:// prefix, got {output}")
    return output.rstrip("/") if scheme else str(Path(output).expanduser().absolute())
