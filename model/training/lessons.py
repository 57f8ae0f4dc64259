"""Lessons: what is drawn and asked, for how long, and what the loss asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Lesson:
    """One stretch of training. `sources`: shares of "shapes", suite/level ("counting/easy") or suite/level/kind
    ("reading/easy/price") among the examples."""

    name: str
    steps: int
    sources: Mapping[str, float]
    batch_tokens: int = 6144  # of one batch, the padding and a charge for the patches included
    longest: int = 320  # tokens of an example; longer ones are left out
    guidance: float = 1.0  # weight of the loss that shows the answer's tokens where to look
    dense: float = 1.0
    see_every: int = 1  # steps between those that train the vision tower too
    answers: bool = True  # without: the vision tower alone, on dense targets
    peak_lr: float = 1e-3
    final_lr: float = 1e-3
    spread: tuple[float, float] = (3.0, 3.0)  # of a number over its neighbours, of 0..999: at the start, at the end
    greyed: bool = False  # images greyed out, to see what can be learnt from questions and sizes alone
    sparse: bool = True  # the indexer drops entries as in use; before it has learnt to rank, let all be seen

    def spread_at(self, step: int) -> float:
        """How soft the numbers' targets are at a step: soft ones are learnt sooner, hard ones more exactly."""
        first, last = self.spread
        return first + (last - first) * min(step / self.steps, 1.0)

    def shortened(self, share: float) -> Lesson:
        """The same lesson with a share of its steps, at least one."""
        return replace(self, steps=max(round(self.steps * share), 1))


# Nouns, print and the cells of mazes, before anything is said: print and icons are small, so they get the larger share.
_SEEN = {
    "shapes": 0.4, "counting/easy": 1.0, "counting/medium": 2.0, "spatial/easy": 0.8, "spatial/medium": 0.8,
    "reading/easy/price": 4.0, "reading/easy": 0.8, "maze/easy": 1.6, "maze/medium": 2.4, "path_tracing/easy": 4.0,
    "path_tracing/medium": 3.0, "path_tracing/hard": 3.0,
}  # fmt: skip
# Prices and true or false get more than their quarter: they are what a shelf and a scene are mostly asked for.
_EASY = {
    "shapes": 1.0, "counting/easy": 2.6, "counting/medium": 0.8, "spatial/easy": 1.4, "spatial/easy/true_false": 1.0,
    "spatial/medium": 0.4, "reading/easy/price": 2.6, "reading/easy": 1.0, "maze/easy": 2.8, "path_tracing/easy": 2.2,
}  # fmt: skip
_ALL = {
    "shapes": 2.0, "counting/easy": 1.2, "counting/medium": 3.0, "spatial/easy": 0.7, "spatial/easy/true_false": 0.7,
    "spatial/medium": 0.6, "reading/easy/price": 2.4, "reading/easy": 0.6, "maze/easy": 3.2, "maze/medium": 3.4,
    "path_tracing/easy": 1.4, "path_tracing/medium": 1.8, "path_tracing/hard": 1.4,
}  # fmt: skip

# The school: the tower learns to see on dense targets; then everything, the easy first. A step is about 18 examples.
SCHOOL = (
    Lesson("see", 4000, _SEEN, answers=False, peak_lr=1.5e-3, final_lr=4e-4),
    Lesson("easy", 8000, _EASY, guidance=2.0, see_every=6, sparse=False, spread=(3.0, 2.0)),
    Lesson("all", 24_000, _ALL, longest=480, see_every=2, final_lr=1e-5, spread=(2.0, 0.6)),
)
