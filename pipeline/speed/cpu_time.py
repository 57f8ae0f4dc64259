"""What a command costs while it runs: the CPU seconds of its process and of all below it, over time, by /proc."""

from __future__ import annotations

import bisect
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_SECONDS = 0.5
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Watched:
    """A command that has ended. `times`: time.time() of each look; `cpu_seconds`: spent until then, never less."""

    status: int
    said: str
    times: Sequence[float]
    cpu_seconds: Sequence[float]

    def cpu_between(self, start: float, end: float) -> float:
        """CPU seconds between two moments, to the nearest look."""
        return self._cpu_at(end) - self._cpu_at(start)

    def _cpu_at(self, moment: float) -> float:
        return self.cpu_seconds[min(bisect.bisect_left(self.times, moment), len(self.times) - 1)]


def watched(command: Sequence[str], env: Mapping[str, str], said: Path, patience_s: float) -> Watched:
    """Runs a command and looks at it until it ends; what it prints goes into the file `said`.

    ValueError when it can't be run. One that takes longer than its patience is killed.
    """
    times: list[float] = []
    totals: list[float] = []
    spent: dict[int, float] = {}  # also of those that have ended: what they were last seen with
    with said.open("wb") as log:
        try:
            job = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        except OSError as error:
            raise ValueError(f"{command[0]} can't be run: {error}") from None
        give_up_at = time.monotonic() + patience_s
        try:
            while job.poll() is None and time.monotonic() < give_up_at:
                spent |= cpu_below(job.pid)
                times.append(time.time())
                totals.append(sum(spent.values()))
                time.sleep(_EVERY_SECONDS)
        finally:
            job.kill()
            status = job.wait()
    return Watched(status, said.read_text(errors="replace"), times, totals)


def cpu_below(pid: int) -> dict[int, float]:
    """The CPU seconds of a process and of every live one below it."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        each = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(each)
        seconds[each] = (int(fields[11]) + int(fields[12])) * _TICK
    found, waiting = {}, [pid]
    while waiting:
        each = waiting.pop()
        if each in seconds:
            found[each] = seconds[each]
        waiting += children.get(each, [])
    return found
