"""The main job as a user starts it: any working directory, nothing installed, a Ray of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.pipeline.pictures import encoded, picture

JOB = Path(__file__).parents[2] / "jobs" / "catalog_qa.py"


def job(cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    removed = ("PYTHONPATH", "RAY_ADDRESS")
    environment = {key: value for key, value in os.environ.items() if key not in removed}
    return subprocess.run(
        [sys.executable, str(JOB), *argv], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )


def test_the_job_runs_from_anywhere_and_shows_a_table(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(60 + n, 40)))
    (tmp_path / "settings.yaml").write_text(f"catalog: in\nmax_output_tokens: 6\nmodel: {tiny_checkpoint}\n")
    done = job(tmp_path, "--config", "settings.yaml", "--question", "Where, then?")
    assert done.returncode == 0, done.stderr
    assert "3 answers for 3 images" in done.stdout and "Where, then?" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("3/3 answers (100 %)")
    (record,) = tmp_path.glob("results/*/run.json")
    assert json.loads(record.read_text())["counts"]["ok"] == 3
    assert pq.read_table(record.parent / "answers").num_rows == 3
    again = job(tmp_path, "--config", "settings.yaml", "--question", "Where, then?", "--output", str(record.parent))
    assert again.returncode == 0 and again.stdout.startswith("nothing to do: all 3 answers"), again.stderr


def test_a_mistake_ends_with_one_line_that_names_it(tmp_path: Path) -> None:
    done = job(tmp_path, "--catalog", "nowhere")
    assert (done.returncode, done.stdout) == (2, "") and "no catalog at" in done.stderr
    assert done.stderr.count("\n") == 1
    done = job(tmp_path, "--limits", "3")
    assert done.returncode == 2 and "--limits" in done.stderr
