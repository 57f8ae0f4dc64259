"""An engine that answers at once, or as slowly as it is told, and whatever else a test asks of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from model.request import Completion, EngineStats, Request, Usage
from pipeline.engines import Engine, Plan
from tests.tiny import TINY


class NoopEngine:
    """Says how many words each question has."""

    name, revision, config = "noop", "0", TINY

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._stats = EngineStats()

    async def answer(self, request: Request) -> list[Completion]:
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self._stats.requests += 1
        self._stats.answers += len(request.questions)
        usage = Usage(0, 0, 1, 0, 0, False)
        return [Completion(f"</think>{len(text.split())}", (1,), "stop", 1.0, usage) for text in request.questions]

    def stats(self) -> EngineStats:
        return self._stats

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Noop:
    """Makes such engines; `weights` is their revision."""

    weights: str = "0"
    seconds: float = 0.0
    kind: str = "noop"

    def revision(self, plan: Plan) -> str:
        return self.weights

    def make(self, plan: Plan) -> Engine:
        return NoopEngine(self.seconds)
