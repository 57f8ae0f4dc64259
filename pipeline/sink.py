"""Answer rows out: one table in many files, each written whole by a task; the run record comes last.

    OUTPUT/answers/part-<run id>-<number>.parquet | .arrow   the table; files appear, shrink or go, each at once
    OUTPUT/run.json                                          its presence says that the table is complete
    OUTPUT/_run/traces/<part>.parquet                        what is known of a part's rows beyond the table
    OUTPUT/_run/asked.json, lease.json                       what the table answers, and who is writing to it

What is in the parts is what is done. A part's name is given before it is written, so a task that Ray runs again
replaces its own file and doubles nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from . import store
from .lease import require_lease
from .rows import ANSWERS
from .tally import TRACED_ANSWERS, Tally, tally_of

Format = Literal["parquet", "arrow"]

RECORD = "run.json"
ANSWERS_FOLDER = "answers"
TRACES_FOLDER = "_run/traces"
_SHOWN = 8  # rows of each part that are kept to be shown
_LONGEST_PAUSE = 10.0  # seconds between two tries of a write

STORE_FAILURES = (OSError, BotoCoreError, ClientError, store.StoreError)


class WriteError(RuntimeError):
    """A file could not be written for as long as the settings allow."""


def write_part(
    output: str, format: Format, session: str, number: int, retry_seconds: float, *blocks: pa.Table
) -> Tally:
    """Writes blocks of TRACED_ANSWERS as one file and returns their sums; runs in a task of Ray's.

    Nothing is there of a file that is not whole. LostLease when the output is another run's by now.
    """
    began = time.perf_counter()
    block = pa.concat_tables(blocks)
    assert block.schema.equals(TRACED_ANSWERS), block.schema
    answers, name = block.select(ANSWERS.names).cast(ANSWERS), f"part-{session}-{number:06}"
    trace = pa.BufferOutputStream()
    pq.write_table(block.select(["row_key", "trace"]), trace, compression="zstd")
    # The trace first: a part that is there has one.
    for uri, data in (
        (store.join(output, f"{TRACES_FOLDER}/{name}.parquet"), trace.getvalue().to_pybytes()),
        (part_uri(output, f"{name}.{format}"), encode(answers, format)),
    ):
        patiently(f"write {uri}", partial(_write_leased, output, session, uri, data), retry_seconds)
    tally = tally_of(block, shown=_SHOWN)
    tally.files = 1
    tally.microseconds["write"] = round((time.perf_counter() - began) * 1e6)
    return tally


def part_uri(output: str, name: str) -> str:
    return store.join(output, f"{ANSWERS_FOLDER}/{name}")


def _write_leased(output: str, session: str, uri: str, data: bytes) -> None:
    require_lease(output, session)
    store.write(uri, data)


def patiently(
    what: str, act: Callable[[], None], retry_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Does something to a store, trying again for a while: disks are cleared and buckets come back. WriteError when
    it did not."""
    began, pause = time.monotonic(), 0.25
    while True:
        try:
            return act()
        except STORE_FAILURES as error:
            left = retry_seconds - (time.monotonic() - began)
            if left <= 0:
                raise WriteError(f"can't {what}, tried for {retry_seconds:g} s: {error}") from None
            sleep(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(pause * 2, _LONGEST_PAUSE)


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
    store.write(part_uri(output, f"part-none.{format}"), encode(ANSWERS.empty_table(), format))
