"""Who writes to an output: one run at a time. The lease is a small file that its driver renews while it lives.

A lease whose process is known to be dead on this machine is free at once. One of another machine is watched for as
long as a lease lasts without renewal: no clocks are compared. Taking it is not atomic on every store, so whoever
writes looks at it again first (`require_lease`), and what slips through that gap is found when rows are read back.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from botocore.exceptions import BotoCoreError, ClientError

from . import store

LEASE_SECONDS = 30.0
_FILE = "_run/lease.json"
_MAX_BYTES = 1 << 16
_TROUBLE = (OSError, BotoCoreError, ClientError, store.StoreError)


class LostLease(RuntimeError):
    """Another run has taken the output over."""


def require_lease(output: str, session: str) -> None:
    """LostLease unless the output belongs to this session."""
    holder = _read(output)
    if holder is None or holder["session"] != session:
        by = "nobody" if holder is None else f"run {holder['session']} (process {holder['pid']} on {holder['host']})"
        raise LostLease(f"{output} is not this run's any more: it belongs to {by}")


class Lease:
    """A context in which an output is this session's. ValueError on entry when a living run holds it."""

    def __init__(self, output: str, session: str, err: TextIO, seconds: float = LEASE_SECONDS) -> None:
        self.lost = threading.Event()
        self._output = output
        self._seconds = seconds
        self._err = err
        self._mine = {"session": session, "host": platform.node(), **_process()}
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        held = _read(self._output)
        if held is not None and not self._is_free(held):
            raise ValueError(
                f"another run is writing to {self._output}: {held['session']} (process {held['pid']} on"
                f" {held['host']}). Wait for it, or choose another --output"
            )
        self._write()
        require_lease(self._output, str(self._mine["session"]))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(*_TROUBLE):  # what is left of it is known to be dead when this process is
            held = _read(self._output)
            if held is not None and held["session"] == self._mine["session"]:
                store.remove(store.join(self._output, _FILE))

    def _is_free(self, held: dict[str, Any]) -> bool:
        if held["machine"] == self._mine["machine"]:
            return not _lives(held["pid"], held["started"])
        print(
            f"{self._output} was being written by {held['session']} on {held['host']}:"
            f" watching for {self._seconds:g} s whether it still is",
            file=self._err,
        )
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._seconds / 10))
            now = _read(self._output)
            if now is None or now != held:
                return now is None
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                require_lease(self._output, str(self._mine["session"]))
                self._write()
            except LostLease:
                self.lost.set()
                return
            except _TROUBLE:
                continue  # a full disk or a bucket that refuses: the parts' writers deal with that, and they ask again

    def _write(self) -> None:
        self._beat += 1
        store.write(store.join(self._output, _FILE), json.dumps(self._mine | {"beat": self._beat}).encode())


def _read(output: str) -> dict[str, Any] | None:
    try:
        data, _ = store.read(store.join(output, _FILE), _MAX_BYTES)
    except store.StoreError as error:
        if error.kind == "missing":
            return None
        raise
    found: dict[str, Any] = json.loads(data)
    return found


def _process() -> dict[str, Any]:
    """This process, so that it is known again: by its machine, its number and when it began."""
    pid = os.getpid()
    return {"machine": _machine(), "pid": pid, "started": _began(pid)}


def _machine() -> str:
    """The name alone may be shared by containers, and so may process numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # no Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _began(pid: int) -> int | None:
    """When a process began, in ticks of the kernel; None where there is no such process, or no way to know."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _lives(pid: int, started: int | None) -> bool:
    if started is not None:
        return _began(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
