"""Routing of packed tokens to experts, and the way back: see `model/experts.py`."""

from __future__ import annotations

import numpy as np

from .arithmetic import ZERO, kernel, wide

_TINY, _THRESHOLD = np.float32(1e-20), np.float32(20)


@kernel
def route(logits, ids, vocab_size, bias, bias_vl, table, hashed, factor, chosen, weights, counts):
    """k experts for each of N tokens and their weights, both [N, k]; counts [X] of visits to each expert."""
    experts, k = logits.shape[1], chosen.shape[1]
    scores, ranks = np.empty(experts, np.float32), np.empty(experts, np.float32)
    counts[:] = 0
    for i in range(chosen.shape[0]):
        is_image = ids[i] >= vocab_size
        for x in range(experts):
            value = wide(logits[i, x])
            scores[x] = np.sqrt(value if value > _THRESHOLD else np.log1p(np.exp(value)))
            ranks[x] = scores[x] + (bias_vl[x] if is_image else bias[x])
        total = ZERO
        for c in range(k):
            best = np.int64(0)
            if hashed and not is_image:
                best = table[ids[i], c]
            else:
                for x in range(1, experts):
                    if ranks[x] > ranks[best]:
                        best = x
                ranks[best] = np.float32(-np.inf)
            chosen[i, c] = best
            weights[i, c] = scores[best]
            total += scores[best]
            counts[best] += 1
        for c in range(k):
            weights[i, c] = weights[i, c] / (total + _TINY) * factor


@kernel
def sort_visits(x, chosen, starts, visit_of, visitors):
    """Copy each token's x [N, H] once for each of its experts: visitors [.., H], those of an expert from its start on.

    starts [X]; visit_of [N, k] says where each copy went.
    """
    following = starts.copy()
    for i in range(chosen.shape[0]):
        for c in range(chosen.shape[1]):
            at = following[chosen[i, c]]
            following[chosen[i, c]] += 1
            visit_of[i, c] = at
            visitors[at] = x[i]


@kernel
def add_routed(given, shared_at, visit_of, weights, out):
    """out [N, H] fp32: what each token got of the shared expert (given [.., H] from `shared_at` on) and of its own."""
    for i in range(out.shape[0]):
        for h in range(out.shape[1]):
            out[i, h] = wide(given[shared_at + i, h])
        for c in range(visit_of.shape[1]):
            at, weight = visit_of[i, c], weights[i, c]
            for h in range(out.shape[1]):
                out[i, h] += weight * wide(given[at, h])
