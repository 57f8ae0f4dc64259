"""Answers become files: blocks are gathered until they fill one, or have waited long enough, and a task writes it."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayTaskError

from .lease import Lease, LostLease
from .sink import Format, WriteError, write_part
from .tally import Tally

_WRITES_IN_FLIGHT = 4  # for each actor: more would pile answers up in memory while a disk is slow
_LOOK_SECONDS = 0.2  # how often somebody looks whether blocks have waited long enough


class Committer:
    """A context that takes blocks of answers, by reference, and leaves them in files of a table.

    What was added is in a file, or on its way to one, `seconds` later at the latest. Leaving the context waits until
    all is written, also when it is left by an error that is not a write's.
    A write that fails is raised by a later call.
    """

    def __init__(
        self, lease: Lease, output: str, format: Format, session: str, rows: int, seconds: float, retry_seconds: float
    ) -> None:
        self.tally = Tally()  # of what is written
        self._lease = lease
        self._rows = rows
        self._seconds = seconds
        # It mostly waits, and must never itself be waited for: a cluster that just fits the actors has no CPU for it.
        task: Any = ray.remote(num_cpus=0, max_retries=20, scheduling_strategy="SPREAD")(write_part)
        self._write = lambda number, blocks: task.remote(output, format, session, number, retry_seconds, *blocks)
        self._blocks: list[Any] = []
        self._held = 0  # rows in `_blocks`
        self._oldest = 0.0
        self._files = 0
        self._writing: list[Any] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._flush_what_waits, name="commit", daemon=True)

    def __enter__(self) -> Committer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not isinstance(error, WriteError | LostLease):
            with self._lock:
                self._flush()
        try:
            while self._writing:
                self._collect(len(self._writing) - 1)
        except Exception:
            if kind is None:
                raise

    def add(self, blocks: list[Any], rows: int, actors: int = 1) -> None:
        """Takes references to blocks of TRACED_ANSWERS; waits while too many files are being written."""
        if self._lease.lost.is_set():
            raise LostLease("another run has taken the output over")
        with self._lock:
            if not self._blocks:
                self._oldest = time.monotonic()
            self._blocks += blocks
            self._held += rows
            if self._held >= self._rows:
                self._flush()
        self._collect(_WRITES_IN_FLIGHT * actors)

    def _flush(self) -> None:
        if not self._blocks:
            return
        self._writing.append(self._write(self._files, self._blocks))
        self._files += 1
        self._blocks, self._held = [], 0

    def _flush_what_waits(self) -> None:
        while not self._stop.wait(min(_LOOK_SECONDS, self._seconds / 2)):
            with self._lock:
                if self._blocks and time.monotonic() - self._oldest >= self._seconds:
                    self._flush()

    def _collect(self, at_most: int) -> None:
        """Adds up what is written, until at most so many files are not."""
        with self._lock:
            writing = list(self._writing)
        if not writing:
            return
        must = len(writing) - at_most
        ready, _ = ray.wait(writing, num_returns=max(must, 1), timeout=None if must > 0 else 0)
        with self._lock:
            self._writing = [write for write in self._writing if write not in ready]
        for write in ready:
            try:
                self.tally.add(ray.get(write))
            except RayTaskError as error:
                raise error.cause from None
