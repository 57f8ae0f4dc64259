"""How long an answer waits for its file, on a slow engine."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.noop import Noop
from tests.pipeline.tables import ran_noop, write_catalog

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

COMMIT_SECONDS = 2.0
SLACK = 30.0  # for a machine that is busy; what was seen is printed


def test_answers_of_a_slow_engine_wait_no_longer_than_they_may(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 60, ["Where is it?", "How many?"])
    began = time.monotonic()
    ran_noop(catalog, tmp_path / "out", Noop(seconds=1.0), images_in_flight=4, commit_seconds=COMMIT_SECONDS)
    took = time.monotonic() - began
    waits = []
    for file in (tmp_path / "out" / "answers").glob("part-*"):
        (answered, *_) = sorted(pq.read_table(file).column("answered_at").to_pylist())
        waits.append(file.stat().st_mtime - answered.timestamp())
    print(f"\n{len(waits)} files in {took:.0f} s; the oldest answer of a file had waited {max(waits):.1f} s at most")
    assert len(waits) > 3 and max(waits) < COMMIT_SECONDS + SLACK
