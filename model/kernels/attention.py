"""Attention of packed tokens to rings of raw entries, to each other, and to pages of compressed ones.

What they compute: `model/attention.py`, `model/compression.py`; where things lie: `model/cache.py`. A pass over B
sequences has `offsets` [B + 1] of their tokens among the N, `starts` [B] (their lengths before the pass), `slots` [B]
and the page `table` [B, pages]; the token at position p of sequence b is number offsets[b] + p - starts[b].
"""

from __future__ import annotations

import numpy as np

from .arithmetic import ZERO, exp, kernel, rms_norm, rotate

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
                gate = kv[i, gate_at + c] + ape[place, c]
                largest = max(kept[0, c], gate)
                old, new = exp(kept[0, c] - largest), exp(gate - largest)
                kept[1, c] = kept[1, c] * old + new
                kept[2, c] = kept[2, c] * old + new * kv[i, kv_at + c]
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
            entries[table[b, number // page_entries], number % page_entries] = pooled[0]


@kernel
def select(
    query, query_at, heads, weight, weight_at, scale, rows, positions, sequence_of,
    table, entries, ratio, count, chosen, counts,
):  # fmt: skip
    """The lightning indexer: the `count` entries of the highest scores for each row, of equal ones the latest.

    query [R, ..] and weight [N, ..] hold the indexer's queries and head weights in the columns from their `at` on;
    chosen [R, count] takes the entries' numbers, counts [R] how many there are.
    """
    width, page_entries = entries.shape[2], entries.shape[1]
    for r in range(rows.shape[0]):
        i = rows[r]
        b = sequence_of[i]
        visible = (positions[i] + 1) // ratio
        counts[r] = min(visible, count)
        if visible <= count:
            for e in range(visible):
                chosen[r, e] = e
            continue
        scores = np.empty(visible, np.float32)
        for e in range(visible):
            entry = entries[table[b, e // page_entries], e % page_entries]
            score = ZERO
            for a in range(heads):
                match = ZERO
                for d in range(width):
                    match += query[r, query_at + a * width + d] * entry[d]
                score += weight[i, weight_at + a] * scale * max(match, ZERO)
            scores[visible - 1 - e] = -score  # latest first: a stable sort then keeps it first among equals
        ranked = np.argsort(scores, kind="mergesort")
        for e in range(count):
            chosen[r, e] = visible - 1 - ranked[e]


@kernel
def _gather(i, b, first, last, keys, offsets, starts, slots, ring, window, table, entries, chosen, counts, r, seen):
    """Copy what token i (row r) of sequence b sees, one after the other, to seen [.., D]; returns how many."""
    width, count = keys.shape[1], 0
    kept = ring[slots[b]]
    place = first[i] % window
    for _ in range(first[i], min(last[i] + 1, starts[b])):
        source, target = kept[place], seen[count]  # views: loops over them become plain copies
        for d in range(width):
            target[d] = source[d]
        place = place + 1 if place + 1 < window else 0
        count += 1
    for position in range(max(first[i], starts[b]), last[i] + 1):
        source, target = keys[offsets[b] + position - starts[b]], seen[count]
        for d in range(width):
            target[d] = source[d]
        count += 1
    page_entries = entries.shape[1]
    for e in range(counts[r]):
        number = chosen[r, e] if chosen.shape[1] else e
        source, target = entries[table[b, number // page_entries], number % page_entries], seen[count]
        for d in range(width):
            target[d] = source[d]
        count += 1
    return count


@kernel
def attend(
    query, heads, keys, rows, positions, first, last, sequence_of, offsets, starts, slots, ring,
    table, entries, chosen, counts, sink, scale, cos, sin, out,
):  # fmt: skip
    """Softmax over raw entries first..last, the chosen compressed ones and the head's sink: out [R, A * D], turned.

    query [R, ..] turned; keys [N, D] of this pass; ring [slots, W, D] what came before. `chosen` [R, 0] stands for all
    entries up to counts [R].
    """
    width, window = keys.shape[1], ring.shape[1]
    most = 0
    for r in range(rows.shape[0]):
        most = max(most, last[rows[r]] - first[rows[r]] + 1 + counts[r])
    seen = np.empty((most + 3, width), np.float32)
    weights = np.empty(most + 3, np.float32)
    for r in range(rows.shape[0]):
        i = rows[r]
        b = sequence_of[i]
        count = _gather(
            i, b, first, last, keys, offsets, starts, slots, ring, window, table, entries, chosen, counts, r, seen
        )
        fours = (count + 3) // 4 * 4
        for k in range(count, fours):
            for d in range(width):
                seen[k, d] = ZERO
        for a in range(heads):
            low = a * width
            asked, given = query[r, low : low + width], out[r, low : low + width]
            for k in range(count):
                key = seen[k]
                match = ZERO
                for d in range(width):
                    match += asked[d] * key[d]
                weights[k] = match * scale
            largest = sink[a]
            for k in range(count):
                largest = max(largest, weights[k])
            total = exp(sink[a] - largest)
            for k in range(count):
                weights[k] = exp(weights[k] - largest)
                total += weights[k]
            for k in range(count, fours):
                weights[k] = ZERO
            for d in range(width):
                given[d] = ZERO
            for k in range(0, fours, 4):  # four at a time: what is given is loaded and stored a quarter as often
                one, two, three, four = seen[k], seen[k + 1], seen[k + 2], seen[k + 3]
                w1, w2, w3, w4 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
                for d in range(width):
                    given[d] += w1 * one[d] + w2 * two[d] + w3 * three[d] + w4 * four[d]
            for d in range(width):
                given[d] /= total
            bend = low + width - 2 * cos.shape[1]
            for c in range(cos.shape[1]):
                even, odd = out[r, bend + 2 * c], out[r, bend + 2 * c + 1]
                out[r, bend + 2 * c] = even * cos[i, c] + odd * sin[i, c]
                out[r, bend + 2 * c + 1] = odd * cos[i, c] - even * sin[i, c]


@kernel
def keep(keys, offsets, starts, slots, ring):
    """Write the last raw entries of each sequence to its ring, once nobody reads the old ones."""
    window = ring.shape[1]
    for b in range(slots.shape[0]):
        for i in range(max(offsets[b], offsets[b + 1] - window), offsets[b + 1]):
            ring[slots[b], (starts[b] + i - offsets[b]) % window] = keys[i]
