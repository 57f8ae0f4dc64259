"""The whole school: two specialists, one student.

    base          supervised, everything               from nothing
    box_sft       supervised, boxes alone              from base
    point_sft     supervised, points alone             from base
    box_rl        GRPO on the box suites               from box_sft
    point_rl      GRPO on the point suites             from point_sft
    rejection     supervised, both experts' rollouts   from base
    distillation  reverse KL to both experts           from rejection

Each stage has a folder of its own and ends with `checkpoint` in it, put there whole; where that is, the stage is done.
A stage that was cut off goes on from its last saved state. Then it is scored on validation cases (`scores.json`), and
the report over all stages is written anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import weights
from ..config import Config
from ..vision_language_model import VisionLanguageModel
from .batches import batches
from .distillation import Expert, distil
from .grpo import Reinforcement, reinforce
from .heads import inherit_heads, save_heads
from .lessons import Lesson
from .rejection import Collection, collect, draw_of
from .report import validation_scores, write_report
from .rollouts import Sampler, write_checkpoint
from .sizes import BOX_SUITES, POINT_SUITES, Sizes
from .trainer import Draw, Trainer
from .whole import How

STAGES = ("base", "box_sft", "point_sft", "box_rl", "point_rl", "rejection", "distillation")
CHECKPOINT, SCORES, HISTORY, STATE = "checkpoint", "scores.json", "history.json", "learner.safetensors"
_NEEDS = {
    "base": (), "box_sft": ("base",), "point_sft": ("base",), "box_rl": ("box_sft",), "point_rl": ("point_sft",),
    "rejection": ("base", "box_rl", "point_rl"), "distillation": ("rejection", "box_rl", "point_rl"),
}  # fmt: skip


@dataclass(frozen=True)
class School:
    """Where and how the stages run. `config`: the folder with config.json and tokenizer.json; `state`: of all stages'
    folders. ValueError for a stage that there is not, or whose predecessors are not done."""

    config: Path
    state: Path
    sizes: Sizes
    how: How
    device: torch.device
    seed: int = 0
    log: Callable[[str], None] = print

    def checkpoint(self, stage: str) -> Path:
        """Where a stage leaves what it has made."""
        return self.state / stage / CHECKPOINT

    def run(self, stage: str) -> None:
        """Run one stage to its end, score it and write the report; what is done already is not done again."""
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}; choose from {', '.join(STAGES)}")
        missing = [each for each in _NEEDS[stage] if not self.checkpoint(each).is_dir()]
        if missing:
            raise ValueError(f"{stage} begins with what {missing[0]} ends with: run {missing[0]} first")
        if not self.checkpoint(stage).is_dir():
            self.log(f"stage {stage}")
            _RUN[stage](self, stage)
        if not (self.state / stage / SCORES).is_file():
            sampler = Sampler(self.config, self.device, self.sizes.distillation.max_output_tokens)
            asked = self.sizes.validation, self.sizes.validation_cases
            scores = validation_scores(self.checkpoint(stage), sampler, *asked)
            _write_json(self.state / stage / SCORES, scores)
            self.log(f"stage {stage}: " + ", ".join(f"{suite} {each['score']:.3f}" for suite, each in scores.items()))
        self._report()

    def finish(self, stage: str, model: VisionLanguageModel, history: object) -> None:
        """Leave what a stage has made, whole or not at all."""
        folder = self.state / stage
        _write_json(folder / HISTORY, history)
        partial = folder / "checkpoint.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_checkpoint(model, self.config, partial)
        partial.rename(folder / CHECKPOINT)

    def _report(self) -> None:
        scores = _read_all(self.state, SCORES)
        write_report(self.state, scores, _read_all(self.state, HISTORY))


def run(
    config: Path, state: Path, sizes: Sizes, *, stages: Sequence[str] = STAGES, how: How | None = None,
    device: torch.device | None = None, seed: int = 0, log: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """Run stages in order, all of them if none are named; the checkpoint that the last one left."""
    school = School(config, state, sizes, how or How(), device or torch.device("cpu"), seed, log)
    for stage in stages:
        school.run(stage)
    return school.checkpoint(stages[-1])


# ---- the stages


def _supervise(school: School, stage: str, lessons: Sequence[Lesson], start: Path | None, draw: Draw = batches) -> None:
    folder = school.state / stage
    begins = not (folder / "state.safetensors").is_file()
    trainer = Trainer(
        Config.from_file(school.config), school.config, lessons, folder, _seed(school, stage), school.how,
        device=school.device, draw=draw,
    )  # fmt: skip
    if begins and start is not None:
        trainer.student.model.load_state_dict(weights.load(start).state_dict())
        inherit_heads(trainer.student, start)
    trainer.run(school.log)
    school.finish(stage, trainer.student.model, trainer.history)
    save_heads(trainer.student, school.checkpoint(stage))


def _base(school: School, stage: str) -> None:
    _supervise(school, stage, school.sizes.base, None)


def _sft(school: School, stage: str) -> None:
    lessons: tuple[Lesson, ...] = getattr(school.sizes, stage)
    _supervise(school, stage, lessons, school.checkpoint("base"))


def _rl(school: School, stage: str) -> None:
    sizes: Reinforcement = getattr(school.sizes, stage)
    start, state = school.checkpoint(_NEEDS[stage][0]), school.state / stage / STATE
    learner = reinforce(
        start, school.config, state, sizes, school.how, school.device, _seed(school, stage), school.log
    )  # fmt: skip
    school.finish(stage, learner.model, learner.history)


def _rejection(school: School, stage: str) -> None:
    folders = []
    for expert, name in (("box_rl", "box_rollouts"), ("point_rl", "point_rollouts")):
        sizes: Collection = getattr(school.sizes, name)
        sampler = Sampler(school.config, school.device, sizes.max_output_tokens)
        folders.append(school.state / stage / name)
        collect(school.checkpoint(expert), sampler, folders[-1], sizes, _seed(school, name), school.log)
    _supervise(school, stage, (school.sizes.rejection,), school.checkpoint("base"), draw_of(folders))


def _distillation(school: School, stage: str) -> None:
    experts = (
        Expert(school.checkpoint("box_rl"), BOX_SUITES),
        Expert(school.checkpoint("point_rl"), POINT_SUITES),
    )
    learner = distil(
        school.checkpoint("rejection"), experts, school.config, school.state / stage / STATE,
        school.sizes.distillation, school.how, school.device, _seed(school, stage), school.log,
    )  # fmt: skip
    school.finish(stage, learner.model, learner.history)


_RUN: dict[str, Callable[[School, str], None]] = {
    "base": _base, "box_sft": _sft, "point_sft": _sft, "box_rl": _rl, "point_rl": _rl, "rejection": _rejection,
    "distillation": _distillation,
}  # fmt: skip


def _seed(school: School, part: str) -> int:
    """Its own for each part, so that no two draw the same cases."""
    return school.seed * 1000 + [*STAGES, "box_rollouts", "point_rollouts"].index(part)


def _write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _read_all(state: Path, name: str) -> dict[str, Any]:
    files = {stage: state / stage / name for stage in STAGES}
    return {stage: json.loads(path.read_text(encoding="utf-8")) for stage, path in files.items() if path.is_file()}
