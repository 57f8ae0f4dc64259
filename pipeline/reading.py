"""The catalog as a Ray Data source: one reading task for each of its units, and only the rows that are due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from .catalog import Catalog, Unit
from .keys import Asked, Conditions, among, row_keys, short
from .rows import IMAGE_ROWS

_BY_QUESTION = ("questions", "primitives", "gold_answers", "gold_boxes")


class CatalogSource(Datasource):
    """Image rows of a catalog, without the questions that are answered already: `done`, the sorted short keys of their
    rows, lies in Ray's object store once."""

    def __init__(self, catalog: Catalog, conditions: Conditions, done: np.ndarray) -> None:
        super().__init__()
        self._catalog = catalog
        self._conditions = conditions
        self._done: Any = ray.put(done) if len(done) else None

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(_read, unit, self._conditions, self._done),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
                schema=IMAGE_ROWS,
                per_task_row_limit=per_task_row_limit,
            )
            for unit in self._catalog.units
            if unit.num_rows
        ]


def _read(unit: Unit, conditions: Conditions, done: Any) -> Iterator[pa.Table]:
    yield from due_rows(unit, conditions, ray.get(done) if done is not None else np.empty(0, np.uint64))


def due_rows(unit: Unit, conditions: Conditions, done: np.ndarray) -> Iterator[pa.Table]:
    """IMAGE_ROWS of a unit with the questions whose keys are not among `done`; images without any are not read."""
    asked = [row for batch in unit.asked() for row in batch]
    digest = conditions.digest()
    keys = [row_keys(row, conditions, digest) for row in asked]
    flat = short(key for row in keys for key in row)
    due_flat = ~among(flat, done)
    if not due_flat.any():
        yield IMAGE_ROWS.empty_table()
        return
    ends = np.cumsum([len(row) for row in keys])
    due = [np.flatnonzero(part).tolist() for part in np.split(due_flat, ends[:-1])]
    start = 0
    for table in unit.read():
        here = slice(start, start + table.num_rows)
        yield _narrowed(table, asked[here], keys[here], due[here])
        start += table.num_rows


def _narrowed(table: pa.Table, asked: list[Asked], keys: list[list[str]], due: list[list[int]]) -> pa.Table:
    """The table with the due questions of each image alone, and without the images that have none."""
    kept = [row for row, places in enumerate(due) if places]
    table = table.take(kept)
    cells: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in _BY_QUESTION}
    cells["questions"] = [asked[row].questions for row in kept]
    for number, row in enumerate(kept):
        if len(due[row]) < len(keys[row]):
            for name, column in cells.items():
                stands_for_all = name == "primitives" and len(column[number] or ()) == 1
                column[number] = column[number] if stands_for_all else _picked(column[number], due[row])
    cells["question_ids"] = [[str(place) for place in due[row]] for row in kept]
    cells["row_keys"] = [[keys[row][place] for place in due[row]] for row in kept]
    for name, column in cells.items():
        place = IMAGE_ROWS.get_field_index(name)
        table = table.set_column(place, IMAGE_ROWS.field(name), pa.array(column, IMAGE_ROWS.field(name).type))
    return table.cast(IMAGE_ROWS)


def _picked(values: Sequence[Any] | None, places: list[int]) -> list[Any] | None:
    return None if values is None else [values[place] if place < len(values) else None for place in places]
