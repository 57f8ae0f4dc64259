"""Room inside an actor: for so many bytes, for many or for one alone, and for as long as something happens."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys

import pytest

from pipeline.room import _REARM_SECONDS, ByteGate, Room, Watch


def test_the_gate_holds_back_what_is_too_much_and_lets_the_huge_through_alone() -> None:
    async def run() -> list[str]:
        gate, events = ByteGate(10), []

        async def work(name: str, size: int) -> None:
            async with gate.holding(size):
                events.append(f"+{name}")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                events.append(f"-{name}")

        await asyncio.gather(work("a", 6), work("b", 4), work("huge", 1000))
        return events

    events = asyncio.run(run())
    assert set(events[:2]) == {"+a", "+b"} and events[-2:] == ["+huge", "-huge"]


def test_who_is_alone_shares_the_room_with_nobody_and_goes_first() -> None:
    async def run() -> list[str]:
        room, events = Room(), []

        async def shared(name: str) -> None:
            async with room.shared():
                events.append(f"+{name}")
                await asyncio.sleep(0.01)
                events.append(f"-{name}")

        async def alone(name: str) -> None:
            async with room.alone():
                events.append(f"+{name}")
                await asyncio.sleep(0.01)
                events.append(f"-{name}")

        first = [asyncio.create_task(shared(name)) for name in "ab"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(*first, alone("X"), shared("c"), alone("Y"))
        return events

    events = asyncio.run(run())
    assert set(events[:2]) == {"+a", "+b"}
    for name in "XY":
        place = events.index(f"+{name}")
        assert events[place + 1] == f"-{name}"
    assert events.index("+X") < events.index("+c")


STANDS_STILL = """
import pipeline.room as room
room._GRACE_SECONDS = 0.0
watch = room.Watch(0.5)
with watch.over(3):
    pass
import time
time.sleep(1.5)
print("idle is fine", flush=True)
over = watch.over(1)
over.__enter__()
import re
re.match(r"(a+)+$", "a" * 40 + "b")  # native code that never returns, and keeps the interpreter
"""


def test_progress_puts_the_end_off_but_not_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ends = 100.0, []
    monkeypatch.setattr("pipeline.room.time.monotonic", lambda: clock)
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, exit: ends.append(clock + seconds))
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", lambda: ends.append(math.inf))
    watch, steps = Watch(30.0), 1000
    with watch.over(1):
        first = ends[-1]
        for _ in range(steps):
            clock += 0.1
            watch.saw_progress()
            assert ends[-1] > clock + 30 - _REARM_SECONDS  # nobody is ended who has just made progress
    assert ends[-1] == math.inf and first < ends[-2]
    assert len(ends) < steps / 5
    with watch.over(1):
        assert ends[-1] > clock  # and armed again at once for the next image


def test_native_code_that_never_returns_ends_the_process_but_idleness_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", STANDS_STILL], capture_output=True, text=True, timeout=60)
    assert done.stdout == "idle is fine\n" and done.returncode == 1 and "Timeout" in done.stderr
