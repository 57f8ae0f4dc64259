"""Path tracing: which icon does the line from this one lead to? The thinking follows the line point by point.

    <｜ref｜>red star<｜/ref｜><｜point｜>[[52,310]]<｜/point｜><｜point｜>[[88,301],…]<｜/point｜>
    <｜ref｜>letter B<｜/ref｜><｜point｜>[[947,120]]<｜/point｜></think>letter B

(in one line). All points of a response, in its order, are its trace; it begins and ends in the middle of an icon. What
is right is told by geometry alone: `Case.truth` holds every line's polyline and the boxes of its two icons, in pixels.

The parts of a verdict, as the DeepSeek paper names them; weights and tolerances are ours:

    trajectory  0.45  mean of how near the trace is to the line and the line to the trace, all along both
    endpoints   0.15  mean of how near the first and last points are to the middles of the right icons
    continuity  0.10  the last point lies at the icon that the answer names
    answer      0.30  the icon's name

The trajectory weighs most, because the answer alone is right by luck once in two to ten times; the answer is less than
a third, so that a lucky guess without a trace stays far below half. Tolerances: see `_FULL_SHARE` and `TOLERANCE_PX`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from model.primitives import format_points, parse
from model.prompt import END_THINK
from model.tasks.curves import crossings
from model.tasks.icons import Family, choose
from model.tasks.layouts import Points
from model.tasks.suite import (
    Case,
    Split,
    Suite,
    Verdict,
    final_answer,
    rng_of,
    same_answer,
    stratum,
    to_frame,
    to_pixels,
    verdict,
)
from model.tasks.tangle_drawing import choose_look, draw_ground, draw_lines
from model.tasks.tangles import CLEARANCE_PX, Form, Tangle, draw_tangle
from model.tasks.traces import deviations, nearness, waypoints

# A trace that strays this far earns nothing there: at less, no other line runs along, so none can be mistaken for it.
TOLERANCE_PX = CLEARANCE_PX
# Of a tolerance, up to which nearness is full: rounding to the frame and chords across bends take up to a quarter, and
# a point anywhere in the middle half of an icon is meant for its middle.
_FULL_SHARE = 0.25

WEIGHTS: Mapping[str, float] = {"trajectory": 0.45, "endpoints": 0.15, "continuity": 0.1, "answer": 0.3}

_QUESTIONS = (
    "which icon does the line from the {start} lead to?",
    "where does the line from the {start} end?",
    "follow the line from the {start}. which icon is at its other end?",
    "trace the line that starts at the {start}. where does it lead?",
    "what is the {start} connected to?",
    "which icon is joined to the {start}?",
    "starting at the {start}, follow the line to its end. what is there?",
)
_CAPITALISED_SHARE = 0.25


@dataclass(frozen=True)
class _Level:
    """`lines`: how many, each as likely as its number of ends asks; `side`: of the image in pixels, low and high."""

    lines: tuple[int, ...]
    side: tuple[int, int]
    icon_px: float
    form: Form
    uniform_share: float
    off_px: float  # of the reference trace at most


_LEVELS: dict[str, _Level] = {
    "easy": _Level((2, 3), (168, 224), 22, Form((0, 1), 0.28, 26.0), 0.2, 1.5),
    "medium": _Level((4,), (196, 252), 22, Form((1, 1), 0.28, 20.0), 0.4, 1.0),
    "hard": _Level((5, 6), (224, 280), 20, Form((1, 2), 0.28, 16.0), 0.6, 0.5),
    "nightmare": _Level((8, 9, 10), (300, 336), 18, Form((2, 3), 0.24, 12.0), 0.8, 0.3),
}


# ---- posing


def _draw(seed: int, level: str, split: Split) -> Case:
    """A tangle in which one line is asked for: the place of its end is drawn by stratum, all else by the generator."""
    rng, shape = rng_of("path_tracing", level, split, seed), _LEVELS[level]
    answers = [(n, end) for n in shape.lines for end in range(n)]
    n, end = answers[stratum(seed, len(answers))]
    asked = int(rng.integers(n))
    leads_to = _permutation(rng, n, asked, end)
    width, height = rng.integers(shape.side[0], shape.side[1] + 1, size=2).tolist()
    tangle = draw_tangle(rng, (width, height), leads_to, shape.icon_px, shape.form)

    uniform = bool(rng.random() < shape.uniform_share)
    look = choose_look(rng, split, n, uniform)
    image = draw_ground(rng, (width, height), look)
    draw_lines(image, tangle.lines, look)
    families = choose(rng, n)
    starts, ends = (
        [_painted(rng, image, *icon, middle, shape.icon_px) for icon, middle in zip(icons, middles, strict=True)]
        for icons, middles in zip(families, (tangle.starts, tangle.ends), strict=True)
    )
    start, answer = starts[asked]["name"], ends[end]["name"]
    question = _QUESTIONS[int(rng.integers(len(_QUESTIONS)))].format(start=start)
    if rng.random() < _CAPITALISED_SHARE:
        question = question[0].upper() + question[1:]
    lines = [
        {"start": starts[i], "end": ends[j], "points": np.round(tangle.lines[i], 2).tolist()}
        for i, j in enumerate(leads_to)
    ]
    return Case(
        suite="path_tracing",
        level=level,
        kind="one style" if uniform else "coloured",
        image=image,
        question=question,
        answer=answer,
        response=_reference(tangle, asked, start, answer, image.size, shape.off_px),
        truth={"lines": lines, "asked": asked, "tolerance_px": TOLERANCE_PX},
    )


def _permutation(rng: np.random.Generator, n: int, asked: int, end: int) -> list[int]:
    """Any way to join n starts to n ends that joins `asked` to `end`, each as likely."""
    rest = [j for j in rng.permutation(n).tolist() if j != end]
    return [*rest[:asked], end, *rest[asked:]]


def _painted(
    rng: np.random.Generator, image: Image.Image, family: Family, name: str, middle: Points, side: float
) -> dict[str, Any]:
    """Paint an icon; its name and box as the truth writes them."""
    box = family.paint(rng, image, name, float(middle[0]), float(middle[1]), side)
    return {"name": name, "box": [round(edge, 2) for edge in box]}


def _reference(tangle: Tangle, asked: int, start: str, end: str, size: tuple[int, int], off_px: float) -> str:
    """The start, points along the line, the end, and the answer."""
    line = tangle.lines[asked]
    met = [crossings(line, other) for i, other in enumerate(tangle.lines) if i != asked]
    points = waypoints(line, np.concatenate(met), off_px)
    frames = [to_frame(point, size) for point in points.tolist()]
    first, between, last = frames[:1], frames[1:-1], frames[-1:]
    thinking = format_points(first, start) + format_points(between) + format_points(last, end)
    return f"{thinking}{END_THINK}{end}"


# ---- judging


def _judge(case: Case, response: str) -> Verdict:
    """Score a response by the geometry of its trace and by its answer."""
    lines, tolerance = case.truth["lines"], case.truth["tolerance_px"]
    due = lines[case.truth["asked"]]
    line = np.array(due["points"], dtype=np.float64)
    answer = final_answer(response)
    exact = same_answer(answer, due["end"]["name"])
    stated = next((other["end"]["box"] for other in lines if same_answer(answer, other["end"]["name"])), None)
    trace = _trace(response, case.size)
    if not len(trace):
        parts = {"trajectory": 0.0, "endpoints": 0.0, "continuity": 0.0, "answer": float(exact)}
        return verdict(PATH_TRACING, response, parts, exact=exact, path_valid=False)
    there, back = deviations(trace, line)
    full = _FULL_SHARE * tolerance
    trajectory = (nearness(there, full, tolerance).mean() + nearness(back, full, tolerance).mean()) / 2
    endpoints = (_at_middle(trace[0], due["start"]["box"]) + _at_middle(trace[-1], due["end"]["box"])) / 2
    parts = {
        "trajectory": float(trajectory),
        "endpoints": endpoints,
        "continuity": float(stated is not None and _at(trace[-1], stated, tolerance)),
        "answer": float(exact),
    }
    followed = bool(there.max() <= tolerance and back.max() <= tolerance)
    ends_right = _at(trace[0], due["start"]["box"], tolerance) and _at(trace[-1], due["end"]["box"], tolerance)
    return verdict(PATH_TRACING, response, parts, exact=exact, path_valid=followed and ends_right)


def _trace(response: str, size: tuple[int, int]) -> Points:
    """The points of a response in pixels [T, 2]; those outside the frame are none."""
    points = [to_pixels(p.frame, size) for p in parse(response) if p.kind == "point" and p.valid]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _at_middle(point: Points, box: Sequence[float]) -> float:
    """1 in the middle of an icon, 0 as far from it as the icon's longer side: beside the icon, or on another one."""
    side = max(box[2] - box[0], box[3] - box[1])
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    return float(nearness(float(np.hypot(*(point - middle))), _FULL_SHARE * side, side))


def _at(point: Points, box: Sequence[float], tolerance: float) -> bool:
    """Whether a point lies in an icon's box, or outside by less than half the tolerance."""
    outside = np.maximum(np.maximum(np.array(box[:2]) - point, point - np.array(box[2:])), 0)
    return float(np.hypot(*outside)) < tolerance / 2


PATH_TRACING = Suite("path_tracing", tuple(_LEVELS), WEIGHTS, _draw, _judge)
