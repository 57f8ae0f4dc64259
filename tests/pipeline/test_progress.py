"""Progress: one line redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

from pipeline.progress import Progress, progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


DONE = {"images": 60, "answers": 120, "errors": 2}


def test_a_line_tells_how_far_how_fast_and_how_long_still() -> None:
    assert progress_line(DONE, 300, 10.0) == "120/300 answers (40 %)  2 errors  12.0/s  00:10 elapsed  00:15 left"
    complete, none = {**DONE, "answers": 300}, {"images": 0, "answers": 0, "errors": 0}
    assert progress_line(complete, 300, 3700.0) == "300/300 answers (100 %)  2 errors  0.1/s  1:01:40 elapsed"
    assert progress_line(none, 300, 5.0) == "starting the engines, 0/300 answers  00:05 elapsed"


def test_a_terminal_gets_one_line_that_is_drawn_over() -> None:
    out = Terminal()
    with Progress(out, 300, lambda: DONE) as progress:
        progress.show()
    assert out.getvalue().startswith("\r120/300") and out.getvalue().count("\n") == 1


def test_elsewhere_every_line_is_plain() -> None:
    out = io.StringIO()
    with Progress(out, 300, lambda: DONE):
        pass
    assert out.getvalue().startswith("120/300") and "\r" not in out.getvalue() and out.getvalue().endswith("\n")


def test_a_shorter_line_leaves_nothing_of_the_longer_one() -> None:
    out = Terminal()
    readings = iter([{**DONE, "answers": 100_000}, {**DONE, "answers": 300}])
    with Progress(out, 300, lambda: next(readings)) as progress:
        progress.show()
    first, second = out.getvalue().strip("\r\n").split("\r")
    assert len(second) >= len(first)


def test_what_breaks_inside_is_not_followed_by_a_last_reading() -> None:
    out = io.StringIO()
    try:
        with Progress(out, 300, lambda: DONE):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert out.getvalue() == ""
