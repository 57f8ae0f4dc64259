"""Reinforcement by groups (GRPO): of several responses to one prompt, those better than their mean become likelier.

For a prompt's responses o_1 .. o_G with rewards r_1 .. r_G, and p the policy that learns, the loss to lower is

    - 1/G sum_i 1/|o_i| sum_t [ min(q A_i, clip(q, 1 - e, 1 + e) A_i) - b k ]        A_i = (r_i - mean r) / std r

    q = p(token) / p_drawn(token)       p_drawn: as it was when the responses were drawn
    k = exp(d) - d - 1                  d = log p_reference(token) - log p(token): an estimate of KL(p || reference)

averaged over the prompts. Shapes: G responses of a group, L drawn tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from .policy import Parcel, Policy
from .rollouts import Group, Sampler, draw_prompts, for_reinforcement, summary

_LEAST_STD = 1e-4  # of a group's rewards: where all are equal nothing is better


@dataclass(frozen=True)
class Reinforcement:
    """How much: `prompts` a round from `sources`, `rollouts` of each, `epochs` steps on those that were drawn."""

    sources: tuple[str, ...]
    rounds: int
    prompts: int
    rollouts: int
    max_output_tokens: int
    learning_rate: float
    epochs: int = 2
    clip: float = 0.2
    kl_weight: float = 0.02
    batch_tokens: int = 6144
    save_every: int = 5


def advantages(rewards_G: Tensor) -> Tensor:
    """How much better than its group each response is, in standard deviations; they sum to 0."""
    return (rewards_G - rewards_G.mean()) / (rewards_G.std(correction=0) + _LEAST_STD)


def objective(now_L: Tensor, drawn_L: Tensor, advantage_L: Tensor, clip: float) -> Tensor:
    """The clipped gain of each token, from log-probabilities now and when it was drawn."""
    ratio_L = (now_L - drawn_L).exp()
    return torch.minimum(ratio_L * advantage_L, ratio_L.clamp(1 - clip, 1 + clip) * advantage_L)


def divergence(now_L: Tensor, reference_L: Tensor) -> Tensor:
    """The estimate k of the divergence from the reference at each token; never negative."""
    d_L = reference_L - now_L
    return torch.expm1(d_L) - d_L  # exp(d) - 1 to the last bit, where d is small


@dataclass(frozen=True)
class _Drawn:
    """A parcel with what does not change while it is learnt: log-probabilities, gains and each token's share."""

    parcel: Parcel
    drawn_L: Tensor
    reference_L: Tensor
    advantage_L: Tensor
    share_L: Tensor


def learn(
    learner: Learner, reference: VisionLanguageModel, policy: Policy, groups: Sequence[Group], sizes: Reinforcement
) -> dict[str, float]:
    """Steps on what was drawn. Figures: the first one's loss, the last one's divergence from the reference, and the
    share of its tokens whose ratio was out of bounds."""
    samples = [policy.sample(group.case, rollout.ids) for group in groups for rollout in group.rollouts]
    parcels = policy.parcels(samples, sizes.batch_tokens, learner.device)
    gathered = [_gather(learner, reference, policy, parcel, groups) for parcel in parcels]
    figures: dict[str, float] = {}
    for epoch in range(sizes.epochs):
        total, away, clipped = 0.0, 0.0, 0.0
        for each in gathered:
            now_L = policy.log_probabilities(learner.model, each.parcel)
            away_L = divergence(now_L, each.reference_L)
            gain_L = objective(now_L, each.drawn_L, each.advantage_L, sizes.clip) - sizes.kl_weight * away_L
            loss = -(each.share_L * gain_L).sum()
            loss.backward()
            total += loss.item()
            away += (each.share_L * away_L).sum().item()
            outside_L = ((now_L.detach() - each.drawn_L).exp() - 1).abs() > sizes.clip
            clipped += (each.share_L * outside_L).sum().item()
        learner.step()
        figures = {"loss": total, "kl": away, "clipped": clipped} | ({"loss": figures["loss"]} if epoch else {})
    return figures


@torch.no_grad()
def _gather(
    learner: Learner, reference: VisionLanguageModel, policy: Policy, parcel: Parcel, groups: Sequence[Group]
) -> _Drawn:
    each = [advantages(torch.tensor([r.reward.total for r in group.rollouts])) for group in groups]
    members = torch.tensor(parcel.members, device=learner.device)
    advantage_L = torch.cat(each).to(learner.device)[members][parcel.member_L]
    # Groups are of one size, so the mean over all responses is the mean over prompts.
    lengths = parcel.member_L.bincount(minlength=len(members))
    share_L = 1 / (lengths[parcel.member_L] * sum(len(group.rollouts) for group in groups))
    drawn_L = policy.log_probabilities(learner.model, parcel)
    return _Drawn(parcel, drawn_L, policy.log_probabilities(reference, parcel), advantage_L, share_L)


def reinforce(
    checkpoint: Path, base: Path, state: Path, sizes: Reinforcement, how: whole.How, device: torch.device, seed: int,
    log: Callable[[str], None],
) -> Learner:  # fmt: skip
    """Rounds of drawing and learning from a checkpoint; resumed where the file `state` says that they stood.

    `base`: the folder with the tokenizer. Each round's figures are of all that it drew, before it learnt from it.
    """
    learner = Learner(checkpoint, state, sizes.learning_rate, device)
    reference = weights.load(checkpoint, device=device)
    sampler = Sampler(base, device, sizes.max_output_tokens)
    policy = Policy(learner.model.config, Tokenizer(base), sizes.max_output_tokens, how)
    while learner.round < sizes.rounds:
        at = learner.round
        prompts = draw_prompts(sizes.sources, sizes.prompts, np.random.default_rng([seed, at]))
        groups = sampler.groups(learner.model, prompts, sizes.rollouts, seed * 100_003 + at)
        figures = summary(groups)
        normal = for_reinforcement(groups)
        if normal:
            figures |= learn(learner, reference, policy, normal, sizes)
        learner.history.append(figures)
        log(f"round {at + 1}/{sizes.rounds} " + " ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        if learner.round % sizes.save_every == 0 or learner.round == sizes.rounds:
            learner.save()
    return learner
