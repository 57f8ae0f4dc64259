"""Drivers that can be killed: processes that carry out a run, forked from one that has imported everything."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.makers import ENGINES, Maker
from pipeline.run import run
from pipeline.settings import Settings

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.pipeline.trials.drivers"])


@dataclass(frozen=True)
class Driver:
    """A run in a process of its own; `process.kill()` is SIGKILL."""

    process: Any
    result: Path

    def finished(self, seconds: float = 300) -> dict[str, Any]:
        """Waits for the end and returns the run record; AssertionError with the traceback when there is none."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "the driver did not end"
        told: dict[str, Any] = json.loads(self.result.read_text())
        assert "counts" in told, told["error"]
        return told


def start(
    result: Path, maker: Maker = ENGINES["native"], env: Mapping[str, str] | None = None, **settings: Any
) -> Driver:
    """Starts a run; what comes of it will be in the file `result`."""
    result.unlink(missing_ok=True)
    process = _CONTEXT.Process(target=_drive, args=(str(result), maker, dict(env or {}), settings))
    process.start()
    return Driver(process, result)


def _drive(result: str, maker: Maker, env: dict[str, str], settings: dict[str, Any]) -> None:
    os.environ.update(env)
    try:
        told = run(Settings(**settings), io.StringIO(), io.StringIO(), maker)
    except BaseException as error:
        told = {"error": "".join(traceback.format_exception(error))}
    Path(result).write_text(json.dumps(told))
