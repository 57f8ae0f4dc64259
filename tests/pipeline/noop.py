"""An engine that answers at once, or as slowly as it is told, and whatever else a test asks of it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from model.request import Completion, EngineDead, EngineStats, Request, RequestError, Usage
from pipeline.engines.makers import Engine, Maker, Plan
from pipeline.engines.views import NativeView, View
from tests.tiny import TINY


class NoopEngine:
    """Says how many words each question has."""

    name, revision = "noop", "0"

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

    def view(self, plan: Plan) -> View:
        return NativeView(TINY)

    def make(self, plan: Plan) -> Engine:
        return NoopEngine(self.seconds)


DEADLY = Image.new("RGB", (61, 41), (255, 0, 255))


@dataclass(frozen=True)
class Deadly:
    """Makes engines to which DEADLY does `how`: dies | exits | hangs; or that babble, whatever they are shown."""

    how: str
    inner: Maker = Noop(seconds=0.01)
    kind: str = "deadly"

    def revision(self, plan: Plan) -> str:
        return self.inner.revision(plan)

    def view(self, plan: Plan) -> View:
        return self.inner.view(plan)

    def make(self, plan: Plan) -> Engine:
        return DeadlyEngine(self.how, self.inner.make(plan))


class DeadlyEngine:
    def __init__(self, how: str, inner: Engine) -> None:
        self._how, self._inner = how, inner
        self.name, self.revision = inner.name, inner.revision

    async def answer(self, request: Request) -> list[Completion | RequestError]:
        if request.image.getpixel((30, 20)) == DEADLY.getpixel((0, 0)):
            await asyncio.sleep(0.02)  # its neighbours are in the engine by then
            if self._how == "dies":
                raise EngineDead("the engine stopped: it was told to")
            if self._how == "exits":
                os._exit(1)
            await asyncio.sleep(3600)
        outcomes = list(await self._inner.answer(request))
        return [_babble(made) for made in outcomes] if self._how == "babbles" else outcomes

    def stats(self) -> EngineStats:
        return self._inner.stats()

    def close(self) -> None:
        self._inner.close()


def _babble(made: Completion | RequestError) -> Completion:
    """Half a surrogate for questions of three words, no text at all for those of two."""
    assert isinstance(made, Completion), made
    texts: dict[str, Any] = {"</think>3": "\ud83c", "</think>2": None}
    return replace(made, text=texts.get(made.text, made.text))


@dataclass(frozen=True)
class Scripted:
    """Makes engines that say `text` to every question, and tell a cache of `kv_bytes` for each image. `fails`: refuses
    | dies | hangs | breaks | exits, at whatever comes after the first request."""

    text: str
    kv_bytes: int = 0
    fails: str = ""
    model: str = "scripted"
    look: View = field(default_factory=lambda: NativeView(TINY))
    kind: str = "scripted"

    def revision(self, plan: Plan) -> str:
        return "0"

    def view(self, plan: Plan) -> View:
        return self.look

    def make(self, plan: Plan) -> ScriptedEngine:
        return ScriptedEngine(self)


class ScriptedEngine:
    revision = "0"

    def __init__(self, script: Scripted) -> None:
        self.name, self._script = script.model, script
        self._stats = EngineStats()
        self.seen: list[tuple[int, int]] = []

    async def answer(self, request: Request) -> list[Completion]:
        self.seen.append(request.image.size)
        if len(self.seen) > 1:
            await self._fail()
        self._stats.requests += 1
        self._stats.kv_bytes_measured += self._script.kv_bytes
        usage = Usage(0, 500, 10, 0, None, False)
        return [Completion(self._script.text, (1,), "stop", 1.0, usage) for _ in request.questions]

    async def _fail(self) -> None:
        match self._script.fails:
            case "refuses":
                raise RequestError("kv_budget", "too much for it")
            case "dies":
                raise EngineDead("it was told to")
            case "hangs":
                await asyncio.sleep(3600)
            case "breaks":
                raise KeyError("of its own")
            case "exits":
                os._exit(1)

    def stats(self) -> EngineStats:
        return replace(self._stats)

    def close(self) -> None:
        pass
