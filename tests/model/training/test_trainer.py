"""Training: the loss falls, and a stopped training goes on where it stood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.config import Config
from model.training.lessons import Lesson
from model.training.trainer import Trainer
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.test_supervised import CONFIG

LESSON = Lesson("trial", 12, {"shapes": 1.0, "spatial/easy": 1.0}, batch_tokens=1200, see_every=2, spread=(3.0, 0.5))


def test_the_loss_falls_and_a_resumed_training_goes_on_where_it_stood(tmp_path: Path) -> None:
    lines: list[str] = []
    through = Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path / "through")
    through.run(log=lines.append, save_every=6, log_every=1)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 12 and losses[-1] < losses[0]

    half = Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path / "half")
    with pytest.raises(KeyboardInterrupt):
        half.run(log=_interrupt_at(8), save_every=6, log_every=1)
    resumed = Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path / "half")
    assert (resumed.lesson, resumed.step) == (0, 6)
    resumed.run(log=lambda line: None, save_every=6)
    assert (resumed.lesson, resumed.step) == (1, 0) and resumed.images > half.images / 2


def test_a_resumed_training_has_the_weights_and_moments_that_were_saved(tmp_path: Path) -> None:
    first = Trainer(CONFIG, DEFAULT_CHECKPOINT, [replace(LESSON, steps=2)], tmp_path)
    first.run(log=lambda line: None)
    second = Trainer(CONFIG, DEFAULT_CHECKPOINT, [replace(LESSON, steps=2)], tmp_path)
    for name, value in first.student.state_dict().items():
        assert torch.equal(value, second.student.state_dict()[name]), name
    for before, after in zip(first.optimizers, second.optimizers, strict=True):
        moments = [list(optimizer.state.values()) for optimizer in (before, after)]
        assert len(moments[0]) == len(moments[1]) > 10
        for one, other in zip(*moments, strict=True):
            assert one.keys() == other.keys() and all(torch.equal(one[kind], other[kind]) for kind in one)
    assert second.seconds == first.seconds > 0


def _interrupt_at(step: int) -> Callable[[str], None]:
    def log(line: str) -> None:
        if f" {step}/" in line:
            raise KeyboardInterrupt

    return log


def test_a_training_state_of_another_shape_is_not_taken_for_this_one(tmp_path: Path) -> None:
    Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path).save()
    other: Config = replace(CONFIG, hidden_size=48)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Trainer(other, DEFAULT_CHECKPOINT, [LESSON], tmp_path)
