"""Damaged responses to path-tracing cases: each function takes a case and returns the reference but for one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from model.primitives import format_points, parse
from model.prompt import END_POINT, END_THINK, POINT
from model.tasks.path_tracing import TOLERANCE_PX
from model.tasks.suite import Case, to_frame, to_pixels

Frame = tuple[int, ...]


def frames(of: Case) -> list[Frame]:
    return [p.frame for p in parse(of.response)]


def asked(of: Case) -> dict[str, Any]:
    return of.truth["lines"][of.truth["asked"]]


def other(of: Case) -> dict[str, Any]:
    """A line that was not asked for."""
    lines = of.truth["lines"]
    return lines[(of.truth["asked"] + 1) % len(lines)]


def middle(of: Case, icon: dict[str, Any]) -> Frame:
    x1, y1, x2, y2 = icon["box"]
    return to_frame(((x1 + x2) / 2, (y1 + y2) / 2), of.size)


def traced(points: list[Frame], answer: str) -> str:
    return f"{format_points(points)}{END_THINK}{answer}"


def followed(of: Case, line: dict[str, Any]) -> list[Frame]:
    return [to_frame(point, of.size) for point in [*line["points"][::3], line["points"][-1]]]


def last_point_on_another_end(of: Case) -> str:
    return traced([*frames(of)[:-1], middle(of, other(of)["end"])], of.answer)


def another_line_followed(of: Case) -> str:
    line = other(of)
    return traced(followed(of, line), line["end"]["name"])


def crossed_over_to_another_line(of: Case) -> str:
    """From the right start, and half-way on to the second half of another line."""
    mine, theirs = followed(of, asked(of)), followed(of, other(of))
    return traced([*mine[: len(mine) // 2], *theirs[len(theirs) // 2 :]], other(of)["end"]["name"])


def shifted(of: Case) -> str:
    """To the right and down by one and a half tolerances, or to the left and up where the frame ends."""
    size = np.array(of.size)
    pixels = np.array([to_pixels(frame, of.size) for frame in frames(of)])
    step = 1.5 * TOLERANCE_PX / np.sqrt(2)
    sign = np.where(pixels.max(axis=0) + step < size, 1, -1)
    return traced([to_frame(point, of.size) for point in (pixels + sign * step).tolist()], of.answer)


def gap(of: Case) -> str:
    """The middle half of the points is left out."""
    points = frames(of)
    return traced([*points[: len(points) // 4], *points[len(points) - len(points) // 4 :]], of.answer)


def straight_to_the_right_end(of: Case) -> str:
    points = frames(of)
    return traced([points[0], points[-1]], of.answer)


def straight_to_another_end(of: Case) -> str:
    return traced([frames(of)[0], middle(of, other(of)["end"])], other(of)["end"]["name"])


def truncated(of: Case) -> str:
    """The last third of the points is missing."""
    points = frames(of)
    return traced(points[: len(points) - len(points) // 3], of.answer)


def backwards(of: Case) -> str:
    return traced(frames(of)[::-1], of.answer)


def answer_flipped(of: Case) -> str:
    return traced(frames(of), other(of)["end"]["name"])


def answer_made_up(of: Case) -> str:
    return traced(frames(of), "unicorn")


def tag_broken(of: Case) -> str:
    """The second tag is never opened, so that the waypoints are mere text."""
    first = of.response.index(POINT) + 1
    at = of.response.index(POINT, first)
    return of.response[:at] + of.response[at + len(POINT) :]


def tag_left_open(of: Case) -> str:
    return of.response.replace(END_POINT, "", 1)


def thinking_never_ends(of: Case) -> str:
    return of.response.replace(END_THINK, " ")


def answer_alone(of: Case) -> str:
    return f"{END_THINK}{of.answer}"


def every_line_followed(of: Case) -> str:
    """All lines one after the other, the right one last."""
    lines = [line for line in of.truth["lines"] if line is not asked(of)] + [asked(of)]
    return traced([frame for line in lines for frame in followed(of, line)], of.answer)


# The parts of a verdict that a damage costs; every other part stays full.
DAMAGES: dict[Callable[[Case], str], set[str]] = {
    last_point_on_another_end: {"trajectory", "endpoints", "continuity"},
    another_line_followed: {"trajectory", "endpoints", "answer"},
    crossed_over_to_another_line: {"trajectory", "endpoints", "answer"},
    shifted: {"trajectory", "endpoints"},
    gap: {"trajectory"},
    straight_to_the_right_end: {"trajectory"},
    straight_to_another_end: {"trajectory", "endpoints", "answer"},
    truncated: {"trajectory", "endpoints", "continuity"},
    backwards: {"endpoints", "continuity"},
    answer_flipped: {"continuity", "answer"},
    answer_made_up: {"continuity", "answer"},
    tag_broken: {"trajectory"},
    tag_left_open: set(),
    thinking_never_ends: {"continuity", "answer"},
    answer_alone: {"trajectory", "endpoints", "continuity"},
    every_line_followed: {"trajectory", "endpoints"},
}
# Of these the answer is right, so `exact` stays; all else that the table names is not.
ANSWERED = {name for name, costs in DAMAGES.items() if "answer" not in costs}
FORM_ONLY = {tag_left_open}
MISFORMED = {tag_broken, tag_left_open}
