"""Answer rows out: one table in many files, each written whole by a task; the run record comes last.

    OUTPUT/answers/part-<hash of its rows' ids>.parquet | .arrow
    OUTPUT/run.json                                        its presence says that the run is complete

A part's name depends on its rows alone, so a task that Ray runs again replaces its own file and doubles nothing.
What is in the parts is what is done: a run that goes on after a crash can read their ids and leave those rows out.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from . import store
from .rows import ANSWERS

Format = Literal["parquet", "arrow"]

RECORD = "run.json"
_FOLDER = "answers"
_FIRST_ANSWERS = 64  # kept to be shown: all of a small run, see `record.summary`

# What the answering stage knows beyond the answers table: for the run record, never written. An image's figures
# stand in the row of its first question and are null in the others, so that sums over rows are right.
TRACE = pa.struct(
    [
        ("first_of_image", pa.bool_()),
        ("read_seconds", pa.float64()),
        ("fetch_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
        ("answer_seconds", pa.float64()),
        ("notes", pa.list_(pa.string())),
        ("gold_exact", pa.bool_()),
        ("gold_iou", pa.float64()),
    ]
)
TRACED_ANSWERS = ANSWERS.append(pa.field("trace", TRACE))


@dataclass
class Tally:
    """Sums over answer rows: of one written file, and of a whole run."""

    rows: int = 0
    ok: int = 0
    images: int = 0
    images_ok: int = 0
    cut_off: int = 0
    shared_prefill: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # "stage/kind"
    notes: Counter[str] = field(default_factory=Counter)
    microseconds: Counter[str] = field(default_factory=Counter)  # by stage, summed over images
    gold_answers: int = 0
    gold_exact: int = 0
    gold_boxes: int = 0
    gold_iou: float = 0.0
    files: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)  # some answer rows, to be shown

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)
        del self.first[_FIRST_ANSWERS:]


class AnswerSink:
    """Writes blocks of TRACED_ANSWERS as files of the answers table; called in Ray's tasks."""

    def __init__(self, output: str, format: Format) -> None:
        self.output = output
        self.format = format

    def write(self, block: pa.Table) -> pa.Table:
        """Writes one file and returns its Tally, as a table of one row with one column of JSON."""
        began = time.perf_counter()
        answers = block.select(ANSWERS.names).cast(ANSWERS)
        tally = tally_of(block)
        if answers.num_rows:
            name = f"{_FOLDER}/{_part_name(answers, self.format)}"
            store.write(store.join(self.output, name), encode(answers, self.format))
            tally.files = 1
        tally.microseconds["write"] = round((time.perf_counter() - began) * 1e6)
        return pa.table({"tally": [json.dumps(vars(tally))]})


def parse_tally(text: str) -> Tally:
    values = json.loads(text)
    return Tally(**{**values, **{name: Counter(values[name]) for name in ("errors", "notes", "microseconds")}})


def encode(answers: pa.Table, format: Format) -> bytes:
    """The table as the bytes of a Parquet or Arrow IPC file, under the declared schema and no other."""
    assert answers.schema.equals(ANSWERS, check_metadata=True), (answers.schema, ANSWERS)
    buffer = pa.BufferOutputStream()
    if format == "parquet":
        pq.write_table(answers, buffer, compression="zstd")
    else:
        with pa.ipc.new_file(buffer, ANSWERS) as writer:
            writer.write_table(answers)
    return buffer.getvalue().to_pybytes()


def write_empty(output: str, format: Format) -> None:
    """One file without rows, so that the table of an empty catalog can be read like any other."""
    empty = ANSWERS.empty_table()
    store.write(store.join(output, f"{_FOLDER}/{_part_name(empty, format)}"), encode(empty, format))


def prepare_output(output: str, overwrite: bool) -> None:
    """ValueError when the output already holds answers and may not be overwritten; else it holds none afterwards."""
    record, answers = store.join(output, RECORD), store.join(output, _FOLDER)
    parts = [name for name in store.list_under(answers) if name.startswith("part-")]
    if not parts and not store.exists(record):
        return
    if not overwrite:
        raise ValueError(f"{output} already holds answers: choose another --output, or replace them with --overwrite")
    store.remove(record)  # first: without it nothing claims to be complete
    for name in parts:
        store.remove(store.join(answers, name))


def tally_of(block: pa.Table) -> Tally:
    """The sums over a block of TRACED_ANSWERS."""
    tally = Tally(rows=block.num_rows)
    names = ["image_id", "question", "status", "error", "answer", "primitives", "finish_reason", "usage", "trace"]
    for row in block.select(names).to_pylist():
        _count(tally, row)
        if row["status"] == "ok" and len(tally.first) < _FIRST_ANSWERS:
            tally.first.append(row)
    return tally


def _count(tally: Tally, row: dict[str, Any]) -> None:
    trace, ok = row["trace"], row["status"] == "ok"
    tally.ok += ok
    tally.images += trace["first_of_image"]
    tally.images_ok += trace["first_of_image"] and ok
    if ok:
        tally.cut_off += row["finish_reason"] == "length"
        tally.shared_prefill += row["usage"]["shared_prefill"]
        tally.prompt_tokens += row["usage"]["prompt_tokens"]
        tally.output_tokens += row["usage"]["output_tokens"]
    else:
        tally.errors[f"{row['error']['stage']}/{row['error']['kind']}"] += 1
    tally.notes.update(trace["notes"] or ())
    for stage in ("read", "fetch", "decode", "answer"):
        tally.microseconds[stage] += round((trace[f"{stage}_seconds"] or 0.0) * 1e6)
    if trace["gold_exact"] is not None:
        tally.gold_answers += 1
        tally.gold_exact += trace["gold_exact"]
    if trace["gold_iou"] is not None:
        tally.gold_boxes += 1
        tally.gold_iou += trace["gold_iou"]


def _part_name(answers: pa.Table, format: Format) -> str:
    ids = answers.select(["image_id", "question_id"]).to_pydict()
    digest = hashlib.sha256(json.dumps(ids, sort_keys=True).encode()).hexdigest()
    return f"part-{digest[:20]}.{format}"
