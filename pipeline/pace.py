"""The pace of requests to one server: how many at a time, and when the next may start, learnt from what it says."""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_WAIT_S = 3600.0  # a server that says more is not waited for longer


class Pace:
    """At most `most` requests in flight; fewer after a refusal, more again as requests go well.

    Halves at a refusal and grows by about one for each round that went well. Refusals of requests that had started
    before the last cut say nothing new and cut no further. All of one event loop.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"at least 1 request must be allowed in flight, got {most}")
        self.most = most
        self.allowed = float(most)
        self.in_flight = 0
        self._resume_at = 0.0  # time.monotonic() before which nothing starts
        self._cut_at = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Waits for a turn and holds it; yields the time.monotonic() at which it began."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight < int(self.allowed))
            self.in_flight += 1
        try:
            while (pause := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            yield time.monotonic()
        finally:
            async with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def refused(self, began: float, wait_s: float) -> None:
        """The server wants less of us: nothing starts for `wait_s` seconds, and fewer run at a time."""
        self.pause(wait_s)
        if began >= self._cut_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = time.monotonic()

    def pause(self, wait_s: float) -> None:
        """Nothing starts for so many seconds from now."""
        self._resume_at = max(self._resume_at, time.monotonic() + min(wait_s, LONGEST_WAIT_S))

    def went_well(self) -> None:
        self.allowed = min(float(self.most), self.allowed + 1 / self.allowed)


def stated_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks us to wait: Retry-After (seconds or a date), or a request budget that is used up.

    None when it says nothing that can be read.
    """
    if (after := headers.get("Retry-After")) is not None:
        try:
            return max(0.0, float(after))
        except ValueError:
            return _until(after)
    if headers.get("x-ratelimit-remaining-requests", "").strip() == "0":
        return _duration(headers.get("x-ratelimit-reset-requests", ""))
    return None


def _until(date: str) -> float | None:
    try:
        return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """Seconds of "1m30.5s" or "20ms"."""
    parts = _PARTS.findall(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None
