"""What the actors tell while they work, kept in one small actor: progress, engine figures, attempts."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from . import store
from .ledger import EnginesKeepDying, Ledger, Suspicion

_SUSPECTS = "_run/suspects.json"
_MAX_BYTES = 1 << 24


class Collector:
    """Each worker's latest figures. They are totals since it began, so a report that is lost does no harm.

    Suspects are kept in the output as well, so that a run which dies with its engines knows them again.
    """

    def __init__(self, output: str, actors: int) -> None:
        self._where = store.join(output, _SUSPECTS)
        self._ledger = Ledger(actors, _is_alive, _known(self._where))
        self._done: dict[str, Mapping[str, int]] = {}
        self._engines: dict[str, Mapping[str, Any]] = {}
        self._first_report: float | None = None
        self._stopped: str | None = None

    def begin(self, worker: str, node: str, images: Sequence[str]) -> dict[str, Suspicion]:
        """See `Ledger.begin`."""
        deaths = self._ledger.deaths
        try:
            return self._ledger.begin(worker, node, images)
        except EnginesKeepDying as error:
            self._stopped = str(error)
            raise
        finally:
            if self._ledger.deaths > deaths:
                with contextlib.suppress(OSError):  # a full disk is for those to mind who write answers
                    store.write(self._where, json.dumps(self._ledger.known()).encode("utf-8", "surrogatepass"))

    def isolate(self, worker: str, image: str | None, stage: str = "") -> None:
        self._ledger.isolate(worker, image, stage)

    def explain(self, worker: str, why: str) -> None:
        self._ledger.explain(worker, why)

    def report(
        self, worker: str, done: Mapping[str, int], engine: Mapping[str, Any], images: Sequence[str], answered: int
    ) -> None:
        """A worker's figures, and the images that it has finished with, `answered` of them without an error."""
        if self._first_report is None:
            self._first_report = time.monotonic()
        self._ledger.end(worker, images, answered)
        self._done[worker] = done
        self._engines[worker] = engine

    def progress(self) -> dict[str, int]:
        names = ("images", "answers", "errors")
        return {name: sum(done[name] for done in self._done.values()) for name in names}

    def seconds_answering(self) -> float:
        """Since the first engine was ready to answer."""
        return 0.0 if self._first_report is None else time.monotonic() - self._first_report

    def engines(self) -> list[Mapping[str, Any]]:
        return list(self._engines.values())

    def deaths(self) -> int:
        """Of workers that had images in flight, their node alive."""
        return self._ledger.deaths

    def why_stopped(self) -> str | None:
        """Why no engine may go on; None when they may."""
        return self._stopped


def forget_suspects(output: str) -> None:
    """What is asked anew is not suspected; and a table that is complete leaves nobody to suspect."""
    store.remove(store.join(output, _SUSPECTS))


def _known(where: str) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(store.read(where, _MAX_BYTES)[0].decode("utf-8", "surrogatepass"))
    except (store.StoreError, ValueError):
        return {}
    return known


def _is_alive(node: str) -> bool:
    return any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())
