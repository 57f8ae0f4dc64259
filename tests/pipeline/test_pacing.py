"""Pauses grow, Retry-After is heard, and a host that has enough is asked for less."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.pacing import HostGate, pause_seconds, retry_after_seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_pauses_double_with_chance_in_them_and_end_at_half_a_minute() -> None:
    for attempt, longest in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (400, 30.0)):
        pauses = {pause_seconds(attempt) for _ in range(50)}
        assert len(pauses) > 1 and all(longest / 2 <= pause <= longest for pause in pauses)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("7", 7), ("99999", 120), ("-3", 0), ("soon", 0), ("nan", 0), ("1e3", 0), ("", 0),
     (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9), (format_datetime(NOW - timedelta(days=1)), 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == pytest.approx(seconds)


def test_a_gate_halves_when_told_too_many_and_grows_back_with_success() -> None:
    async def run() -> list[int]:
        gate = HostGate(8)
        seen = [gate.allowed]
        for _ in range(5):
            gate.too_many(0)
            seen.append(gate.allowed)
        for _ in range(100):
            gate.succeeded()
        return [*seen, gate.allowed]

    assert asyncio.run(run()) == [8, 4, 2, 1, 1, 1, 8]


def test_a_gate_is_closed_until_retry_after_has_passed_and_opens_for_all() -> None:
    async def run() -> tuple[float, int]:
        gate, loop, done = HostGate(2), asyncio.get_running_loop(), []
        gate.too_many(0.2)
        began = loop.time()

        async def enter() -> None:
            async with gate:
                done.append(loop.time() - began)

        await asyncio.gather(*(enter() for _ in range(5)))
        return min(done), len(done)

    first, entered = asyncio.run(run())
    assert first >= 0.19 and entered == 5


def test_who_gives_up_at_a_closed_gate_leaves_the_place_free() -> None:
    async def run() -> None:
        gate = HostGate(1)
        gate.too_many(0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02), gate:
                raise AssertionError("the gate was closed")
        async with asyncio.timeout(5), gate:
            pass

    asyncio.run(run())
