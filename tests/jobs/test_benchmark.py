"""The benchmark as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.tasks.suites import SUITES

JOB = Path(__file__).parents[2] / "jobs" / "benchmark.py"


def job(cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(JOB), *argv], cwd=cwd, capture_output=True, text=True, timeout=900)


def test_a_mistake_ends_with_one_line_that_names_it(tmp_path: Path) -> None:
    done = job(tmp_path, "--suite", "mazes")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("benchmark.py: there is no suite 'mazes'; choose from")


@pytest.mark.slow
def test_the_shipped_checkpoint_is_scored_on_every_suite_and_on_easy_vqa(tmp_path: Path) -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is a dev extra")
    suites = [*SUITES, "easy-vqa"]
    flags = [flag for suite in suites for flag in ("--suite", suite)]
    done = job(
        tmp_path, *flags, "--cases", "4", "--blind-cases", "20", "--json", "--output", "out", "--sheet", "sheets"
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [suite["suite"] for suite in record["suites"]] == suites
    assert all(group["cases"] == 4 and 0 <= group["score"] <= 1 for group in record["groups"])
    assert record["run"]["counts"]["error"] == 0 and record["errors"] == {}
    assert {path.stem for path in (tmp_path / "sheets").iterdir()} == set(suites)
