"""Calls that may hang for ever (a dead network disk, a server that drips), waited for so long and no longer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class HelperThreads:
    """Threads that make calls for others. One that hangs is left behind; it doesn't keep the process from ending."""

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[queue.SimpleQueue[Any]] = queue.SimpleQueue()

    def run(self, call: Callable[[], T], seconds: float) -> T:
        """What the call returns or raises; TimeoutError when it has not come back after `seconds`."""
        try:
            inbox = self._idle.get_nowait()
        except queue.Empty:
            inbox = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name="fetch", daemon=True).start()
        done: Future[T] = Future()
        inbox.put((call, done))
        return done.result(timeout=seconds)

    def _serve(self, inbox: queue.SimpleQueue[Any]) -> None:
        while True:
            call, done = inbox.get()
            try:
                done.set_result(call())
            except BaseException as error:
                done.set_exception(error)
            del call, done
            self._idle.put(inbox)
