"""The comparison as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "jobs" / "compare.py"


def job(cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(JOB), *argv], cwd=cwd, capture_output=True, text=True, timeout=600)


def test_a_mistake_ends_with_one_line_that_names_it(tmp_path: Path) -> None:
    done = job(tmp_path, "--engine", "native", "--engine", "native colour=red")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("compare.py: --engine 'native colour=red': unknown setting colour; the settings are")


@pytest.mark.slow
def test_two_engines_are_compared_on_the_bundled_catalog(tmp_path: Path) -> None:
    engines = ["native kv_budget_mb=4", "native temperature=1.5"]
    flags = [flag for engine in engines for flag in ("--engine", engine)]
    done = job(tmp_path, *flags, "--limit", "3", "--output", "out", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert list(record["engines"]) == engines and record["counts"]["images"] == 3
    assert "Warning" not in done.stderr
