"""Pauses grow, Retry-After is heard, and a host that has enough is asked for less."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.pacing import HostGate, pause_seconds, stated_wait_seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_pauses_double_with_chance_in_them_and_end_at_half_a_minute() -> None:
    for attempt, longest in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (400, 30.0)):
        pauses = {pause_seconds(attempt) for _ in range(50)}
        assert len(pauses) > 1 and all(longest / 2 <= pause <= longest for pause in pauses)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("7", 7), ("0.5", 0.5), ("99999", 99999), ("-3", None), ("soon", None), ("nan", None), ("1e3", None),
     ("", None), ("1.2.3", None), (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9),
     (format_datetime(NOW - timedelta(days=1)), 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    assert stated_wait_seconds(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("left", "reset", "seconds"),
    [("0", "1m30.5s", 90.5), (" 0", "20ms", 0.02), ("0", "1h", 3600), ("0", "", None), ("0", "soon", None),
     ("12", "8s", None)],
)  # fmt: skip
def test_a_budget_that_is_used_up_is_a_wait_until_it_is_filled(left: str, reset: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-remaining-requests": left, "x-ratelimit-reset-requests": reset}
    assert stated_wait_seconds(headers, NOW) == seconds


def test_a_gate_halves_when_told_too_many_and_grows_back_with_success() -> None:
    gate = HostGate(8)
    seen = [gate.allowed]
    for _ in range(5):
        gate.too_many(time.monotonic(), 0)
        seen.append(gate.allowed)
    for _ in range(100):
        gate.succeeded()
    assert [*seen, gate.allowed] == [8, 4, 2, 1, 1, 1, 8]


def test_refusals_of_requests_from_before_the_cut_cut_only_once() -> None:
    gate = HostGate(64)
    entered = time.monotonic()
    for _ in range(10):
        gate.too_many(entered, 0)
    assert gate.allowed == 32


def test_no_more_than_allowed_are_inside_and_all_get_their_turn() -> None:
    async def run() -> tuple[int, int]:
        gate, inside, most, done = HostGate(3), 0, 0, 0

        async def enter() -> None:
            nonlocal inside, most, done
            async with gate:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside, done = inside - 1, done + 1

        await asyncio.gather(*(enter() for _ in range(20)))
        return most, done

    assert asyncio.run(run()) == (3, 20)


def test_a_gate_stays_closed_no_longer_than_its_longest_wait() -> None:
    async def run() -> float:
        gate, began = HostGate(2, longest_wait=0.1), time.monotonic()
        gate.close(1000)
        async with asyncio.timeout(30), gate as entered:
            return entered - began

    assert 0.09 <= asyncio.run(run()) < 30


def test_a_gate_is_closed_until_retry_after_has_passed_and_opens_for_all() -> None:
    async def run() -> tuple[float, int]:
        gate, loop, done = HostGate(2), asyncio.get_running_loop(), []
        gate.too_many(time.monotonic(), 0.2)
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
        gate.too_many(time.monotonic(), 0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02), gate:
                raise AssertionError("the gate was closed")
        async with asyncio.timeout(5), gate:
            pass

    asyncio.run(run())


def test_a_place_that_comes_free_wakes_no_more_than_can_enter() -> None:
    looks = 0

    class Counted(HostGate):
        @property
        def allowed(self) -> int:
            nonlocal looks
            looks += 1
            return super().allowed

    async def all_at_once() -> None:
        gate = Counted(2)

        async def enter() -> None:
            async with gate:
                await asyncio.sleep(0)

        await asyncio.gather(*(enter() for _ in range(200)))

    asyncio.run(all_at_once())
    assert looks <= 200 * 4  # not 200 * 200


def test_one_that_gives_up_waiting_leaves_its_place_to_the_next() -> None:
    async def scenario() -> None:
        gate = HostGate(1)
        entered = []

        async def enter(name: str) -> None:
            async with gate:
                entered.append(name)

        async with gate:
            waiting = [asyncio.ensure_future(enter(name)) for name in "abc"]
            await asyncio.sleep(0.01)
        waiting[0].cancel()  # told of the free place, and gone before it can take it
        await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
        assert entered == ["b", "c"]

    asyncio.run(scenario())
