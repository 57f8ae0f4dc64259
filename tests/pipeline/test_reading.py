"""Reading: the questions that are due, of the images that have any, each with its place and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog import Catalog, open_catalog
from pipeline.keys import Conditions
from pipeline.reading import due_rows
from pipeline.rows import IMAGE_ROWS
from pipeline.settings import Settings

TERMS = Conditions("native", "abc", 256, "auto", None, None, 0.0, None, None)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    columns = {
        "image_id": ["a", "b", "c"],
        "image": [b"1", b"2", b"3"],
        "questions": [["one?", "two?", "three?"], ["four?"], []],
        "primitives": [["on", "off", None], ["on"], None],
        "gold_answers": [["1", "2"], ["4"], None],
        "gold_boxes": [[[], [[0.0, 0.0, 1.0, 1.0]]], None, None],
    }
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    return open_catalog(Settings(catalog=str(tmp_path / "c.parquet")))


def due(catalog: Catalog, done: np.ndarray) -> list[dict[str, Any]]:
    tables = [table for unit in catalog.units for table in due_rows(unit, TERMS, np.sort(done))]
    assert all(table.schema.equals(IMAGE_ROWS) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_all_is_due_where_nothing_is_done(catalog: Catalog) -> None:
    rows = due(catalog, np.empty(0, np.uint64))
    assert [(row["image_id"], row["questions"], row["question_ids"]) for row in rows] == [
        ("a", ["one?", "two?", "three?"], ["0", "1", "2"]), ("b", ["four?"], ["0"]), ("c", [None], ["0"]),
    ]  # fmt: skip
    keys = [int(key[:16], 16) for row in rows for key in row["row_keys"]]
    assert keys == catalog.keys(TERMS).tolist()


def test_questions_that_are_done_go_with_all_that_belongs_to_them(catalog: Catalog) -> None:
    keys = catalog.keys(TERMS)
    rows = due(catalog, keys[[0, 2, 3]])
    assert [(row["image_id"], row["questions"], row["question_ids"]) for row in rows] == [
        ("a", ["two?"], ["1"]), ("c", [None], ["0"]),
    ]  # fmt: skip
    assert (rows[0]["primitives"], rows[0]["gold_answers"], rows[0]["gold_boxes"]) == (
        ["off"], ["2"], [[[0.0, 0.0, 1.0, 1.0]]],
    )  # fmt: skip
    (row,) = due(catalog, keys[[0, 1, 3, 4]])
    assert (row["questions"], row["primitives"], row["gold_answers"]) == (["three?"], [None], [None])


def test_one_mode_for_all_questions_stays_the_mode_of_those_that_are_left(tmp_path: Path) -> None:
    columns = {"image_id": ["a"], "image": [b"1"], "questions": [["one?", "two?"]], "primitives": [["off"]]}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    catalog = open_catalog(Settings(catalog=str(tmp_path / "c.parquet")))
    (row,) = due(catalog, catalog.keys(TERMS)[:1])
    assert (row["questions"], row["primitives"]) == (["two?"], ["off"])


def test_the_images_of_a_unit_that_is_done_are_not_read(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image_id": ["a", "b"], "image": [b"1", b"2"], "question": ["x?", "y?"]}), tmp_path / "c.parquet"
    )
    catalog = open_catalog(Settings(catalog=str(tmp_path / "c.parquet")))
    (unit,) = catalog.units

    class Unread:
        def asked(self) -> Any:
            return unit.asked()

        def read(self) -> Any:
            raise AssertionError("it was read")

    (table,) = due_rows(Unread(), TERMS, np.sort(catalog.keys(TERMS)))  # type: ignore[arg-type]
    assert table.num_rows == 0
