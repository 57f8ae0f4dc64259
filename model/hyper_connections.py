"""Manifold-constrained hyper-connections: the residual as S parallel streams, mixed by doubly stochastic matrices.

Shapes: B, T, S = hc_mult streams, H hidden. Source: reference section 6.1. All weights and mixing in fp32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Config


def _mixing_logits(streams_BTSH: Tensor, fn: Tensor, config: Config) -> Tensor:
    """fn . RMS-normalised streams. The norm has no weight, so it is one factor a token and can come last."""
    wide = streams_BTSH.flatten(2).float()
    square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / wide.shape[-1]
    return F.linear(wide, fn.float()) * torch.rsqrt(square + config.rms_norm_eps)


def open_block(
    streams_BTSH: Tensor, fn: Tensor, base: Tensor, scale: Tensor, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """What a block reads [B, T, H], and how it is written back: post [B, T, S], mix [B, T, S, S]."""
    streams, eps = config.hc_mult, config.hc_eps
    sizes = [streams, streams, streams * streams]
    pre, post, mix = _mixing_logits(streams_BTSH, fn, config).split(sizes, dim=-1)
    pre_base, post_base, mix_base = base.float().split(sizes)
    pre = (pre * scale[0] + pre_base).sigmoid() + eps
    post = 2 * (post * scale[1] + post_base).sigmoid()
    mix = (mix * scale[2] + mix_base).unflatten(-1, (streams, streams)).softmax(dim=-1) + eps
    mix = mix / (mix.sum(dim=-2, keepdim=True) + eps)
    for _ in range(config.hc_sinkhorn_iters - 1):  # Sinkhorn-Knopp: rows and columns that sum to 1
        mix = mix / (mix.sum(dim=-1, keepdim=True) + eps)
        mix = mix / (mix.sum(dim=-2, keepdim=True) + eps)
    read_BTH = (pre[..., None] * streams_BTSH).sum(dim=2).to(streams_BTSH.dtype)
    return read_BTH, post.to(streams_BTSH.dtype), mix.to(streams_BTSH.dtype)


def close_block(streams_BTSH: Tensor, out_BTH: Tensor, post_BTS: Tensor, mix_BTSS: Tensor) -> Tensor:
    """The streams after a block: stream k = post[k] * out + sum_j mix[j, k] * stream j."""
    # Spelt out: a batched product of such small matrices takes more than twice the time on a CPU.
    mixed_BTSH = (mix_BTSS[..., None] * streams_BTSH[..., :, None, :]).sum(dim=2)  # over j of [B, T, j, k, H]
    return post_BTS[..., None] * out_BTH[..., None, :] + mixed_BTSH


def collapse(streams_BTSH: Tensor, fn: Tensor, base: Tensor, scale: Tensor, config: Config) -> Tensor:
    """The streams as one [B, T, H], before the final norm."""
    pre = (_mixing_logits(streams_BTSH, fn, config) * scale.float() + base.float()).sigmoid() + config.hc_eps
    return (pre[..., None] * streams_BTSH).sum(dim=2).to(streams_BTSH.dtype)
