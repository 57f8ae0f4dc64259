"""The collector: totals of all workers, and suspects that outlive it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import collector
from pipeline.collector import Collector, forget_suspects

DONE = {"images": 2, "answers": 4, "errors": 1}


@pytest.fixture(autouse=True)
def every_node_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_is_alive", lambda node: True)


def test_a_workers_last_report_counts_and_workers_add_up(tmp_path: Path) -> None:
    told = Collector(str(tmp_path), 1)
    for worker in ("w1", "w1", "w2"):
        told.report(worker, DONE, {"steps": 1}, [], 0)
    assert told.progress() == {"images": 4, "answers": 8, "errors": 2} and len(told.engines()) == 2


def test_suspects_outlive_the_collector_until_they_are_forgotten(tmp_path: Path) -> None:
    def known(worker: str) -> Any:
        return Collector(str(tmp_path), 1).begin(worker, "n", ["a"])

    told = Collector(str(tmp_path), 1)
    told.begin("w1", "n", ["a", "\ud83c"])
    assert known("w9") == {}
    told.begin("w2", "n", ["a", "\ud83c"])
    assert known("w9")["a"].attempts == 2 and told.deaths() == 1
    forget_suspects(str(tmp_path))
    assert known("w9") == {}
