"""The comparison with Ray's processor: its catalog, and figures that neither side's start is in."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.speed.cpu_time import Watched
from pipeline.speed.ray_llm_speed import SIZE, Side, compared, write_catalog


def test_one_image_in_fifty_is_cut_off_in_its_middle(tmp_path: Path) -> None:
    rows = pq.read_table(write_catalog(tmp_path / "c.parquet", 60, 3, 50)).to_pylist()
    broken = []
    for row in rows:
        assert len(row["questions"]) == 3
        image = Image.open(io.BytesIO(row["image"]))
        assert image.size == SIZE
        try:
            image.load()
        except OSError:
            broken.append(row["image_id"])
    assert broken == ["i00025"]


def test_a_rate_leaves_out_the_first_quarter_and_cpu_is_of_the_same_time() -> None:
    at = [100.0 + n for n in range(4)] + [110.0 + n / 2 for n in range(1, 13)]
    cpu = Watched(0, "", [90.0, 110.5, 116.0], [50.0, 60.0, 71.0])
    figures = Side(at, 2, None, cpu).figures()
    assert (figures["answers"], figures["failed_rows"], figures["answers_per_second"]) == (16, 2, 2.0)
    assert figures["cpu_milliseconds_per_answer"] == pytest.approx(1000)
    assert (figures["whole_seconds"], figures["whole_cpu_seconds"]) == (26.0, 71.0)


def test_a_run_that_answered_nothing_has_no_rate() -> None:
    nothing = Side([], 0, "UnidentifiedImageError", Watched(0, "", [0.0], [0.0]))
    assert nothing.figures() == {"answers": 0, "failed_rows": 0, "ended": "UnidentifiedImageError"}


def test_a_python_that_can_run_nothing_is_explained(tmp_path: Path) -> None:
    options = argparse.Namespace(
        python=sys.executable,
        model=str(tmp_path),
        images=3,
        questions=1,
        tokens=1,
        rounds=1,
        kv_budget_mb=1,
        all_stages=False,
    )
    with pytest.raises(ValueError, match=r"the run of ours ended with 2:(.|\n)*no vllm checkpoint|needs its libraries"):
        compared(options)
