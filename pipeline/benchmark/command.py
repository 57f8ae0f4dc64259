"""The benchmark: draw the cases, answer them as any catalog is answered, judge, and say how it went.

OUTPUT/cases.parquet     the catalog that was asked
OUTPUT/answers, run.json the run over it
OUTPUT/verdicts.jsonl    a line for each case: what was asked, answered and given for it
OUTPUT/benchmark.json    the figures
"""

from __future__ import annotations

import io
import json
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from .. import store
from ..engines.makers import view_of
from ..run import run
from .blind import blind_figures
from .case_files import write_cases
from .cases import Asked, catalog_of, gather
from .contact_sheet import Exhibit, write_sheets
from .report import as_markdown, as_text, carded
from .scoring import Scored, errors_of, figures, score_rows
from .settings import BenchmarkSettings

CATALOG, VERDICTS, RECORD = "cases.parquet", "verdicts.jsonl", "benchmark.json"
_MAX_PART_BYTES = 1 << 31


def benchmark(
    settings: BenchmarkSettings, command: str, out: TextIO = sys.stdout, err: TextIO = sys.stderr
) -> dict[str, Any] | None:
    """Does what the settings ask for and returns the record; None when no model was to be asked.

    ValueError, before anything is asked, for what the user must mend.
    """
    card = Path(settings.model).expanduser() / "CARD.md"
    if settings.score:
        view_of(settings.of_run("", ""))
        if settings.card:
            carded(card, "")
    elif settings.card or not (settings.export or settings.sheet):
        raise ValueError("--no-score only draws: give --export or --sheet, and no --card")
    asked = gather(settings)
    if settings.export is not None:
        write_cases(settings.export, [(one.id, one.case) for one in asked])
    if not settings.score:
        if settings.sheet is not None:
            write_sheets(settings.sheet, [Exhibit(one.case) for one in asked])
        return None
    scored, record = _answered(settings, asked, err)
    if settings.sheet is not None:
        shown = [Exhibit(one.asked.case, one.response, one.error, one.verdict.exact) for one in scored]
        write_sheets(settings.sheet, shown)
    if settings.card:
        card.write_text(carded(card, as_markdown(record, command)), encoding="utf-8")
    print(json.dumps(record, ensure_ascii=False) if settings.as_json else as_text(record), file=out)
    return record


def _answered(settings: BenchmarkSettings, asked: Sequence[Asked], err: TextIO) -> tuple[list[Scored], dict[str, Any]]:
    """Asks the model; writes the catalog, the answers, the verdicts and the record."""
    output = _output(settings)
    if store.exists(store.join(output, RECORD)) and not settings.overwrite:
        raise ValueError(f"{output} already holds a benchmark: choose another --output, or replace it with --overwrite")
    catalog, places = catalog_of(asked)
    store.write(store.join(output, CATALOG), catalog)
    of_run = settings.of_run(store.join(output, CATALOG), output)
    run_record = run(of_run, io.StringIO(), err)
    rows = answer_rows(output)
    scored = score_rows(places, rows, view_of(of_run))
    lines = (json.dumps(_line(one), ensure_ascii=False) for one in scored)
    store.write(store.join(output, VERDICTS), "".join(f"{line}\n" for line in lines).encode())
    record = {
        "model": Path(settings.model).resolve().name,
        "model_revision": next((row["model_revision"] for row in rows if row["model_revision"]), None),
        "engine": settings.engine,
        "split": None if settings.case_dir else settings.split,
        "case_dir": settings.case_dir,
        "greyed": settings.greyed,
        "cases": len(scored),
        "answers_per_second": run_record["answers_per_second"],
        "errors": errors_of(scored),
        "suites": [{"suite": suite, **figures(of_suite)} for (suite,), of_suite in _grouped(scored, "suite").items()],
        "groups": [
            {"suite": suite, "level": level, **_group(settings, of_group)}
            for (suite, level), of_group in _grouped(scored, "suite", "level").items()
        ],
        "output": output,
        "run": run_record,
    }
    store.write(store.join(output, RECORD), json.dumps(record, indent=1, ensure_ascii=False).encode())
    return scored, record


def answer_rows(output: str) -> list[dict[str, Any]]:
    """Every answer row that a run wrote."""
    folder = store.join(output, "answers")
    rows: list[dict[str, Any]] = []
    for name in store.list_under(folder):
        data, _ = store.read(store.join(folder, name), _MAX_PART_BYTES)
        rows += pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows


def _grouped(scored: Sequence[Scored], *names: str) -> dict[tuple[str, ...], list[Scored]]:
    """By these fields of the cases, in the order in which the cases come."""
    groups: dict[tuple[str, ...], list[Scored]] = {}
    for one in scored:
        groups.setdefault(tuple(getattr(one.asked.case, name) for name in names), []).append(one)
    return groups


def _group(settings: BenchmarkSettings, scored: Sequence[Scored]) -> dict[str, Any]:
    kinds = _grouped(scored, "kind")
    blind = blind_figures([one.asked for one in scored], settings.blind_cases) if settings.blind_cases else {}
    return figures(scored) | blind | {"kinds": {kind: figures(of_kind) for (kind,), of_kind in kinds.items()}}


def _line(one: Scored) -> dict[str, Any]:
    case, verdict = one.asked.case, one.verdict
    asked = {"id": one.asked.id, "question": case.question, "answer": case.answer}
    return asked | {"response": one.response, "error": one.error, **asdict(verdict)}


def _output(settings: BenchmarkSettings) -> str:
    named = f"benchmark-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    output = settings.output or f"results/{named}"
    if (scheme := store.scheme(output)) not in ("", "s3"):
        raise ValueError(f"output must be a folder or an s3:// prefix, got {output}")
    return output.rstrip("/") if scheme else str(Path(output).expanduser().absolute())


def main(argv: Sequence[str]) -> int:
    """The command `benchmark.py`; returns its exit status. ValueError for what the user must mend."""
    settings = BenchmarkSettings.load(argv)
    benchmark(settings, shlex.join(["python", "jobs/benchmark.py", *(arg for arg in argv if arg != "--card")]))
    return 0
