"""How hard a host is asked: pauses between attempts, and how many requests at a time."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_LONGEST_RETRY_AFTER_SECONDS = 120.0


def pause_seconds(attempt: int) -> float:
    """How long to wait after the failed attempt 1, 2, …: doubling up to 30 s, half of it by chance."""
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """What a Retry-After header asks for, a number of seconds or a date: 0 to 120; 0 for none or nonsense."""
    if not header:
        return 0.0
    try:
        seconds = float(header) if header.strip().isdigit() else _until(header, now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


def _until(date: str, now: datetime) -> float:
    when = parsedate_to_datetime(date)
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()


class HostGate:
    """A context that lets at most `most` requests to one host through at a time, on one event loop.

    A host that says "too many" gets half as many from then on, and none until its Retry-After has passed; each
    success gives it back a little.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._allowed = float(most)
        self._inside = 0
        self._closed_until = 0.0
        self._changed = asyncio.Condition()

    @property
    def allowed(self) -> int:
        """How many may be inside at present."""
        return int(self._allowed)

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._changed:
            await self._changed.wait_for(lambda: self._inside < self.allowed)
            self._inside += 1
        try:
            while (left := self._closed_until - loop.time()) > 0:
                await asyncio.sleep(left)
        except BaseException:
            await self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        async with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def too_many(self, retry_after_seconds: float) -> None:
        self._allowed = max(self._allowed / 2, 1.0)
        self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + retry_after_seconds)

    def succeeded(self) -> None:
        self._allowed = min(self._allowed + 1 / self._allowed, self._most)
