"""The residual streams of whole sequences, their small matrices spelt out number by number, for `torch.compile`.

As `hyper_connections`, which has the source. Shapes: B sequences, T tokens, S streams, H hidden.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config


def open_streams(
    streams: Tensor, fn: Tensor, base: Tensor, scale: Tensor, config: Config
) -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
    """What a block reads [B, T, H], and how it is written back: post [S] and mix [S][S] of [B, T, 1]."""
    count = config.hc_mult
    wide = streams.flatten(2)
    logits = F.linear(wide, fn) * torch.rsqrt(wide.square().mean(-1, keepdim=True) + config.rms_norm_eps)
    each = logits.split(1, dim=-1)
    eps = config.hc_eps
    pre = [(each[i] * scale[0] + base[i]).sigmoid() + eps for i in range(count)]
    post = [2 * (each[count + i] * scale[1] + base[count + i]).sigmoid() for i in range(count)]
    at = 2 * count
    raw = [[each[at + i * count + j] * scale[2] + base[at + i * count + j] for j in range(count)] for i in range(count)]
    mix: list[list[Tensor]] = []
    for row in raw:
        largest = functools.reduce(torch.maximum, row)
        grown = [(value - largest).exp() for value in row]
        total = functools.reduce(torch.add, grown)
        mix.append([value / total + eps for value in grown])
    mix = _columns(mix, eps)
    for _ in range(config.hc_sinkhorn_iters - 1):
        mix = _columns([[value / (functools.reduce(torch.add, row) + eps) for value in row] for row in mix], eps)
    read = functools.reduce(torch.add, [weight * streams[:, :, i] for i, weight in enumerate(pre)])
    return read, post, mix


def close_streams(streams: Tensor, out_BTH: Tensor, post: list[Tensor], mix: list[list[Tensor]]) -> Tensor:
    """The streams [B, T, S, H] after a block."""
    count = len(post)
    written = [
        post[k] * out_BTH + functools.reduce(torch.add, [mix[j][k] * streams[:, :, j] for j in range(count)])
        for k in range(count)
    ]
    return torch.stack(written, dim=2)


def _columns(mix: list[list[Tensor]], eps: float) -> list[list[Tensor]]:
    sums = [functools.reduce(torch.add, column) + eps for column in zip(*mix, strict=True)]
    return [[value / total for value, total in zip(row, sums, strict=True)] for row in mix]
