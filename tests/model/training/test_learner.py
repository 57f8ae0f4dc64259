"""A learner goes on from its file as if it had never stopped, and leaves the tower as it was."""

from __future__ import annotations

from pathlib import Path

import torch

from model import weights
from model.training.learner import Learner
from tests.model.training.debug import CPU, checkpoint


def step(learner: Learner, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in learner.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    learner.step()
    learner.history.append({"loss": float(seed)})


def test_a_learner_begins_with_a_checkpoint_and_leaves_its_tower_and_balance(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    learner, before = Learner(folder, tmp_path / "state", 1e-2, CPU), weights.load(folder).state_dict()
    assert learner.round == 0
    step(learner, 0)
    moved = {name for name, value in learner.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "head.weight" in moved and "aligner.w1.weight" in moved
    assert not any(name.startswith("vision.") or "tid2eid" in name or "gate.bias" in name for name in moved)


def test_a_saved_learner_goes_on_with_its_weights_moments_and_history(tmp_path: Path) -> None:
    folder, path = checkpoint(tmp_path / "model"), tmp_path / "new" / "state"
    first = Learner(folder, path, 1e-2, CPU)
    for seed in range(2):
        step(first, seed)
    first.save()
    step(first, 2)
    second = Learner(folder, path, 1e-2, CPU)
    assert second.round == 2 and not list(path.parent.glob("*.partial"))
    step(second, 2)
    assert second.history == first.history
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
