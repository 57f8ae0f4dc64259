"""One run writes to an output at a time; a lease outlives no process, and no machine for long."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest

from pipeline.lease import Lease, LostLease, require_lease


def lease(output: Path, session: str, seconds: float = 30.0) -> Lease:
    return Lease(str(output), session, StringIO(), seconds)


def test_an_output_is_one_runs_until_it_leaves(tmp_path: Path) -> None:
    with lease(tmp_path, "one"):
        require_lease(str(tmp_path), "one")
        with (
            pytest.raises(ValueError, match=r"another run is writing to .*: one \(process \d+ on "),
            lease(tmp_path, "two"),
        ):
            pass
        require_lease(str(tmp_path), "one")
    with lease(tmp_path, "two"), pytest.raises(LostLease, match="belongs to run two"):
        require_lease(str(tmp_path), "one")
    assert not (tmp_path / "_run" / "lease.json").exists()


HOLD = """
import sys, time
from pipeline.lease import Lease
with Lease(sys.argv[1], "other", sys.stderr):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lease_of_a_process_that_was_killed_here_is_free_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another run is writing"), lease(tmp_path, "mine"):
            pass
        other.kill()
        other.wait()
        began = time.monotonic()
        with lease(tmp_path, "mine"):
            assert time.monotonic() - began < 10  # nothing like the 30 s of a lease


def elsewhere(output: Path, beat: int) -> None:
    file = output / "_run" / "lease.json"
    file.parent.mkdir(exist_ok=True)
    held = {"session": "far", "host": "far", "machine": "another", "pid": 1, "started": 1, "beat": beat}
    file.write_text(json.dumps(held))


def test_a_lease_of_another_machine_is_watched_before_it_is_taken(tmp_path: Path) -> None:
    elsewhere(tmp_path, 1)
    began = time.monotonic()
    with lease(tmp_path, "mine", seconds=0.5):
        assert time.monotonic() - began >= 0.5


def test_a_lease_that_is_renewed_meanwhile_is_not_taken(tmp_path: Path) -> None:
    import threading

    elsewhere(tmp_path, 1)
    renewal = threading.Timer(0.5, elsewhere, (tmp_path, 2))
    renewal.start()
    with pytest.raises(ValueError, match="another run is writing"), lease(tmp_path, "mine", seconds=10):
        pass
    renewal.join()


def test_a_lease_is_renewed_and_its_loss_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "_run" / "lease.json"
    with lease(tmp_path, "mine", seconds=0.1) as mine:
        first = json.loads(file.read_text())["beat"]
        deadline = time.monotonic() + 30
        while json.loads(file.read_text())["beat"] == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(file.read_text())["beat"] > first and not mine.lost.is_set()
        elsewhere(tmp_path, 1)
        assert mine.lost.wait(30)
    assert json.loads(file.read_text())["session"] == "far"
