"""The pace of requests: fewer after a refusal, more as things go well, and stated waits are understood."""

from __future__ import annotations

import asyncio
import email.utils
import time

import pytest

from pipeline.pace import Pace, stated_wait_s


def test_a_refusal_halves_and_good_turns_grow_back_to_the_most() -> None:
    pace = Pace(8)
    pace.refused(time.monotonic(), 0.0)
    assert pace.allowed == 4
    for _ in range(100):
        pace.went_well()
    assert pace.allowed == 8


def test_refusals_of_requests_from_before_the_cut_cut_only_once() -> None:
    pace = Pace(64)
    began = time.monotonic()
    for _ in range(10):
        pace.refused(began, 0.0)
    assert pace.allowed == 32
    for _ in range(10):
        pace.refused(time.monotonic(), 0.0)
    assert pace.allowed == 1


def test_no_more_than_allowed_are_in_flight_and_all_get_their_turn() -> None:
    async def whole() -> tuple[int, int]:
        pace, most, done = Pace(3), 0, 0

        async def work() -> None:
            nonlocal most, done
            async with pace.place():
                most = max(most, pace.in_flight)
                await asyncio.sleep(0)
                done += 1

        await asyncio.gather(*(work() for _ in range(20)))
        return most, done

    assert asyncio.run(whole()) == (3, 20)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({"x-ratelimit-remaining-requests": "12", "x-ratelimit-reset-requests": "8s"}, None),
    ],
)
def test_what_a_server_says_about_waiting_is_understood(headers: dict[str, str], wait: float | None) -> None:
    assert stated_wait_s(headers) == wait


def test_a_date_to_come_is_a_wait_until_then() -> None:
    wait = stated_wait_s({"Retry-After": email.utils.formatdate(time.time() + 100, usegmt=True)})
    assert wait is not None
    assert 90 < wait <= 100


def test_a_pace_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Pace(0)
