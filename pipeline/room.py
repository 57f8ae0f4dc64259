"""Inside an actor: how many decoded bytes may wait, who must be alone, and a watch over an engine that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

_GRACE_SECONDS = 60.0  # beyond the deadline of an image, for an event loop that stands still
_REARM_SECONDS = 1.0  # of that: arming the watch starts a thread, so it is not done at every step of every image


class Room:
    """Many share it, or one is alone in it. Who wants to be alone goes first, and nobody enters meanwhile."""

    def __init__(self) -> None:
        self._inside = 0
        self._taken = False  # or wanted
        self._condition = asyncio.Condition()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._taken)
            self._inside += 1
        try:
            yield
        finally:
            async with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._taken)
            self._taken = True
            await self._condition.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            async with self._condition:
                self._taken = False
                self._condition.notify_all()


class Watch:
    """Ends the process when images are in flight and nothing happens for long after their deadline.

    It does not need the interpreter, so it also ends one that native code never returns to.
    """

    def __init__(self, image_seconds: float) -> None:
        self._seconds = image_seconds + _GRACE_SECONDS
        self._in_flight = 0
        self._armed = -math.inf

    @contextlib.contextmanager
    def over(self, images: int) -> Iterator[None]:
        self._in_flight += images
        self.saw_progress()
        try:
            yield
        finally:
            self._in_flight -= images
            self.saw_progress()

    def saw_progress(self) -> None:
        if not self._in_flight:
            faulthandler.cancel_dump_traceback_later()
            self._armed = -math.inf
        elif (now := time.monotonic()) - self._armed >= _REARM_SECONDS:
            faulthandler.dump_traceback_later(self._seconds, exit=True)
            self._armed = now


class ByteGate:
    """Lets work through while the bytes that it holds stay within a limit; what is larger goes through alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._condition = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._limit)
        async with self._condition:
            await self._condition.wait_for(lambda: self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            async with self._condition:
                self._held -= size
                self._condition.notify_all()
