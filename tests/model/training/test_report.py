"""The report: validation cases are asked greedily, and the tables say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from model.training.report import markdown, rewards_table, scores_table, validation_scores, write_report
from model.training.rollouts import Sampler
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CPU, checkpoint

SCORES = {
    "base": {"maze": {"score": 0.25, "exact": 0.5, "well_formed": 1.0, "cases": 8.0}},
    "box_sft": {
        "maze": {"score": 0.125, "exact": 0.25, "well_formed": 1.0, "cases": 8.0},
        "counting": {"score": 0.75, "exact": 0.625, "well_formed": 1.0, "cases": 8.0},
    },
}
HISTORY = [
    {"reward": r, "format": 1.0, "quality": 0.5, "accuracy": r, "correct": r} for r in (0.1, 0.3, 0.5, 0.5, 0.5, 0.9)
]


def test_scores_are_of_each_suite_over_all_its_validation_cases(tmp_path: Path) -> None:
    sampler = Sampler(DEFAULT_CHECKPOINT, CPU, 8)
    sources = "maze/easy", "counting/easy", "maze/medium"
    first, again = (validation_scores(checkpoint(tmp_path / name), sampler, sources, 2) for name in "ab")
    assert first == again
    assert {suite: scores["cases"] for suite, scores in first.items()} == {"maze": 4, "counting": 2}
    assert all(0 <= scores[name] <= 1 for scores in first.values() for name in ("score", "exact"))
    assert all(scores["well_formed"] == 1 for scores in first.values())


def test_tables_have_a_row_for_each_stage() -> None:
    assert markdown(scores_table(SCORES)).splitlines() == [
        "| validation: score (exact) | maze | counting |",
        "|---|---|---|",
        "| base | 0.250 (50 %) |  |",
        "| box_sft | 0.125 (25 %) | 0.750 (62 %) |",
    ]
    assert markdown(rewards_table({"base": [{"loss": 1.0}], "box_rl": HISTORY})).splitlines()[2:] == [
        "| box_rl | 0.200 -> 0.700 | 1.000 -> 1.000 | 0.500 -> 0.500 | 0.200 -> 0.700 | 0.200 -> 0.700 |"
    ]


def test_a_report_is_json_markdown_and_a_picture(tmp_path: Path) -> None:
    write_report(tmp_path, SCORES, {"box_rl": HISTORY})
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["scores"] == SCORES and document["histories"]["box_rl"] == HISTORY
    assert markdown(scores_table(SCORES)) in (tmp_path / "report.md").read_text()
    for name in ("curves.png", "report.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
