"""How hard a host is asked: pauses between attempts, how many requests at a time, and when none, as it says itself."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_LONGEST_WAIT_SECONDS = 120.0
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def pause_seconds(attempt: int) -> float:
    """How long to wait after the failed attempt 1, 2, …: doubling up to 30 s, half of it by chance."""
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 20), _LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def stated_wait_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """What a response asks us to wait: Retry-After, a number of seconds or a date, or a budget of requests that is used
    up. None when it says nothing that can be read."""
    if (after := headers.get("Retry-After")) is not None:
        try:
            seconds = float(after) if after.strip().replace(".", "", 1).isdigit() else _until(after, now)
        except (ValueError, TypeError, OverflowError):
            return None
        return max(seconds, 0.0)
    if headers.get("x-ratelimit-remaining-requests", "").strip() == "0":
        parts = _PARTS.findall(headers.get("x-ratelimit-reset-requests", ""))  # as 1m30.5s or 20ms
        return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None
    return None


def _until(date: str, now: datetime) -> float:
    when = parsedate_to_datetime(date)
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()


class HostGate:
    """A context that lets at most `most` requests to one host through at a time, on one event loop.

    It yields the time.monotonic() at which the request was let in. A host that says "too many" gets half as many from
    then on, and none until the wait that it stated is over, `longest_wait` seconds at most; each success gives it back
    a little. Refusals of requests that were let in before the last cut say nothing new, and cut no further.
    """

    def __init__(self, most: int, longest_wait: float = _LONGEST_WAIT_SECONDS) -> None:
        assert most >= 1, most
        self._most = float(most)
        self._allowed = float(most)
        self._longest_wait = longest_wait
        self._inside = 0
        self._closed_until = 0.0
        self._cut_at = 0.0
        self._changed = asyncio.Condition()

    @property
    def allowed(self) -> int:
        """How many may be inside at present."""
        return int(self._allowed)

    async def __aenter__(self) -> float:
        async with self._changed:
            try:
                await self._changed.wait_for(lambda: self._inside < self.allowed)
            except asyncio.CancelledError:
                self._changed.notify()  # of a place that this one may have been told of
                raise
            self._inside += 1
        try:
            while (left := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(left)
        except BaseException:
            await self._leave()
            raise
        return time.monotonic()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        async with self._changed:
            self._inside -= 1
            # No more than can enter: a thousand that look and wait on at each leave cost more than the requests.
            self._changed.notify(max(self.allowed - self._inside, 0))

    def too_many(self, entered: float, wait: float) -> None:
        """The host refused a request that was let in at `entered`, and none is to start for `wait` seconds."""
        self.close(wait)
        if entered >= self._cut_at:
            self._allowed = max(self._allowed / 2, 1.0)
            self._cut_at = time.monotonic()

    def close(self, wait: float) -> None:
        """Nothing is let in for so many seconds from now."""
        self._closed_until = max(self._closed_until, time.monotonic() + min(wait, self._longest_wait))

    def succeeded(self) -> None:
        self._allowed = min(self._allowed + 1 / self._allowed, self._most)
