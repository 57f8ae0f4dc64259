"""Progress while a run goes on: one line that is drawn again on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

_REDRAW_SECONDS = 0.5
_PLAIN_LINE_SECONDS = 10.0


class Progress:
    """A context that shows what `read` returns ({images, answers, errors} so far) until it is left."""

    def __init__(self, out: TextIO, total_answers: int, read: Callable[[], Mapping[str, int]]) -> None:
        self._out = out
        self._total = total_answers
        self._read = read
        self._is_terminal = out.isatty()
        self._began = time.monotonic()
        self._width = 0  # of the line on the terminal
        self._last_answers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show_until_stopped, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            self.show()
        if self._is_terminal and self._width:
            self._out.write("\n")
            self._out.flush()

    def _show_until_stopped(self) -> None:
        while not self._stop.wait(_REDRAW_SECONDS if self._is_terminal else _PLAIN_LINE_SECONDS):
            self.show()

    def show(self) -> None:
        """Draws the present state; what is complete is said once."""
        done = self._read()
        if done["answers"] == self._total == self._last_answers:
            return
        self._last_answers = done["answers"]
        line = progress_line(done, self._total, time.monotonic() - self._began)
        if self._is_terminal:
            self._out.write(f"\r{line}{' ' * (self._width - len(line))}")
        else:
            self._out.write(line + "\n")
        self._out.flush()
        self._width = len(line)


def progress_line(done: Mapping[str, int], total: int, seconds: float) -> str:
    """`120/300 answers (40 %)  2 errors  11.9/s  00:10 elapsed  00:15 left`; the time left supposes an even pace."""
    answers = done["answers"]
    if not answers:
        return f"starting the engines, 0/{total} answers  {_clock(seconds)} elapsed"
    parts = [f"{answers}/{total} answers ({answers * 100 // max(total, 1)} %)", f"{done['errors']} errors"]
    parts += [f"{answers / seconds:.1f}/s", f"{_clock(seconds)} elapsed"]
    if answers < total:
        parts.append(f"{_clock(seconds / answers * (total - answers))} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
