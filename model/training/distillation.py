"""On-policy distillation: the student answers, and each task's expert says at every token what it would have said.

The loss is sum_i w_i KL(student || expert_i), over the whole vocabulary at each token of the student's own responses:
the mean over the tokens of the tasks that expert i teaches. The student is not told what was right, so nothing has to
be judged, and it only learns where it goes itself. Shapes: L drawn tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import weights
from ..prompt import Tokenizer
from ..vision_language_model import VisionLanguageModel
from . import whole
from .learner import Learner
from .policy import Policy
from .rollouts import Group, Sampler, draw_prompts, summary


@dataclass(frozen=True)
class Expert:
    """Who teaches: the checkpoint, the suites that it teaches, and the weight of its loss."""

    checkpoint: Path
    suites: tuple[str, ...]
    weight: float = 0.5


@dataclass(frozen=True)
class Distillation:
    """How much: `prompts` a round from `sources`, `rollouts` of each, one step on them."""

    sources: tuple[str, ...]
    rounds: int
    prompts: int
    rollouts: int
    max_output_tokens: int
    learning_rate: float
    batch_tokens: int = 6144
    save_every: int = 5


def reverse_kl(student_LV: Tensor, expert_LV: Tensor) -> Tensor:
    """KL(student || expert) [L] in nats, from logits."""
    student_LV, expert_LV = student_LV.log_softmax(dim=-1), expert_LV.log_softmax(dim=-1)
    return (student_LV.exp() * (student_LV - expert_LV)).sum(dim=-1)


def divergences(
    student: VisionLanguageModel, experts: Mapping[Expert, VisionLanguageModel], policy: Policy,
    groups: Sequence[Group], batch_tokens: int, device: torch.device, learn: Callable[[Tensor], None] | None = None,
) -> dict[Expert, float]:  # fmt: skip
    """The mean over tokens of KL(student || expert) for each expert, on the responses of its suites.

    `learn` gets each parcel's share of the loss; without it nothing is differentiated.
    """
    means: dict[Expert, float] = {}
    for expert, model in experts.items():
        own = [group for group in groups if group.prompt.suite in expert.suites]
        samples = [policy.sample(group.case, rollout.ids) for group in own for rollout in group.rollouts]
        tokens = sum(len(sample.rows) for sample in samples)
        for parcel in policy.parcels(samples, batch_tokens, device):
            with torch.no_grad():
                expert_LV = policy.logits(model, parcel.batch)
            with torch.set_grad_enabled(learn is not None):
                share = reverse_kl(policy.logits(student, parcel.batch), expert_LV).sum() / tokens
            if learn is not None:
                learn(expert.weight * share)
            means[expert] = means.get(expert, 0.0) + share.item()
    return means


def distil(
    checkpoint: Path, experts: Sequence[Expert], base: Path, state: Path, sizes: Distillation, how: whole.How,
    device: torch.device, seed: int, log: Callable[[str], None],
) -> Learner:  # fmt: skip
    """Rounds of answering and being told, from a checkpoint; resumed where the file `state` says that they stood.

    `base`: the folder with the tokenizer. Each round's figures are of prompts never seen before.
    """
    learner = Learner(checkpoint, state, sizes.learning_rate, device)
    models = {expert: weights.load(expert.checkpoint, device=device) for expert in experts}
    sampler = Sampler(base, device, sizes.max_output_tokens)
    policy = Policy(learner.model.config, Tokenizer(base), sizes.max_output_tokens, how)
    while learner.round < sizes.rounds:
        at = learner.round
        prompts = draw_prompts(sizes.sources, sizes.prompts, np.random.default_rng([seed, at]))
        groups = sampler.groups(learner.model, prompts, sizes.rollouts, seed * 100_003 + at)
        means = divergences(
            learner.model, models, policy, groups, sizes.batch_tokens, device, lambda share: share.backward()
        )
        learner.step()
        figures = summary(groups) | {"loss": sum(expert.weight * mean for expert, mean in means.items())}
        figures |= {f"kl_{expert.checkpoint.parent.name}": mean for expert, mean in means.items()}
        learner.history.append(figures)
        log(f"round {at + 1}/{sizes.rounds} " + " ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        if learner.round % sizes.save_every == 0 or learner.round == sizes.rounds:
            learner.save()
    return learner
