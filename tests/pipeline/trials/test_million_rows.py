"""A million rows: what the pipeline costs beside the model, and that its memory does not grow with the table."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.catalog import open_catalog
from pipeline.commits import take_stock
from pipeline.engines.makers import Plan, conditions
from pipeline.rows import ANSWERS
from pipeline.settings import Settings
from tests.pipeline.noop import Noop
from tests.pipeline.pictures import encoded, picture
from tests.pipeline.trials.drivers import start
from tests.pipeline.trials.processes import below, resident_bytes

pytestmark = pytest.mark.slow

IMAGES, QUESTIONS = 50_000, 20
ROWS = IMAGES * QUESTIONS
GROWTH = 1.3  # of memory, between the first half of a run and its end


def test_a_million_image_rows_are_checked_in_little_memory(tmp_path: Path) -> None:
    schema = pa.schema([("image_id", pa.string()), ("image", pa.string())])
    with pq.ParquetWriter(tmp_path / "c.parquet", schema) as file:
        for start in range(0, ROWS, 50_000):
            ids = [f"image-{n:09}" for n in range(start, start + 50_000)]
            file.write_table(pa.table({"image_id": ids, "image": [f"{id_}.png" for id_ in ids]}, schema=schema))
    catalog = open_catalog(Settings(catalog=str(tmp_path / "c.parquet"), question=["Where is it?"]))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert catalog.check() == ROWS
    checked = time.process_time() - began
    keys = catalog.keys(conditions(Plan.of(Settings(), "run"), Noop()))
    keyed = time.process_time() - began - checked
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"\n{ROWS:,} image rows: ids checked in {checked:.1f} s of CPU, keys made in {keyed:.1f} s;", end=" ")
    print(f"{keys.nbytes / 1e6:.0f} MB of keys, the peak grew by {grown / 1e6:.0f} MB")
    assert keys.nbytes == 8 * ROWS == 8 * len(np.unique(keys))
    assert grown < 400e6


def test_a_million_answers_pass_in_flat_memory(tmp_path: Path) -> None:
    image = encoded(picture(8, 8, (1, 1, 4, 4)))
    columns = {"image_id": [f"i{n}" for n in range(IMAGES)], "image": [image] * IMAGES}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet", row_group_size=5_000)
    began = time.monotonic()
    driver = start(
        tmp_path / "r.json", Noop(), catalog=str(tmp_path / "c.parquet"), output=str(tmp_path / "out"),
        question=[f"Question number {n}?" for n in range(QUESTIONS)], rows_per_file=10_000,
    )  # fmt: skip
    samples: list[tuple[float, int, int]] = []
    while driver.process.is_alive():
        workers = max((resident_bytes(pid) for pid in below(driver.process.pid)), default=0)
        samples.append((time.monotonic() - began, resident_bytes(driver.process.pid), workers))
        time.sleep(1.0)
    record = driver.finished()
    seconds = record["seconds"]["answering"]
    schemas = {
        pq.read_schema(file).equals(ANSWERS, check_metadata=True) for file in (tmp_path / "out" / "answers").iterdir()
    }
    stock = take_stock(str(tmp_path / "out"))
    assert record["counts"]["ok"] == ds.dataset(tmp_path / "out" / "answers").count_rows() == ROWS
    assert len(np.unique(stock.keys)) == ROWS and schemas == {True}
    print(f"\n{ROWS:,} answers to {IMAGES:,} images in {seconds:.0f} s: {ROWS / seconds:,.0f} rows/s,", end=" ")
    print(f"{IMAGES / seconds:,.0f} images/s, {seconds / ROWS * 1e6:.0f} us a row; {record['counts']['files']} files")
    for name, place in (("driver", 1), ("largest other process", 2)):
        first = max(sample[place] for sample in samples[: len(samples) // 2])
        last = max(sample[place] for sample in samples)
        print(f"{name}: at most {first / 1e6:.0f} MB in the first half, {last / 1e6:.0f} MB in all")
        assert last < GROWTH * first, name
