"""Distillation: reverse KL is the textbook's, each task asks its own expert, and the student comes nearer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model import weights
from model.training.distillation import Distillation, Expert, distil, divergences, reverse_kl
from model.training.learner import Learner
from model.training.policy import Policy
from model.training.rollouts import Prompt
from model.training.whole import How
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CONFIG, CPU, TOKENIZER, checkpoint, group


def test_reverse_kl_equals_the_sum_over_the_whole_vocabulary_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    student, expert = (3 * torch.randn(7, 300, generator=generator) for _ in range(2))
    p, q = (np.exp(x.double().numpy()) for x in (student, expert))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    oracle = (p * np.log(p / q)).sum(axis=1)
    assert reverse_kl(student, expert).tolist() == pytest.approx(oracle.tolist(), rel=1e-4)
    assert float(reverse_kl(student, student).abs().max()) < 1e-5
    assert not torch.allclose(reverse_kl(student, expert), reverse_kl(expert, student))


def test_the_gradient_is_none_where_the_student_is_the_expert() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    student = logits.clone().requires_grad_(True)
    reverse_kl(student, logits).sum().backward()
    assert student.grad is not None and float(student.grad.abs().max()) < 1e-6


def test_each_task_asks_its_own_expert_and_weighs_it(tmp_path: Path) -> None:
    student = weights.load(checkpoint(tmp_path / "a", 0)).requires_grad_(True)
    box, point = (Expert(checkpoint(tmp_path / name, 0), suites, weight) for name, suites, weight in (
        ("b", ("counting",), 0.25), ("p", ("maze",), 0.75)))  # fmt: skip
    other = weights.load(checkpoint(tmp_path / "other", 5))
    policy = Policy(CONFIG, TOKENIZER, 400, How())
    groups = [group(Prompt("maze/easy", 1), ""), group(Prompt("counting/easy", 1), "", "3</think>3")]
    same = weights.load(box.checkpoint)
    shares: list[Tensor] = []

    def keep(share: Tensor) -> None:
        shares.append(share)

    means = divergences(student, {box: same, point: other}, policy, groups, 2000, CPU, keep)
    assert means[box] == pytest.approx(0, abs=1e-5) and means[point] > 0.01
    alone = divergences(student, {point: other}, policy, groups[:1], 2000, CPU)
    assert means[point] == pytest.approx(alone[point], rel=1e-4)
    assert sum(share.item() for share in shares) == pytest.approx(0.75 * means[point], abs=1e-5)
    assert all(share.requires_grad for share in shares)
    swapped = divergences(student, {box: other, point: same}, policy, groups, 2000, CPU)
    assert swapped[point] == pytest.approx(0, abs=1e-5) and swapped[box] > 0.01


def test_the_student_comes_nearer_on_prompts_it_has_not_seen(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path / name / "checkpoint", seed) for name, seed in (("s", 0), ("box", 1), ("point", 2))]
    experts = Expert(folders[1], ("counting",)), Expert(folders[2], ("maze",))
    sizes = Distillation(("counting/easy", "maze/easy"), 5, 4, 1, 20, 1e-2, batch_tokens=1500, save_every=2)
    arguments = folders[0], experts, DEFAULT_CHECKPOINT, tmp_path / "state", sizes, How(), CPU, 3

    def stop_at_fourth(line: str) -> None:
        if "round 4/" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(*arguments, stop_at_fourth)
    assert Learner(folders[0], tmp_path / "state", 1e-2, CPU).round == 2
    learner = distil(*arguments, lambda line: None)
    assert learner.round == 5
    held_out = [group(Prompt(source, 7), "") for source in sizes.sources]
    policy = Policy(CONFIG, TOKENIZER, 400, How())
    models = {expert: weights.load(expert.checkpoint) for expert in experts}
    before, after = (
        divergences(model, models, policy, held_out, 1500, CPU) for model in (weights.load(folders[0]), learner.model)
    )
    assert all(after[expert] < before[expert] for expert in experts), (before, after)
    assert {"loss", "kl_box", "kl_point", "reward"} <= set(learner.history[-1])
