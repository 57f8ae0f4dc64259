"""The job for one image, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.pipeline.pictures import encoded, picture

JOB = Path(__file__).parents[2] / "jobs" / "ask.py"


def test_json_on_standard_output_is_one_row_and_nothing_else(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    done = subprocess.run(
        [sys.executable, str(JOB), "a.png", "Where?", "--json", "--model", str(tiny_checkpoint)],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["question"] == "Where?"
