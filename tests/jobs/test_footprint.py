"""The footprint job, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.footprint.command import estimate, main
from pipeline.footprint.resolutions import SIZES

ROOT = Path(__file__).parents[2]
PAGE = ["--model", "deepseek-v4-flash-vision", "--image", "756x756", "--cache", "fp8"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_the_job_prints_json_for_programs() -> None:
    asked = [*PAGE, "--text-tokens", "64", "--output-tokens", "0", "--questions", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "jobs/footprint.py", *asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    record = json.loads(done.stdout)
    assert (record["total_bytes"], record["uncompressed_bf16_bytes"]) == (4_783_048, 18_097_152)


def test_a_mistake_is_said_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "jobs/footprint.py", "--model", "no-such"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("footprint.py: no configuration 'no-such'") and done.stderr.count("\n") == 1
    assert "deepseek-v4-flash-vision" in done.stderr


def test_the_table_says_what_the_record_holds(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *PAGE, "--output-tokens", "0", "--memory-gb", "60")
    for piece in ("2,916 patches", "span of 346", "86 entries", "4,783,048", "about 870", "limited by: sliding"):
        assert piece in text


def test_a_catalog_is_reckoned_with_from_its_headers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, size in (("a", (756, 756)), ("b", (756, 756)), ("c", (80, 80))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"answers_per_second": 0.5, "settings": {"actors": 2, "gpus_per_actor": 1.0}}))
    catalog = ["--model", PAGE[1], "--catalog", str(tmp_path), "--cache", "fp8", "--output-tokens", "0"]
    paid = ["--questions", "2", "--throughput", str(run), "--price-per-gpu-hour", "3", "--memory-gb", "1"]
    record = json.loads(printed(capsys, *catalog, *paid, "--json"))
    assert (record["images"], record["answers"], record["sizes"]) == (3, 6, 2)
    assert record["unreadable"] == {"not_an_image": 1}  # run.json itself
    one = ["--cache", "fp8", "--output-tokens", "0", "--questions", "2", "--json"]
    each = [
        json.loads(printed(capsys, *PAGE[:2], "--image", size, *one))["total_bytes"] for size in ("756x756", "80x80")
    ]
    assert record["mean_total_bytes"] == pytest.approx((2 * each[0] + each[1]) / 3)
    assert record["estimate"]["hours"] == pytest.approx(6 / 0.5 / 3600)
    assert record["estimate"]["cost"] == pytest.approx(6 / 0.5 / 3600 * 2 * 3)
    text = printed(capsys, *catalog, *paid)
    assert "6 answers at 0.5/s: 0.00333 hours, 0.02 at 3 an hour for each of 2 GPUs" in text
    assert "3 images, 6 questions, 2 sizes" in text and "not counted: 1 not_an_image" in text


def test_resolutions_make_a_table_and_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    rows: list[dict[str, Any]] = json.loads(printed(capsys, *PAGE[:2], "--plot", str(path), "--json"))
    assert [row["image"] for row in rows] == [f"{width}x{height}" for width, height in SIZES]
    by_size = {row["image"]: row for row in rows}
    # The released model's tokens end at 756x756; the variant's go on, and the peer's.
    assert by_size["3000x3000"]["image_tokens"] == by_size["756x756"]["image_tokens"] == 324
    assert by_size["3000x3000"]["larger_image_tokens"] > 1000
    assert by_size["3000x3000"]["ratio"] > by_size["3000x3000"]["larger_ratio"] > by_size["756x756"]["ratio"]
    with Image.open(path) as picture:
        assert picture.size[0] > 500


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "756"], "WIDTHxHEIGHT"),
        (["--image", "0x5"], "WIDTHxHEIGHT"),
        (["--image", "5x5", "--catalog", "x"], "not both"),
        (["--text-tokens", "1"], "text_tokens must be at least 2"),
        (["--throughput", "no-such.json"], "can't read the run record"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        main(arguments)


def test_a_run_without_a_rate_gives_no_estimate() -> None:
    with pytest.raises(ValueError, match="answers_per_second"):
        estimate({"counts": {}}, 10, None)
