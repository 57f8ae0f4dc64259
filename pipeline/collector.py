"""What the actors tell while they work, kept in one small actor: progress, engine figures, deaths."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

# A row can kill an engine, and Ray would start another one for ever.
DEATHS_ALLOWED = 3


class Collector:
    """Each actor's latest figures. They are totals since the actor began, so a report that is lost does no harm."""

    def __init__(self) -> None:
        self._done: dict[str, Mapping[str, int]] = {}
        self._engines: dict[str, Mapping[str, Any]] = {}
        self._deaths: list[str] = []
        self._first_report: float | None = None

    def report(self, actor: str, done: Mapping[str, int], engine: Mapping[str, Any]) -> None:
        if self._first_report is None:
            self._first_report = time.monotonic()
        self._done[actor] = done
        self._engines[actor] = engine

    def report_death(self, why: str) -> int:
        self._deaths.append(why)
        return len(self._deaths)

    def progress(self) -> dict[str, int]:
        names = ("images", "answers", "errors")
        return {name: sum(done[name] for done in self._done.values()) for name in names}

    def seconds_answering(self) -> float:
        """Since the first engine was ready to answer."""
        return 0.0 if self._first_report is None else time.monotonic() - self._first_report

    def engines(self) -> list[Mapping[str, Any]]:
        return list(self._engines.values())

    def deaths(self) -> list[str]:
        return self._deaths
