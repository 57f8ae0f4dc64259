"""How much of each stage: the full school, and one of minutes that shows that every stage works."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .distillation import Distillation
from .grpo import Reinforcement
from .lessons import SCHOOL, Lesson
from .rejection import Collection

BOX_SUITES = ("counting", "spatial", "reading")
POINT_SUITES = ("maze", "path_tracing")


@dataclass(frozen=True)
class Sizes:
    """All stages' sizes. `validation`: the sources of the scores after each stage, `validation_cases` of each."""

    base: tuple[Lesson, ...]
    box_sft: tuple[Lesson, ...]
    point_sft: tuple[Lesson, ...]
    box_rl: Reinforcement
    point_rl: Reinforcement
    box_rollouts: Collection
    point_rollouts: Collection
    rejection: Lesson
    distillation: Distillation
    validation: tuple[str, ...]
    validation_cases: int

    def shortened(self, share: float) -> Sizes:
        """The same with a share of all steps, rounds and collected prompts, at least one of each."""

        def less(count: int) -> int:
            return max(round(count * share), 1)

        return replace(
            self,
            base=tuple(lesson.shortened(share) for lesson in self.base),
            box_sft=tuple(lesson.shortened(share) for lesson in self.box_sft),
            point_sft=tuple(lesson.shortened(share) for lesson in self.point_sft),
            box_rl=replace(self.box_rl, rounds=less(self.box_rl.rounds)),
            point_rl=replace(self.point_rl, rounds=less(self.point_rl.rounds)),
            box_rollouts=replace(self.box_rollouts, prompts=less(self.box_rollouts.prompts)),
            point_rollouts=replace(self.point_rollouts, prompts=less(self.point_rollouts.prompts)),
            rejection=self.rejection.shortened(share),
            distillation=replace(self.distillation, rounds=less(self.distillation.rounds)),
        )


def _levels(suites: tuple[str, ...], levels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{suite}/{level}" for suite in suites for level in levels)


_BOX, _POINT = (_levels(suites, ("easy", "medium")) for suites in (BOX_SUITES, POINT_SUITES))
_SFT = Lesson(
    "sft", 3000, {}, longest=480, guidance=0.5, dense=0.0, see_every=3, peak_lr=3e-4, final_lr=1e-5, spread=(0.4, 0.4)
)  # fmt: skip
_TOKENS = 400  # of a response: a little more than the longest reference of these levels takes

# The specialists are taught their primitives alone: the paper's 70 % of general data keep abilities that a model of
# this size has never had. Prompts, rollouts and rounds are what CPUs do in a day, not the paper's.
FULL = Sizes(
    base=SCHOOL,
    box_sft=(replace(_SFT, name="box", sources=dict.fromkeys(_BOX, 1.0)),),
    point_sft=(replace(_SFT, name="point", sources=dict.fromkeys(_POINT, 1.0)),),
    box_rl=Reinforcement(_BOX, 200, 48, 8, _TOKENS, 1e-4),
    point_rl=Reinforcement(_POINT, 200, 48, 8, _TOKENS, 1e-4),
    box_rollouts=Collection(_BOX, 6000, 4, _TOKENS),
    point_rollouts=Collection(_POINT, 6000, 4, _TOKENS),
    rejection=replace(_SFT, name="rejection", steps=4000, longest=560),
    distillation=Distillation((*_BOX, *_POINT), 200, 96, 2, _TOKENS, 1e-4),
    validation=_levels((*BOX_SUITES, *POINT_SUITES), ("easy", "medium")),
    validation_cases=100,
)

# For a model of a few thousand weights, which learns how to answer and hardly to see: the shortest responses there are.
_DEBUG_BOX, _DEBUG_POINT = ("counting/shapes",), ("maze/easy",)
_DEBUG_SFT = replace(_SFT, steps=60, guidance=0.0, batch_tokens=1536, longest=224, see_every=10, peak_lr=1e-3)
_DEBUG_BASE = replace(
    _DEBUG_SFT, name="base", steps=400, sources=dict.fromkeys((*_DEBUG_BOX, *_DEBUG_POINT), 1.0), peak_lr=4e-3,
    final_lr=1e-3, spread=(3.0, 0.6),
)  # fmt: skip

DEBUG = Sizes(
    base=(_DEBUG_BASE,),
    box_sft=(replace(_DEBUG_SFT, name="box", sources=dict.fromkeys(_DEBUG_BOX, 1.0)),),
    point_sft=(replace(_DEBUG_SFT, name="point", sources=dict.fromkeys(_DEBUG_POINT, 1.0)),),
    box_rl=Reinforcement(_DEBUG_BOX, 24, 12, 8, 128, 7e-4, batch_tokens=1536, save_every=2),
    point_rl=Reinforcement(_DEBUG_POINT, 16, 12, 6, 128, 7e-4, batch_tokens=1536, save_every=2),
    box_rollouts=Collection(_DEBUG_BOX, 48, 4, 128),
    point_rollouts=Collection(_DEBUG_POINT, 48, 4, 128),
    rejection=replace(_DEBUG_SFT, name="rejection", longest=320),
    distillation=Distillation((*_DEBUG_BOX, *_DEBUG_POINT), 10, 24, 1, 128, 4e-4, batch_tokens=1536, save_every=4),
    validation=(*_DEBUG_BOX, *_DEBUG_POINT),
    validation_cases=8,
)
