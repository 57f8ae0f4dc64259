"""The speed command from end to end, on a tiny checkpoint with tiny numbers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.runner import multiplies_bf16
from pipeline.speed import rates
from pipeline.speed.command import SIZES, Options, benchmark, draw_requests, main
from tests.tiny import TINY

KV_BUDGET_MB = 1


@pytest.fixture(scope="module")
def printed(tiny_checkpoint: Path, local_ray: None) -> tuple[list[str], dict[str, Any]]:
    """What it printed, as lines, and what it returned."""
    options = Options(
        model=str(tiny_checkpoint),
        images=3,
        job_images=4,
        questions=2,
        max_output_tokens=8,
        decode_tokens=4,
        kv_budget_mb=KV_BUDGET_MB,
        threads=1,
    )
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "REPEATS", 1)
        patch.setattr(rates, "BATCHES", (1, 4))
        record = benchmark(options, out, io.StringIO())
    return out.getvalue().splitlines(), record


def test_the_last_line_is_the_record_as_json_after_a_table(printed: tuple[list[str], dict[str, Any]]) -> None:
    lines, record = printed
    assert json.loads(lines[-1]) == record
    names = {line[:18].strip() for line in lines[:-1]}
    assert {"job", "job with startup", "engine", "reference", "decode", "transformers"} <= names


def test_each_ratio_is_that_of_its_parts(printed: tuple[list[str], dict[str, Any]]) -> None:
    _, record = printed
    for ratio, above, below in (
        ("job_to_engine_ratio", "job_answers_per_second", "engine_answers_per_second"),
        ("shared_to_separate_ratio", "shared_image_answers_per_second", "separate_images_answers_per_second"),
        ("engine_to_reference_ratio", "engine_answers_per_second", "reference_answers_per_second"),
        ("decode_to_transformers_ratio", "decode_output_tokens_per_second", "transformers_output_tokens_per_second"),
        (
            "decode_bf16_to_transformers_bf16_ratio",
            "decode_bf16_output_tokens_per_second",
            "transformers_bf16_output_tokens_per_second",
        ),
    ):
        if "bf16" in ratio and not multiplies_bf16():
            assert ratio not in record
            continue
        assert record[below] > 0
        assert record[ratio] == pytest.approx(record[above] / record[below], rel=2e-3)
    assert record["job_with_startup_answers_per_second"] == pytest.approx(
        record["job_images"] * record["questions_per_image"] / record["job_with_startup_seconds"], rel=2e-3
    )
    for side in ("decode", "transformers"):
        by_batch = record[f"{side}_output_tokens_per_second_by_batch"]
        assert by_batch.keys() == {"1", "4"}
        assert record[f"{side}_output_tokens_per_second"] == max(by_batch.values())
        assert by_batch[str(record[f"{side}_best_batch_sequences"])] == max(by_batch.values())


def test_what_is_compared_did_the_same_work(printed: tuple[list[str], dict[str, Any]]) -> None:
    _, record = printed
    assert record["reference_questions"] == 6
    assert record["reference_equals_engine_share"] == 1.0
    # Random weights tie at zero in the indexer, and either may break a tie its way; test_peer.py has no ties.
    assert record["decode_equals_transformers_tokens_share"] > 0.8


def test_images_in_flight_are_what_the_budget_holds(printed: tuple[list[str], dict[str, Any]]) -> None:
    _, record = printed
    budget, rows = record["kv_budget_bytes"], record["kv_by_context"]
    assert budget == KV_BUDGET_MB * 1_000_000
    assert [row["context_tokens"] for row in rows[1:]] == [768, 4096]
    for row in rows:
        bytes_per_token = TINY.num_hidden_layers * TINY.head_dim * 4  # fp32
        assert row["uncompressed_bytes_per_image"] == row["context_tokens"] * bytes_per_token
        for kind in ("compressed", "uncompressed"):
            held = row[f"{kind}_images_in_flight"] * row[f"{kind}_bytes_per_image"]
            assert held <= budget < 2 * held + row[f"{kind}_bytes_per_image"]
    for row, packed in zip(rows, record["kv_fp8_by_context"], strict=True):
        assert packed["context_tokens"] == row["context_tokens"]
        assert packed["uncompressed_bytes_per_image"] * 2 == row["uncompressed_bytes_per_image"]
        assert packed["compressed_bytes_per_image"] < row["compressed_bytes_per_image"] / 2
    assert rows[2]["compressed_images_in_flight"] > 2 * rows[2]["uncompressed_images_in_flight"]
    assert 1 <= record["kv_images_in_flight_measured"] <= rows[0]["compressed_images_in_flight"]


def test_the_scenes_are_the_same_every_time_and_of_mixed_sizes() -> None:
    first, again = draw_requests(5, 3, 8), draw_requests(5, 3, 8)
    assert [request.image.size for request in first] == [*SIZES, SIZES[0]]
    for one, other in zip(first, again, strict=True):
        assert one.questions == other.questions and len(one.questions) == 3
        assert one.image.tobytes() == other.image.tobytes()


def test_a_number_that_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--images", "0"])
    assert "--images: must be a whole number, at least 1, got '0'" in capsys.readouterr().err


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint"):
        main(["--model", str(tmp_path)])


def test_a_side_that_got_much_slower_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "GIVEN_UP_SHARE", 2.0)  # nothing can be that fast
    by_batch: dict[int, float] = {}
    tokens = torch.zeros(1)
    assert rates._rate(by_batch, 1, 4, lambda: tokens) is tokens
    assert rates._rate(by_batch, 8, 4, lambda: tokens) is None
    assert by_batch.keys() == {1}


@pytest.mark.parametrize(("patience", "calls"), [(1e6, rates.REPEATS), (1e-12, 1)])
def test_what_is_slow_is_not_repeated(patience: float, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PATIENCE_SECONDS", patience)
    results = iter(range(10))
    assert [result for _, result in rates.repeat(lambda: next(results))] == list(range(calls))
