"""An engine that answers at once, or as slowly as it is told, and whatever else a test asks of it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from PIL import Image

from model.request import Completion, EngineDead, EngineStats, Request, Usage
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


DEADLY = Image.new("RGB", (61, 41), (255, 0, 255))


@dataclass(frozen=True)
class Deadly:
    """Makes engines to which DEADLY does `how`: dies | exits | hangs; or that babble, whatever they are shown."""

    how: str
    kind: str = "deadly"

    def revision(self, plan: Plan) -> str:
        return "0"

    def make(self, plan: Plan) -> Engine:
        return DeadlyEngine(self.how)


class DeadlyEngine(NoopEngine):
    def __init__(self, how: str) -> None:
        super().__init__(0.01)
        self._how = how

    async def answer(self, request: Request) -> list[Completion]:
        completions = await super().answer(request)
        if self._how == "babbles":
            texts = [{"Half": "\ud83c", "No": None}.get(text.split()[0], "3") for text in request.questions]
            return [
                Completion(text, *list(vars(made).values())[1:]) for text, made in zip(texts, completions, strict=True)
            ]  # type: ignore[arg-type]
        if request.image.getpixel((0, 0)) == DEADLY.getpixel((0, 0)):
            if self._how == "dies":
                raise EngineDead("the engine stopped: it was told to")
            if self._how == "exits":
                os._exit(1)
            await asyncio.sleep(3600)
        return completions
