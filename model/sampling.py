"""From logits to tokens: the likeliest, or one drawn at a temperature from the likeliest few.

What is drawn depends on the request's seed, the question and the place in the response, never on what else is in the
batch. Shapes: B sequences, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0: the likeliest; else from the likeliest ones that together have `top_p` of
    the probability, sharper below 1 and flatter above. ValueError for what can't be."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    def for_image(self, image_sha256: str) -> Sampling:
        """The same with a seed of the image's own (its hash in hex), so that neighbours don't matter."""
        return replace(self, seed=int(image_sha256[:12], 16) ^ self.seed)

    def draw(self, question: int, place: int) -> Draw:
        """What decides one token: of which question of the request, at which place of its response."""
        if self.temperature == 0:
            return _LIKELIEST
        # A generator of its own for each token: forks, preemptions and batches can't shift it. Seeded by a text, Python
        # hashes it the same on every machine.
        return Draw(self.temperature, self.top_p, random.Random(f"{self.seed}/{question}/{place}").getrandbits(64))


GREEDY = Sampling()


class Draw(NamedTuple):
    """One token's choice: `key` picks among the allowed ones; not used at temperature 0."""

    temperature: float
    top_p: float
    key: int


_LIKELIEST = Draw(0.0, 1.0, 0)


def choose(
    logits_BV: Tensor, masks_MV: Tensor, rows: Sequence[int], draws: Sequence[Draw]
) -> tuple[list[int], list[float]]:
    """A token for each of B rows among those that its row of `masks` allows, and its log-probability among them at
    temperature 1."""
    assert len(draws) == len(rows) == len(logits_BV), f"{len(draws)} draws, {len(rows)} masks, {len(logits_BV)} rows"
    if logits_BV.device.type == "cpu" and importlib.util.find_spec("numba") and not any(d.temperature for d in draws):
        tokens_B, chosen_B = _likeliest(logits_BV, masks_MV, rows)
    else:
        allowed_BV = masks_MV[torch.tensor(rows)].to(logits_BV.device)
        log_BV = logits_BV.float().masked_fill(~allowed_BV, float("-inf")).log_softmax(dim=-1)
        tokens_B = log_BV.argmax(dim=-1)
        drawn = [row for row, draw in enumerate(draws) if draw.temperature > 0]
        if drawn:
            at = torch.tensor(drawn, device=log_BV.device)
            tokens_B[at] = _drawn(log_BV[at], [draws[row] for row in drawn])
        chosen_B = log_BV.gather(1, tokens_B[:, None])[:, 0]
    assert bool(torch.isfinite(chosen_B).all()), "the grammar allowed no token, or the model returned no number"
    return tokens_B.tolist(), chosen_B.tolist()


def _likeliest(logits_BV: Tensor, masks_MV: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The same for temperature 0, without copies of masks."""
    from .kernels.choice import choose_greedy

    tokens_B, chosen_B = torch.empty(len(rows), dtype=torch.int64), torch.empty(len(rows))
    which_B = torch.tensor(rows)
    choose_greedy(logits_BV.numpy(), masks_MV.numpy(), which_B.numpy(), tokens_B.numpy(), chosen_B.numpy())
    return tokens_B, chosen_B


def _drawn(log_BV: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A race: each token takes an exponential time over its probability, and the first one wins (Gumbel's maximum).

    By the inverse of the distribution function, in order of probability, the last digits of the logits would decide
    which token stands at the drawn place, and those depend on the batch. Here they decide only a dead heat.
    """
    temperature, top_p = torch.tensor([draw[:2] for draw in draws], dtype=torch.float64, device=log_BV.device).T
    scaled_BV = (log_BV.double() / temperature[:, None]).log_softmax(dim=-1)
    times = np.stack([-np.log1p(-_uniforms(draw.key, log_BV.shape[1])) for draw in draws])
    race_BV = scaled_BV - torch.from_numpy(times).to(log_BV.device).log()
    if bool((top_p < 1).any()):
        log_p_BV, ids_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = log_p_BV.exp().cumsum(dim=-1) - log_p_BV.exp()
        # The smallest set that reaches top_p; the first is always in it.
        kept_BV = torch.empty_like(ids_BV, dtype=torch.bool).scatter_(1, ids_BV, before_BV < top_p[:, None])
        race_BV = race_BV.masked_fill(~kept_BV, float("-inf"))
    return race_BV.masked_fill(log_BV == float("-inf"), float("-inf")).argmax(dim=-1)


def _uniforms(key: int, count: int) -> np.ndarray:
    """Numbers in [0, 1), the same for a key on every machine."""
    return np.random.Generator(np.random.Philox(key=key)).random(count)
