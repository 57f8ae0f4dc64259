"""Hyper-connections over packed tokens: see `model/hyper_connections.py`, which says what they compute."""

from __future__ import annotations

import numpy as np

from .arithmetic import ONE, ZERO, exp, kernel, sigmoid, stored, wide

_TWO = np.float32(2)


@kernel
def _mixing_logits(x, fn, eps, logits):
    square = ZERO
    for c in range(x.shape[0]):
        square += x[c] * x[c]
    factor = ONE / np.sqrt(square / np.float32(x.shape[0]) + eps)
    for m in range(fn.shape[0]):
        total = ZERO
        for c in range(x.shape[0]):
            total += fn[m, c] * x[c]
        logits[m] = total * factor


@kernel
def _norm(x, weight, eps, out):
    """RMSNorm of one row."""
    square = ZERO
    for c in range(x.shape[0]):
        square += x[c] * x[c]
    factor = ONE / np.sqrt(square / np.float32(x.shape[0]) + eps)
    for c in range(x.shape[0]):
        out[c] = stored(x[c] * factor * weight[c], out)


@kernel
def _sinkhorn(mix, eps, iterations):
    """Softmax over the last axis of mix [S, S], then columns and rows by turns until both sum to 1, in place."""
    streams = mix.shape[0]
    for j in range(streams):
        largest, total = mix[j, 0], ZERO
        for k in range(1, streams):
            largest = max(largest, mix[j, k])
        for k in range(streams):
            mix[j, k] = exp(mix[j, k] - largest)
            total += mix[j, k]
        for k in range(streams):
            mix[j, k] = mix[j, k] / total + eps
    for iteration in range(iterations):
        if iteration > 0:
            for j in range(streams):
                total = eps
                for k in range(streams):
                    total += mix[j, k]
                for k in range(streams):
                    mix[j, k] /= total
        for k in range(streams):
            total = eps
            for j in range(streams):
                total += mix[j, k]
            for j in range(streams):
                mix[j, k] /= total


@kernel
def _read(streams, logits, base, scale, weight, hc_eps, norm_eps, total, out):
    """The weighed sum of one token's streams [S, H], normed: out [H]; `total` [H] fp32 is room for it."""
    total[:] = ZERO
    for s in range(streams.shape[0]):
        share = sigmoid(logits[s] * scale + base[s]) + hc_eps
        stream = streams[s]
        for c in range(out.shape[0]):
            total[c] += share * stream[c]
    _norm(total, weight, norm_eps, out)


@kernel
def open_block(streams, fn, base, scale, weight, hc_eps, norm_eps, iterations, read, post, mix):
    """From streams [N, S, H]: the normed read [N, H], post [N, S] and mix [N, S, S] of one block."""
    count = streams.shape[1]
    logits, total = np.empty(fn.shape[0], np.float32), np.empty(streams.shape[2], np.float32)
    for i in range(streams.shape[0]):
        _mixing_logits(streams[i].ravel(), fn, norm_eps, logits)
        _read(streams[i], logits, base, scale[0], weight, hc_eps, norm_eps, total, read[i])
        for s in range(count):
            post[i, s] = _TWO * sigmoid(logits[count + s] * scale[1] + base[count + s])
            for k in range(count):
                at = (2 + s) * count + k
                mix[i, s, k] = logits[at] * scale[2] + base[at]
        _sinkhorn(mix[i], hc_eps, iterations)


@kernel
def close_block(streams, out, post, mix):
    """Streams [N, S, H] after a block, in place: stream k = post[k] * out + sum_j mix[j, k] * stream j."""
    count, width = streams.shape[1], streams.shape[2]
    after = np.empty((count, width), np.float32)
    for i in range(streams.shape[0]):
        for k in range(count):
            for c in range(width):
                after[k, c] = post[i, k] * wide(out[i, c])
            for j in range(count):
                share = mix[i, j, k]
                for c in range(width):
                    after[k, c] += share * streams[i, j, c]
        streams[i] = after


@kernel
def collapse(streams, fn, base, scale, weight, hc_eps, norm_eps, out):
    """The streams [R, S, H] as one, normed: out [R, H]."""
    logits, total = np.empty(fn.shape[0], np.float32), np.empty(streams.shape[2], np.float32)
    for i in range(streams.shape[0]):
        _mixing_logits(streams[i].ravel(), fn, norm_eps, logits)
        _read(streams[i], logits, base, scale[0], weight, hc_eps, norm_eps, total, out[i])
