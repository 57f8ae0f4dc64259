"""The driver is killed at random moments, and the same command ends with every row once."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.pipeline.tables import answers, write_catalog
from tests.pipeline.trials.drivers import Driver, start

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

KILLS = 20
ROWS = 400
SEED = 6


def test_a_driver_killed_at_twenty_random_moments_leaves_every_row_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", ROWS // 2, ["Where is it?", "How many?"])
    settings: dict[str, Any] = {
        "catalog": str(catalog), "model": str(tiny_checkpoint), "max_output_tokens": 4, "device": "cpu",
        "address": ray.get_runtime_context().gcs_address, "rows_per_file": 20, "commit_seconds": 0.5,
        "images_in_flight": 16,
    }  # fmt: skip

    def started(output: Path) -> Driver:
        return start(tmp_path / "result.json", **settings, output=str(output))

    for name in ("cold", "warm"):
        began = time.monotonic()
        started(tmp_path / name).finished()
    whole = time.monotonic() - began
    moments = random.Random(SEED)
    kept_rows, seconds = [], []
    for trial in range(KILLS):
        output = tmp_path / f"out{trial}"
        began = time.monotonic()
        driver = started(output)
        driver.process.join(moments.uniform(whole / 3, whole))  # before that it only joins the cluster
        driver.process.kill()
        driver.process.join()
        kept = {(row["image_id"], row["question_id"]): row for row in answers(output)} if has_parts(output) else {}
        record = started(output).finished()
        rows = {(row["image_id"], row["question_id"]): row for row in answers(output)}
        assert len(rows) == record["counts"]["answers"] == record["counts"]["ok"] == ROWS, trial
        assert all(rows[key] == row for key, row in kept.items()), "an answer that was committed was answered again"
        kept_rows.append(len(kept))
        seconds.append(time.monotonic() - began)
        print(f"trial {trial}: {len(kept)} rows kept, 400 once at the end, {seconds[-1]:.0f} s", flush=True)
    print(f"\n{KILLS} kills within {whole:.1f} s: rows kept {kept_rows}; {sum(seconds):.0f} s in all")
    assert any(0 < kept < ROWS for kept in kept_rows), "no kill hit the middle of a run"


def has_parts(output: Path) -> bool:
    return any((output / "answers").glob("part-*"))
