"""What all suites share: a case drawn from (suite, level, split, seed), a verdict on a response, the generators.

A suite is a module with one `Suite` at its end. Its cases carry the truth as plain JSON values, so that a case can be
written to a file and judged elsewhere; no judge looks at pixels. Text and numbers follow `model.primitives`: integers
0..999 of the image's width and height, thinking first, then `</think>` and the short answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from model.primitives import FRAME_MAX, strip, well_formed
from model.primitives import split as split_response
from model.prompt import END_THINK
from model.tasks.matching import Box

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Case:
    """A question about an image, the truth, and a reference response that earns full marks.

    `kind` is the sort of question within the suite; `boxes` are those of what the answer is about, in pixels (None
    where the suite judges no boxes); `truth` holds what else its judge needs, in values that JSON can write.
    """

    suite: str
    level: str
    kind: str
    image: Image.Image
    question: str
    answer: str
    response: str
    boxes: tuple[Box, ...] | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


@dataclass(frozen=True)
class Verdict:
    """How a response did. `score` is the weighted sum of `parts`, all in 0..1: the accuracy reward of its suite.

    `exact`: the final answer is right. `iou`: mean over boxes matched one to one, missed and surplus ones as 0; None
    where no boxes are judged, or none were due or given. `path_valid`: None where no path was due.
    """

    score: float
    exact: bool
    well_formed: bool
    parts: Mapping[str, float]
    iou: float | None = None
    path_valid: bool | None = None


@dataclass(frozen=True)
class Suite:
    """One skill. `draw(seed, level, split)` makes a case; `judge(case, response)` scores a response to it.

    `weights` names the parts of a verdict and what each is worth; they sum to 1.
    """

    name: str
    levels: tuple[str, ...]
    weights: Mapping[str, float]
    draw: Callable[[int, str, Split], Case]
    judge: Callable[[Case, str], Verdict]

    def __post_init__(self) -> None:
        assert abs(sum(self.weights.values()) - 1) < 1e-9, self.weights

    def case(self, seed: int, level: str, split: Split) -> Case:
        """The case of (level, split, seed). ValueError for a level, split or seed that there is not."""
        if level not in self.levels:
            raise ValueError(f"the suite {self.name} has the levels {', '.join(self.levels)}; got {level!r}")
        return self.draw(seed, level, split)


def rng_of(suite: str, level: str, split: Split, seed: int) -> np.random.Generator:
    """The generator of a case: no two (suite, level, split, seed) share one, so splits never meet."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    key = [zlib.crc32(f"{suite}/{level}".encode()), SPLITS.index(split), seed]
    return np.random.default_rng(np.random.SeedSequence(key))


def stratum(seed: int, strata: int) -> int:
    """Which of `strata` equal shares of the seeds a seed belongs to: answers drawn by it balance over any run of seeds.

    Consecutive seeds go through all strata in an order that changes from round to round.
    """
    order = np.random.default_rng([strata, seed // strata]).permutation(strata)
    return int(order[seed % strata])


def verdict(
    suite: Suite, response: str, parts: Mapping[str, float], *, exact: bool, iou: float | None = None,
    path_valid: bool | None = None,
) -> Verdict:  # fmt: skip
    """A verdict whose score weighs the parts as the suite does."""
    assert set(parts) == set(suite.weights), (set(parts), set(suite.weights))
    assert all(0.0 <= value <= 1.0 for value in parts.values()), parts
    score = sum(suite.weights[name] * value for name, value in parts.items())
    return Verdict(score, exact, well_formed(response), dict(parts), iou, path_valid)


def final_answer(response: str) -> str | None:
    """The short answer of a response, free of markup; None when its thinking never ends, so that there is none."""
    if END_THINK not in response:
        return None
    return strip(split_response(response)[1])


def same_answer(given: str | None, due: str) -> bool:
    """Whether two short answers are the same but for case, outer blanks and a full stop."""
    return given is not None and _plain(given) == _plain(due)


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").casefold()


def to_frame(values: Sequence[float], size: tuple[int, int]) -> tuple[int, ...]:
    """x, y, x, y, … in pixels of an image of this size -> integers 0..999 of the frame."""
    return tuple(min(max(round(value / size[i % 2] * FRAME_MAX), 0), FRAME_MAX) for i, value in enumerate(values))


def to_pixels(frame: Sequence[int], size: tuple[int, int]) -> tuple[float, ...]:
    """Integers 0..999 of the frame -> x, y, x, y, … in pixels of an image of this size."""
    return tuple(value / FRAME_MAX * size[i % 2] for i, value in enumerate(frame))
