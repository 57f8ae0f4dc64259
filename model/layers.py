"""What both towers share: RMSNorm, interleaved rotary positions with YaRN, and their inverse.

Shapes: B sequences, T tokens, H hidden, D head width, R rotary width (the last R of D).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import Config, RopeScaling


def rms_normalise(x: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square over the last axis, in fp32, without a weight. Returns the type it was given."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """RMSNorm with a weight, computed in fp32 and cast back once (reference sections 5 and 6.1)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight.float()).to(x.dtype)


def rope_frequencies(config: Config, compressed: bool) -> Tensor:
    """Angle per position of each rotary pair, float32 [R/2].

    Sliding-only layers turn at `rope_theta`; CSA and HCA layers (queries, raw and compressed entries, indexer) at
    `compress_rope_theta`, stretched by YaRN: pairs that turn often keep their frequency, pairs that turn less than
    once within the original context are slowed by `factor`, with a linear ramp between (reference section 6.1).
    """
    width, cpu = config.qk_rope_head_dim, torch.device("cpu")  # on "meta" it would import torch's compiler
    theta = config.compress_rope_theta if compressed else config.rope_theta
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device=cpu) / width)
    if not compressed or config.rope_scaling is None:
        return frequencies
    low, high = _yarn_range(config.rope_scaling, width, theta)
    ramp = ((torch.arange(width // 2, dtype=torch.float32, device=cpu) - low) / (high - low)).clamp(0, 1)
    return frequencies / config.rope_scaling.factor * ramp + frequencies * (1 - ramp)


def _yarn_range(scaling: RopeScaling, width: int, theta: float) -> tuple[float, float]:
    """The pairs between which YaRN's ramp runs."""

    def pair_that_turns(times: float) -> float:
        turns = scaling.original_max_position_embeddings / (times * 2 * math.pi)
        return width * math.log(turns) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), width - 1)
    return low, high if high != low else high + 0.001


def rotations(positions_BT: Tensor, frequencies: Tensor) -> Tensor:
    """Unit complex numbers [B, T, R/2] that turn each rotary pair to its position."""
    angles = positions_BT[..., None].float() * frequencies.to(positions_BT.device)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the last R channels of `x`, as pairs (2i, 2i+1), by `turns`; conjugate turns undo it. In fp32.

    `turns` [.., R/2] must broadcast against `x` [.., D] without its last axis.
    """
    width = 2 * turns.shape[-1]
    still, turning = x[..., :-width], x[..., -width:]
    pairs = torch.view_as_complex(turning.float().unflatten(-1, (-1, 2)))  # [.., R] -> complex [.., R/2]
    turned = torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)  # [.., R/2, 2] -> [.., R]
    return torch.cat([still, turned], dim=-1)
