"""Processes below one of ours, by /proc: to kill them, to watch their memory, and to see that none is left."""

from __future__ import annotations

from pathlib import Path


def below(pid: int) -> list[int]:
    """Every live process below pid."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended while we looked
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        some = children.get(waiting.pop(), [])
        found += some
        waiting += some
    return found


def named(pid: int, part: str) -> list[int]:
    """Those below pid that have this in their command line; Ray writes there what a worker is."""
    return [each for each in below(pid) if part in _read(each, "cmdline")]


def command(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    return _read(pid, "cmdline").replace("\0", " ").strip()


def resident_bytes(pid: int) -> int:
    lines = [line for line in _read(pid, "status").splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def alive(pid: int) -> bool:
    stat = _read(pid, "stat")
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text().replace("\0", " ")
    except OSError:
        return ""
