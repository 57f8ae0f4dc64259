"""The likeliest allowed token: see `model/sampling.py`."""

from __future__ import annotations

import numpy as np

from .arithmetic import ZERO, exp, kernel

_NONE = np.float32(-np.inf)


@kernel
def choose_greedy(logits, masks, which, tokens, log_probabilities):
    """The likeliest token of logits [B, V] that row which[b] of masks [M, V] allows, and its log-probability.

    The first of equal ones, as argmax takes it. A row without a finite allowed logit gets NaN.
    """
    below = np.empty(logits.shape[1], np.float32)
    for b in range(logits.shape[0]):
        mask = masks[which[b]]
        largest, best = _NONE, np.int64(0)
        for v in range(logits.shape[1]):
            if mask[v] and logits[b, v] > largest:
                largest, best = logits[b, v], v
        for v in range(logits.shape[1]):
            below[v] = logits[b, v] - largest if mask[v] else _NONE
        total = ZERO
        for v in range(logits.shape[1]):
            total += exp(below[v])
        tokens[b] = best
        log_probabilities[b] = -np.log(total) if largest > _NONE else np.float32(np.nan)
