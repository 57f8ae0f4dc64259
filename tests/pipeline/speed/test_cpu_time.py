"""What a command costs, its children and those that ended among them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipeline.speed.cpu_time import Watched, cpu_below, watched

# A child burns a second and a half, stays for six looks, and ends before its parent does.
_WORK = (
    "import subprocess, sys, time\n"
    "burn = 'import time\\nwhile time.process_time() < 1.5: pass'\n"
    "subprocess.run([sys.executable, '-c', burn + chr(10) + 'time.sleep(3)'])\n"
    "time.sleep(0.6); print('done')\n"
)


@pytest.mark.slow
def test_the_cpu_of_children_that_ended_is_kept(tmp_path: Path) -> None:
    done = watched([sys.executable, "-c", _WORK], os.environ, tmp_path / "log", 300)
    assert (done.status, done.said.strip()) == (0, "done")
    assert done.cpu_seconds[-1] >= 1.4 and list(done.cpu_seconds) == sorted(done.cpu_seconds)


def test_between_two_moments_is_what_was_spent_between_the_looks() -> None:
    done = Watched(0, "", [10.0, 11.0, 12.0, 13.0], [0.0, 1.0, 3.0, 6.0])
    assert done.cpu_between(10.5, 12.0) == 2.0
    assert done.cpu_between(9.0, 99.0) == 6.0


def test_one_that_never_ends_is_killed_and_one_that_is_not_there_is_explained(tmp_path: Path) -> None:
    assert watched(["sleep", "1000"], os.environ, tmp_path / "log", 0.1).status < 0
    with pytest.raises(ValueError, match="can't be run"):
        watched(["/no/such/python"], os.environ, tmp_path / "log", 1)


def test_a_process_is_below_itself() -> None:
    assert cpu_below(os.getpid())[os.getpid()] > 0
