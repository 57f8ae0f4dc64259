"""Calls that hang are left behind; the others come back with what they found."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.waiting import HelperThreads


def test_results_and_errors_come_back_and_threads_are_used_again() -> None:
    helpers = HelperThreads()
    names = {helpers.run(lambda: threading.current_thread().ident, 10) for _ in range(20)}
    assert len(names) <= 2  # one; two when the first had not come back to rest in time
    with pytest.raises(KeyError):
        helpers.run(lambda: dict[str, int]()["none"], 10)


def test_a_call_that_hangs_is_a_timeout_and_the_next_one_is_served() -> None:
    helpers, never = HelperThreads(), threading.Event()
    with pytest.raises(TimeoutError):
        helpers.run(never.wait, 0.05)
    assert helpers.run(lambda: 3, 10) == 3
    never.set()


def test_a_hung_call_does_not_keep_the_process_from_ending() -> None:
    code = (
        "import time\nfrom pipeline.waiting import HelperThreads\n"
        "try:\n    HelperThreads().run(lambda: time.sleep(600), 0.05)\nexcept TimeoutError:\n    print('cut off')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "cut off\n"), done.stderr
