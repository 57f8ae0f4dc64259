"""The run record and the table at the end: complete, without secrets, and harmless to a terminal."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.record import run_record, summary
from pipeline.settings import Settings
from pipeline.tally import Tally

ENGINE = {
    "busy_s": 3.0, "idle_s": 1.0, "budget_full_s": 0.5, "sequence_steps": 14, "images_seen": 2,
    "process_peak_bytes": 7_000_000, "idle_reasons": {"no work": 1.0}, "steps": 7, "requests": 2, "prompt_tokens": 5,
    "output_tokens": 6, "kv_budget_bytes": 64_000_000, "kv_peak_bytes": 1_500_000, "images_in_flight_peak": 9,
    "kv_bytes_predicted": 2000, "kv_bytes_measured": 1900,
}  # fmt: skip
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def row(image_id: str = "i", answer: str = "3") -> dict[str, Any]:
    box = {"kind": "box", "part": "answer", "valid": True, "x1": 1.2, "y1": 2.0, "x2": 30.0, "y2": 40.6}
    return {
        "image_id": image_id,
        "question": "How many?",
        "answer": answer,
        "primitives": [box],
        "usage": {"kv_entries": 86},
    }


def record(
    tally: Tally | None = None, engines: int = 1, session: Tally | None = None, **settings: Any
) -> dict[str, Any]:
    times = (BEGAN, BEGAN + timedelta(seconds=20))
    whole = tally or Tally(rows=8, ok=8, images=4)
    return run_record("run-1", Settings(**settings), (whole, session or whole), [ENGINE] * engines, times, 4.0)


def test_counts_rates_and_engine_figures_are_recorded() -> None:
    tally = Tally(
        rows=8, ok=5, images=4, images_ok=3, cut_off=1, errors=Counter({"fetch/missing": 2, "decode/truncated": 1}),
        microseconds=Counter(read=1_500_000), gold_answers=4, gold_exact=3, gold_boxes=2, gold_iou=1.5,
    )  # fmt: skip
    got = record(tally, engines=2)
    assert (got["counts"]["ok"], got["counts"]["error"], got["counts"]["images_answered"]) == (5, 3, 3)
    assert got["errors"] == {"fetch": {"missing": 2}, "decode": {"truncated": 1}}
    assert (got["answers_per_second"], got["images_per_second"]) == (2.0, 1.0)
    assert got["seconds"] == {"total": 20.0, "answering": 4.0} and got["stage_seconds"]["read"] == 1.5
    engines = got["engines"]
    assert (engines["sequences_per_step"], engines["budget_full_seconds"]) == (2.0, 1.0)
    assert (engines["count"], engines["busy_share"], engines["idle_seconds"]) == (2, 0.75, {"no work": 2.0})
    assert (engines["kv_bytes_per_image"], engines["kv_bytes_per_image_predicted"]) == (950, 1000)
    assert (engines["kv_peak_bytes"], engines["images_in_flight_peak"]) == (1_500_000, 9)
    assert got["gold"] == {"answers": 4, "exact_share": 0.75, "boxes_scored": 2, "mean_iou": 0.75}
    assert set(got["versions"]) == {"python", "deixis", "ray", "torch", "pyarrow", "pillow"}


def test_a_run_without_gold_or_engines_has_no_score_and_divides_by_nothing() -> None:
    got = record(Tally(), engines=0)
    assert (got["gold"], got["engines"]["busy_share"], got["engines"]["kv_bytes_per_image"]) == (None, 0.0, 0)


@pytest.mark.parametrize(
    ("address", "kept", "secret"),
    [
        ("ray://user:hunter2@head:10001", "ray://***@head:10001", "hunter2"),
        ("s3://bucket/x?X-Amz-Signature=abcdef&part=1", "s3://bucket/x?X-Amz-Signature=***&part=1", "abcdef"),
        ("https://host/?access_token=abcdef", "https://host/?access_token=***", "abcdef"),
    ],
)
def test_secrets_in_settings_are_masked(address: str, kept: str, secret: str) -> None:
    got = record(address=address, question=[f"What is {address}?"])
    assert got["settings"]["address"] == kept
    assert secret not in str(got)


def test_the_summary_shows_answers_errors_score_and_cache() -> None:
    tally = Tally(rows=3, ok=2, images=2, cut_off=1, errors=Counter({"fetch/missing": 1}), gold_answers=2, gold_exact=1)
    shown = summary(record(tally), [row()], "results/x")
    for part in (
        "How many?", "[1 2 30 41]", "86", "3 answers for 2 images", "2 ok, 1 error\n", "fetch/missing 1", "cut off  1",
        "50.0 % of 2 answers exact", "950 bytes an image (predicted 1,000)", "1.5 of 64 MB", "busy 75 %", "results/x",
    ):  # fmt: skip
        assert part in shown


def test_nothing_in_an_answer_steers_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202etxt\nnext"
    shown = summary(record(), [row(image_id=hostile, answer=hostile)], "x")
    assert not any(character in shown for character in "\x1b\x07\r\x9b\u202e")
