"""Which images kill the process that works on them.

An actor notes what it takes up and what it has finished, a call at a time. An image that is taken up again though
nobody finished it was in flight when a process died: it is a suspect, and is tried again alone in its actor. One whose
process dies while it is alone, twice, is condemned: it becomes an error, and nobody works on it any more. What merely
waited while another was alone is not suspected, nor is what was on a node that is gone.

Each death either makes suspects of images that were none, or counts against one of them; so a run ends. One in which
engines die and nothing is ever answered ends sooner (`DEATHS_IN_A_ROW`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OWN_DEATHS = 2  # of an image's, alone, until it is given up
DEATHS_IN_A_ROW = 20  # of engines with no answer in between; two more for each actor


class EnginesKeepDying(RuntimeError):
    """Engines die and nothing is answered: no image is to blame."""


@dataclass
class Suspicion:
    """What is known against one image."""

    attempts: int = 1  # how often it was taken up
    own_deaths: int = 0
    stage: str = "generate"  # where it was when its process died
    why: str = ""

    @property
    def condemned(self) -> bool:
        return self.own_deaths >= OWN_DEATHS

    def as_error(self) -> dict[str, Any]:
        """The error of a condemned image's rows."""
        said = f": {self.why}" if self.why else ""
        message = f"the process that worked on this image alone died {self.own_deaths} times{said}"
        kind = "hung" if "no answer within" in self.why else "killed_worker"
        return {"stage": self.stage, "kind": kind, "message": message, "attempts": self.attempts}


class Ledger:
    """The attempts of one run. A worker is one process: an actor that was restarted is another one."""

    def __init__(self, actors: int, is_alive: Callable[[str], bool], known: Mapping[str, Any] | None = None) -> None:
        self._limit = DEATHS_IN_A_ROW + 2 * actors
        self._is_alive = is_alive  # whether a node is
        self._open: dict[str, str] = {}  # image -> the worker that has it
        self._node: dict[str, str] = {}  # of a worker
        self._alone: dict[str, tuple[str, str]] = {}  # worker -> the image that is alone in it, and its stage
        self._why: dict[str, str] = {}  # what a worker said before it died
        self._dead: set[str] = set()
        self._in_a_row = 0
        self._suspects = {image: Suspicion(**values) for image, values in (known or {}).items()}

    def begin(self, worker: str, node: str, images: Sequence[str]) -> dict[str, Suspicion]:
        """Notes that a worker takes these images up, and returns the suspects and condemned among them."""
        self._node[worker] = node
        for image in images:
            before = self._open.get(image)
            if before is not None and before != worker:
                self._blame(image, before)
            self._open[image] = worker
        if self._in_a_row > self._limit:
            said = next((why for why in reversed(self._why.values()) if why), "they said nothing")
            raise EnginesKeepDying(f"{self._in_a_row} engines died in a row and nothing was answered; the last: {said}")
        return {image: self._suspects[image] for image in images if image in self._suspects}

    def _blame(self, image: str, dead: str) -> None:
        """The image was in flight when this worker died."""
        if not self._is_alive(self._node[dead]):
            return
        if dead not in self._dead:
            self._dead.add(dead)
            self._in_a_row += 1
        alone = self._alone.get(dead)
        if alone is not None and alone[0] != image:
            return
        suspicion = self._suspects.setdefault(image, Suspicion())
        suspicion.attempts += 1
        suspicion.why = self._why.get(dead, "")
        if alone is not None:
            suspicion.own_deaths += 1
            suspicion.stage = alone[1]

    def isolate(self, worker: str, image: str | None, stage: str = "") -> None:
        """Notes which image is alone in a worker, and what is done with it; None: no image is, any more."""
        if image is None:
            if self._alone.pop(worker, None):
                self._in_a_row = 0  # an engine outlived it
        else:
            self._alone[worker] = (image, stage)

    def end(self, worker: str, images: Sequence[str], answered: int) -> None:
        """Notes that a worker has finished with these images, `answered` of them without an error."""
        for image in images:
            self._open.pop(image, None)
            self._suspects.pop(image, None)
        if answered:
            self._in_a_row = 0

    def explain(self, worker: str, why: str) -> None:
        """What a worker that is about to die says of it."""
        self._why[worker] = why

    @property
    def deaths(self) -> int:
        return len(self._dead)

    def known(self) -> dict[str, Any]:
        """The suspects, as JSON can hold them."""
        return {image: asdict(suspicion) for image, suspicion in self._suspects.items()}
