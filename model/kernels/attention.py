"""What packed tokens may see, and what they leave: raw entries in rings of windows, compressed ones in pages.

What they compute: `model/attention.py`, `model/compression.py`; where things lie: `model/cache.py`. A pass over B
sequences has `offsets` [B + 1] of their tokens among the N, `starts` [B] (their lengths before the pass), `slots` [B]
and the page `table` [B, pages]; the token at position p of sequence b is number offsets[b] + p - starts[b].
"""

from __future__ import annotations

import numpy as np

from .arithmetic import ZERO, exp, kernel, rms_norm, rotate, wide
from .entries import move, opened

NOTHING = np.float32(-1e30)  # model/compression.py
_START, _END = 0, 4  # model/image.py: TokenType


@kernel
def reach(ids, positions, vocab_size, window, farthest, first, last):
    """The raw entries [first, last] that each token sees, all [N]; see describe_tokens in model/attention.py."""
    tokens = ids.shape[0]
    i = 0
    while i < tokens:
        first[i], last[i] = max(positions[i] - window + 1, 0), positions[i]
        if ids[i] != vocab_size + _START:
            i += 1
            continue
        end = i
        while end < tokens - 1 and ids[end] != vocab_size + _END:
            end += 1
        assert ids[end] == vocab_size + _END, "an image span was cut: its END is missing from these tokens"
        for j in range(i, end + 1):
            back = positions[j] - min(j - i, farthest - 1)
            first[j] = min(max(positions[j] - window + 1, 0), back)
            last[j] = positions[j] + min(end - j, farthest)
        i = end + 1


@kernel
def compress(
    kv, kv_at, gate_at, ape, norm, eps, frequencies, ratio, overlap,
    offsets, starts, slots, table, page_tokens, sums, before, entries,
):  # fmt: skip
    """Feed the tokens' projections (columns of kv [N, ..]) to one compressor; finished entries go to their pages."""
    width, channels = norm.shape[0], ape.shape[1]
    own = channels - width  # Cb of [Ca | Cb], or all there is
    page_entries = page_tokens // ratio
    pooled = np.empty((1, width), np.float32)
    pairs = frequencies.shape[0]
    cos, sin = np.empty((1, pairs), np.float32), np.empty((1, pairs), np.float32)
    for b in range(slots.shape[0]):
        kept, earlier = sums[slots[b]], before[slots[b]]
        for i in range(offsets[b], offsets[b + 1]):
            position = starts[b] + i - offsets[b]
            place = position % ratio
            if place == 0:
                kept[0], kept[1], kept[2] = NOTHING, ZERO, ZERO
            if position == 0:
                earlier[0], earlier[1], earlier[2] = NOTHING, ZERO, ZERO
            for c in range(channels):
                gate = wide(kv[i, gate_at + c]) + ape[place, c]
                largest = max(kept[0, c], gate)
                old, new = exp(kept[0, c] - largest), exp(gate - largest)
                kept[1, c] = kept[1, c] * old + new
                kept[2, c] = kept[2, c] * old + new * wide(kv[i, kv_at + c])
                kept[0, c] = largest
            if place < ratio - 1:
                continue
            if overlap:
                for c in range(width):
                    largest = max(earlier[0, c], kept[0, own + c])
                    old, new = exp(earlier[0, c] - largest), exp(kept[0, own + c] - largest)
                    weight = earlier[1, c] * old + kept[1, own + c] * new
                    pooled[0, c] = (earlier[2, c] * old + kept[2, own + c] * new) / weight
                earlier[:] = kept[:, :width]
            else:
                for c in range(width):
                    pooled[0, c] = kept[2, c] / kept[1, c]
            number = position // ratio
            for r in range(pairs):
                angle = np.float32(number * ratio) * frequencies[r]
                cos[0, r], sin[0, r] = np.cos(angle), np.sin(angle)
            rms_norm(pooled, 0, norm, eps, pooled)
            rotate(pooled, 0, 1, width, cos, sin)
            move(pooled[0], entries[table[b, number // page_entries], number % page_entries])


@kernel
def select(
    query, query_at, heads, width, weight, weight_at, scale, rows, positions, sequence_of,
    table, entries, ratio, count, chosen, counts,
):  # fmt: skip
    """The lightning indexer: the `count` entries of the highest scores for each row, of equal ones the latest.

    query [R, ..] and weight [N, ..] hold the indexer's queries and head weights in the columns from their `at` on;
    chosen [R, count] takes the entries' numbers, counts [R] how many there are.
    """
    page_entries = entries.shape[1]
    longest, room = table.shape[1] * page_entries, np.empty(width, np.float32)
    scores, asked = np.empty(longest, np.float32), np.empty((heads, width), np.float32)
    for r in range(rows.shape[0]):
        i = rows[r]
        b = sequence_of[i]
        visible = (positions[i] + 1) // ratio
        counts[r] = min(visible, count)
        if visible <= count:
            for e in range(visible):
                chosen[r, e] = e
            continue
        for a in range(heads):
            for d in range(width):
                asked[a, d] = wide(query[r, query_at + a * width + d])
        for e in range(visible):
            entry = opened(entries[table[b, e // page_entries], e % page_entries], room)
            score = ZERO
            for a in range(heads):
                match = ZERO
                for d in range(width):
                    match += asked[a, d] * wide(entry[d])
                score += wide(weight[i, weight_at + a]) * scale * max(match, ZERO)
            scores[e] = score
        # All above the count-th highest, and of those equal to it the latest.
        least = np.partition(scores[:visible], visible - count)[visible - count]
        taken = 0
        for e in range(visible):
            if scores[e] > least:
                chosen[r, taken] = e
                taken += 1
        e = visible - 1
        while taken < count:
            if scores[e] == least:
                chosen[r, taken] = e
                taken += 1
            e -= 1


@kernel
def stretch(position, end, span, size):
    """Where raw entries from a position on lie in a ring of `span` rows, as far as one window of `size` rows has them
    and they come before `end`: the window's number in the ring, its rows from begin to stop."""
    row = position % span
    begin = row % size
    return row // size, begin, min(size, begin + end - position)


@kernel
def keep(keys, offsets, starts, rings, span, raw):
    """Write the last raw entries of each sequence to its ring, once nobody reads the old ones."""
    size = raw.shape[1]
    for b in range(starts.shape[0]):
        for i in range(max(offsets[b], offsets[b + 1] - span), offsets[b + 1]):
            row = (starts[b] + i - offsets[b]) % span
            move(keys[i], raw[rings[b, row // size], row % size])
