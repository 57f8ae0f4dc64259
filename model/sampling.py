"""From logits to tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def greedy(logits_BV: Tensor, allowed_BV: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest allowed token of each row [B], and its log-probability among the allowed ones [B]."""
    log_BV = logits_BV.float().masked_fill(~allowed_BV, float("-inf")).log_softmax(dim=-1)
    best = log_BV.max(dim=-1)
    assert bool(torch.isfinite(best.values).all()), "the grammar allowed no token, or the model returned no number"
    return best.indices, best.values
