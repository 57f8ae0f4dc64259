"""Committing: files fill up or go out in time, and a store that fails stops the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.committing import Committer
from pipeline.lease import Lease, LostLease
from pipeline.sink import WriteError
from tests.pipeline.test_sink import block, ok_row, read

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    with Lease(str(tmp_path), "s", StringIO()) as held:
        yield held


def committer(lease: Lease, output: Path, rows: int = 4, seconds: float = 3600.0) -> Committer:
    return Committer(lease, str(output), "parquet", "s", rows, seconds, 0.0)


def blocks(*names: str) -> list[Any]:
    return [ray.put(block(ok_row(name, 0), ok_row(name, 1))) for name in names]


def parts(output: Path) -> list[int]:
    return [read(file).num_rows for file in sorted((output / "answers").glob("part-*"))]


def test_a_file_is_written_when_it_is_full_and_the_rest_at_the_end(lease: Lease, tmp_path: Path) -> None:
    with committer(lease, tmp_path) as files:
        for name in "abcde":
            files.add(blocks(name), 2)
    assert parts(tmp_path) == [4, 4, 2]
    assert (files.tally.rows, files.tally.files, files.tally.images) == (10, 3, 5)


def test_rows_wait_no_longer_than_they_may(lease: Lease, tmp_path: Path) -> None:
    with committer(lease, tmp_path, rows=1000, seconds=0.2) as files:
        files.add(blocks("a"), 2)
        deadline = time.monotonic() + 60
        while not parts(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert parts(tmp_path) == [2]  # while the context is still open


def test_what_was_added_is_kept_when_something_else_breaks(lease: Lease, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), committer(lease, tmp_path) as files:
        files.add(blocks("a"), 2)
        raise KeyboardInterrupt
    assert parts(tmp_path) == [2]


def test_a_write_that_fails_is_raised_with_its_own_words(lease: Lease, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("a file where a folder has to be")
    with pytest.raises(WriteError, match=r"can't write .*part-s-000000\.parquet"), committer(lease, tmp_path) as files:
        files.add(blocks("a"), 2)


def test_a_run_whose_lease_is_lost_adds_nothing_more(lease: Lease, tmp_path: Path) -> None:
    with pytest.raises(LostLease), committer(lease, tmp_path) as files:
        lease.lost.set()
        files.add(blocks("a"), 2)
    assert not (tmp_path / "answers").exists()
