"""GRPO: its arithmetic is the written one, and what earned more becomes likelier."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.training import grpo
from model.training.grpo import Reinforcement, advantages, divergence, learn, objective, reinforce
from model.training.learner import Learner
from model.training.policy import Policy
from model.training.rollouts import Prompt
from model.training.whole import How
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CONFIG, CPU, TOKENIZER, checkpoint, group

SIZES = Reinforcement(("maze/easy", "counting/easy"), 3, 4, 3, 24, 1e-3, batch_tokens=1500, save_every=1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=16))
def test_advantages_sum_to_zero_and_keep_the_order(rewards: list[float]) -> None:
    given_G = torch.tensor(rewards, dtype=torch.float64)
    gains = advantages(given_G)
    assert float(gains.sum()) == pytest.approx(0, abs=1e-6)
    assert float(gains.std(correction=0)) <= 1 + 1e-9
    assert bool(((given_G[:, None] >= given_G) <= (gains[:, None] >= gains)).all())


def test_advantages_of_equal_rewards_are_none() -> None:
    assert advantages(torch.tensor([0.5, 0.5, 0.5])).tolist() == [0, 0, 0]
    assert advantages(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([-1, 1], abs=1e-3)


@pytest.mark.parametrize(("ratio", "advantage", "gain"), [
    (1.0, 2.0, 2.0), (1.1, 2.0, 2.2), (1.5, 2.0, 2.4), (0.5, 2.0, 1.0),  # gains beyond 1.2 are cut, losses are not
    (1.0, -2.0, -2.0), (0.9, -2.0, -1.8), (0.5, -2.0, -1.6), (1.5, -2.0, -3.0),
])  # fmt: skip
def test_the_objective_is_clipped_as_written(ratio: float, advantage: float, gain: float) -> None:
    drawn = torch.tensor([-1.3])
    now = (drawn + math.log(ratio)).requires_grad_(True)
    each = objective(now, drawn, torch.tensor([advantage]), 0.2)
    assert each.tolist() == pytest.approx([gain])
    each.sum().backward()
    assert now.grad is not None
    cut = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert float(now.grad[0]) == pytest.approx(0.0 if cut else ratio * advantage)


@given(st.floats(-8, 0), st.floats(-8, 0))
def test_the_divergence_is_the_estimate_as_written_and_never_negative(now: float, reference: float) -> None:
    found = float(divergence(torch.tensor([now], dtype=torch.float64), torch.tensor([reference], dtype=torch.float64)))
    assert found == pytest.approx(math.exp(reference - now) - (reference - now) - 1) and found >= 0


def test_what_earned_more_becomes_likelier_and_what_earned_less_unlikelier(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    learner = Learner(folder, tmp_path / "state", 1e-2, CPU)
    reference = Learner(folder, tmp_path / "none", 0.0, CPU).model
    policy = Policy(CONFIG, TOKENIZER, 400, How())
    groups = [group(Prompt("maze/easy", seed), "", "fork</think>True", "</think>dead end") for seed in range(3)]

    def likelihoods() -> torch.Tensor:
        found = torch.zeros(9)
        samples = [policy.sample(each.case, rollout.ids) for each in groups for rollout in each.rollouts]
        with torch.no_grad():
            for parcel in policy.parcels(samples, 1500, CPU):
                log_L = policy.log_probabilities(learner.model, parcel)
                sums = torch.zeros(len(parcel.members)).index_add(0, parcel.member_L, log_L)
                found[list(parcel.members)] = sums / parcel.member_L.bincount()
        return found.view(3, 3)

    before = likelihoods()
    sizes = Reinforcement((), 1, 3, 3, 400, 1e-2, epochs=2, batch_tokens=1500)
    figures = learn(learner, reference, policy, groups, sizes)
    moved = (likelihoods() - before).mean(dim=0)
    assert moved[0] > 0 > moved[2]
    # At the first step the policy is the one that drew, so the loss is minus the mean of advantages that sum to 0.
    assert figures["loss"] == pytest.approx(0, abs=1e-4)
    assert figures["kl"] > 0 and 0 <= figures["clipped"] <= 1


def test_a_resumed_reinforcement_equals_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that has learnt nothing solves nothing: here it learns from all that earned anything.
    monkeypatch.setattr(grpo, "for_reinforcement", list)
    folder = checkpoint(tmp_path / "model")
    lines: list[str] = []
    through = reinforce(folder, DEFAULT_CHECKPOINT, tmp_path / "a", SIZES, How(), CPU, 3, lines.append)

    def stop_at_second(line: str) -> None:
        if "round 2/" in line:
            raise KeyboardInterrupt

    arguments = folder, DEFAULT_CHECKPOINT, tmp_path / "b", SIZES, How(), CPU, 3
    with pytest.raises(KeyboardInterrupt):
        reinforce(*arguments, stop_at_second)
    resumed = reinforce(*arguments, lines.append)
    assert len(lines) == 3 + 2 and resumed.history == through.history
    begun = Learner(folder, tmp_path / "none", 0.0, CPU).model.state_dict()
    assert not torch.equal(begun["head.weight"], through.model.state_dict()["head.weight"])
    for name, value in through.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
