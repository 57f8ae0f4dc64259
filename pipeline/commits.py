"""The parts of an answers table, read back: which rows are there, and taking rows out again, a whole file at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import store
from .keys import among, short
from .rows import ANSWERS
from .sink import ANSWERS_FOLDER, TRACES_FOLDER, Format, encode, part_uri
from .tally import TRACE, TRACED_ANSWERS, Tally, tally_of

_READERS = 8
_MAX_BYTES = 1 << 40
_COUNTED = ["run_id", "question_id", "status", "error", "finish_reason", "usage", "row_key"]
_SHOWN = ["image_id", "question", "answer", "primitives"]


@dataclass(frozen=True)
class Stock:
    """The rows of a table by their short keys, in the order of its parts. Nine bytes and a number for each."""

    names: tuple[str, ...]
    part: np.ndarray  # [rows] int32: which of `names` it is in
    keys: np.ndarray  # [rows] uint64
    is_error: np.ndarray  # [rows] bool

    def doubled(self) -> np.ndarray:
        """[rows] bool: the rows whose key stands elsewhere too, all but one; answers are kept rather than errors."""
        order = np.lexsort((self.part, self.is_error, self.keys))
        again = np.zeros(len(order), dtype=bool)
        again[order[1:]] = self.keys[order[1:]] == self.keys[order[:-1]]
        return again


def part_names(output: str) -> list[str]:
    """The files of the table, in order."""
    folder = store.join(output, ANSWERS_FOLDER)
    return sorted(name for name in store.list_under(folder) if name.startswith("part-") and "/" not in name)


def take_stock(output: str) -> Stock:
    """Reads the keys of all rows. ValueError names a file that is not whole, or of an older schema."""
    names = part_names(output)
    parts, keys, errors = [np.empty(0, np.int32)], [np.empty(0, np.uint64)], [np.empty(0, bool)]
    for number, table in enumerate(_each(output, names, ["row_key", "status"])):
        parts.append(np.full(table.num_rows, number, dtype=np.int32))
        keys.append(short(table.column("row_key").to_pylist()))
        errors.append(np.array([status == "error" for status in table.column("status").to_pylist()], dtype=bool))
    return Stock(tuple(names), np.concatenate(parts), np.concatenate(keys), np.concatenate(errors))


def take_back(output: str, stock: Stock, rows: np.ndarray) -> None:
    """Takes these rows ([rows] bool of the stock) out of the table: each part is replaced at once, or removed.

    Who is stopped half way has taken out some of them, whole files at a time; the next to look finds the others.
    """
    for number in np.unique(stock.part[rows]).tolist():
        name = stock.names[number]
        table = read_part(part_uri(output, name))
        kept = table.filter(pa.array(~rows[stock.part == number]))
        if kept.num_rows:
            store.write(part_uri(output, name), encode(kept, "arrow" if name.endswith(".arrow") else "parquet"))
        else:
            store.remove(part_uri(output, name))
            store.remove(trace_uri(output, name))


def format_of(names: Sequence[str]) -> Format | None:
    """The file format of a table; None when it has no files."""
    return None if not names else "arrow" if names[0].endswith(".arrow") else "parquet"


def count(output: str, session: str) -> tuple[Tally, Tally, dict[str, int]]:
    """The sums over the whole table and over the rows of one session, and how many rows each session wrote."""
    whole, own = Tally(), Tally()
    sessions: Counter[str] = Counter()
    names = part_names(output)
    for name, table in zip(names, _each(output, names, [*_SHOWN, *_COUNTED]), strict=True):
        traced = _with_trace(output, name, table)
        whole.add(tally_of(traced))
        own.add(tally_of(traced.filter(pc.equal(table.column("run_id"), session)), shown=0))
        sessions.update(
            {pair["values"]: pair["counts"] for pair in pc.value_counts(table.column("run_id")).to_pylist()}
        )
    whole.files = len(names)
    return whole, own, dict(sorted(sessions.items()))


def read_part(uri: str, columns: list[str] | None = None) -> pa.Table:
    """A part, or some of its columns. ValueError when it is not a whole file, or lacks one of them."""
    data = _whole(uri)
    try:
        if uri.endswith(".arrow"):
            table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        else:
            table = pq.ParquetFile(pa.BufferReader(data)).read(columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{uri} is no whole file of answers ({error}): remove it, and its rows are answered again"
        ) from None
    if lacking := set(columns or ANSWERS.names) - set(table.schema.names):
        raise ValueError(f"{uri} has no column {', '.join(sorted(lacking))}: it was written by an older version")
    return table if columns is None else table.select(columns)


def trace_uri(output: str, part: str) -> str:
    return store.join(output, f"{TRACES_FOLDER}/{part.rpartition('.')[0]}.parquet")


def _with_trace(output: str, name: str, table: pa.Table) -> pa.Table:
    """The rows with what is known beyond the table; rows that were taken back since have a trace, but no more rows."""
    field, keys = TRACED_ANSWERS.field("trace"), table.column("row_key")
    try:
        found = pq.read_table(pa.BufferReader(_whole(trace_uri(output, name))))
    except (store.StoreError, FileNotFoundError):  # who removed it wants to know no more than the table says
        return table.append_column(field, pa.nulls(table.num_rows, TRACE))
    places = pc.index_in(keys, value_set=found.column("row_key").combine_chunks())
    return table.append_column(field, found.column("trace").take(places).cast(TRACE))


def _whole(uri: str) -> bytes:
    # A limit is not only checked on a local file but allocated, and ours would be any file's size.
    return store.read(uri, _MAX_BYTES)[0] if store.is_s3(uri) else Path(uri).read_bytes()


def _each(output: str, names: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    """The parts in order, some of them read ahead."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read-back") as threads:
        for start in range(0, len(names), _READERS):
            uris = [part_uri(output, name) for name in names[start : start + _READERS]]
            yield from threads.map(partial(read_part, columns=columns), uris)


def missing(asked: np.ndarray, stock: Stock) -> np.ndarray:
    """The places in `asked` ([rows] uint64, in the catalog's order) whose rows are not in the table."""
    return np.flatnonzero(~among(asked, np.sort(stock.keys)))
