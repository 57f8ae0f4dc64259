"""Attention of packed tokens to rings of raw entries, to each other, and to pages of compressed ones, by blocks.

A block is some rows that follow each other in one sequence: `cut` finds them, `lay` copies what each sees, torch
multiplies many at once, `soften` turns logits into probabilities, `gather` brings the results home. A row alone would
only be copied for nothing: `attend_alone`. Where things lie: `attention.py` beside this; what is computed:
`model/attention.py`.
"""

from __future__ import annotations

import numpy as np

from .arithmetic import ONE, ZERO, exp, kernel, stored, wide
from .attention import NOTHING, stretch
from .entries import move, move_rows, read_again, readable

_LANES = 32


@kernel
def cut(rows, sequence_of, first, last, size, begins, ends, lows, highs):
    """Cut R rows into blocks of at most `size` that follow each other in one sequence; returns how many.

    begins, ends [R]: the rows of each; lows, highs [R]: the raw entries that any of them sees.
    """
    blocks, r = 0, 0
    while r < rows.shape[0]:
        low, high, end = first[rows[r]], last[rows[r]], r + 1
        while end < rows.shape[0] and end - r < size and sequence_of[rows[end]] == sequence_of[rows[r]]:
            low, high = min(low, first[rows[end]]), max(high, last[rows[end]])
            end += 1
        begins[blocks], ends[blocks], lows[blocks], highs[blocks] = r, end, low, high
        blocks, r = blocks + 1, end
    return blocks


@kernel
def lay(
    query, keys, rows, sequence_of, offsets, starts, rings, span, raw, table, entries, chosen, counts,
    blocks, begins, ends, lows, highs, asked, seen,
):  # fmt: skip
    """For each of `blocks`: its rows' queries to asked [.., size, A * D], and all that they see to seen [.., K, D].

    First the raw entries from its low to its high (keys [N, D] of this pass; what came before lies in windows of raw
    [windows, rows, D], those of rings [B, M], each ring being `span` rows long),
    then compressed ones: all up to the last row's count, or those in `chosen` [R, count], which takes in exchange the
    columns of `seen` that they went to. `chosen` [R, 0] stands for all. What is left of `seen` becomes zero.
    """
    size, page_entries = raw.shape[1], entries.shape[1]
    column = np.full(table.shape[1] * page_entries if chosen.shape[1] else 0, -1)
    laid = np.empty(asked.shape[1] * chosen.shape[1], np.int64)
    for n in range(blocks.shape[0]):
        block = blocks[n]
        begin, end = begins[block], ends[block]
        b = sequence_of[rows[begin]]
        for r in range(begin, end):
            move(query[r], asked[n, r - begin])
        count, here = 0, offsets[b] - starts[b]
        position, past = lows[block], min(highs[block] + 1, starts[b])
        while position < past:
            window, first, stop = stretch(position, past, span, size)
            count = move_rows(raw[rings[b, window]], first, stop, seen[n], count)
            position += stop - first
        if highs[block] >= starts[b]:
            count = move_rows(keys, max(lows[block], starts[b]) + here, highs[block] + 1 + here, seen[n], count)
        if chosen.shape[1] == 0:
            for number in range(counts[end - 1]):
                move(entries[table[b, number // page_entries], number % page_entries], seen[n, count])
                count += 1
        distinct = 0
        for r in range(begin, end if chosen.shape[1] else begin):
            for c in range(counts[r]):
                number = chosen[r, c]
                if column[number] < 0:
                    column[number], laid[distinct] = count, number
                    move(entries[table[b, number // page_entries], number % page_entries], seen[n, count])
                    count, distinct = count + 1, distinct + 1
                chosen[r, c] = column[number]
        for number in laid[:distinct]:
            column[number] = -1
        seen[n, count:] = 0


@kernel
def _largest(line, least, lanes):
    """The largest of `least` and a multiple of _LANES numbers: one at a time each would wait for the one before."""
    lanes[:] = least
    for begin in range(0, line.shape[0], _LANES):
        part = line[begin : begin + _LANES]
        for n in range(_LANES):
            lanes[n] = max(lanes[n], part[n])
    half = _LANES // 2
    for n in range(half):
        lanes[n] = max(lanes[n], lanes[half + n])
    for n in range(half):
        least = max(least, lanes[n])
    return least


@kernel
def soften(logits, scale, sink, rows, first, last, chosen, counts, blocks, begins, ends, lows, highs):
    """Logits [.., size, A, K] of laid blocks become probabilities, in place: zero for what a row does not see.

    A softmax of `scale` * logits beside the head's sink, which takes weight and gives nothing.
    """
    # Loops over all K, a multiple of what a vector holds, instead of over ranges: no remainders, one number at a time.
    most = logits.shape[3]
    weights, sees, hidden = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    lanes = np.empty(_LANES, np.float32)
    for n in range(blocks.shape[0]):
        block = blocks[n]
        raw = highs[block] + 1 - lows[block]
        for r in range(begins[block], ends[block]):
            sees[:], hidden[:] = ZERO, NOTHING
            begin, end = first[rows[r]] - lows[block], last[rows[r]] + 1 - lows[block]
            sees[begin:end], hidden[begin:end] = ONE, ZERO
            for c in range(counts[r]):
                k = chosen[r, c] if chosen.shape[1] else raw + c
                sees[k], hidden[k] = ONE, ZERO
            for a in range(logits.shape[2]):
                line = logits[n, r - begins[block], a]
                for k in range(most):
                    weights[k] = wide(line[k]) * scale + hidden[k]
                largest = _largest(weights, sink[a], lanes)
                total = exp(sink[a] - largest)
                for k in range(most):
                    weights[k] = exp(weights[k] - largest) * sees[k]
                    total += weights[k]
                share = ONE / total
                for k in range(most):
                    line[k] = stored(weights[k] * share, line)


@kernel
def gather(given, blocks, begins, ends, rows, width, cos, sin, out):
    """What blocks were given [.., size, A * D] to their rows of out [R, A * D], turned back by cos and sin [N, r]."""
    bend = width - 2 * cos.shape[1]
    for n in range(blocks.shape[0]):
        begin = begins[blocks[n]]
        for r in range(begin, ends[blocks[n]]):
            i, line, kept = rows[r], given[n, r - begin], out[r]
            move(line, kept)
            for low in range(bend, out.shape[1], width):
                for c in range(cos.shape[1]):
                    even, odd = wide(line[low + 2 * c]), wide(line[low + 2 * c + 1])
                    kept[low + 2 * c] = stored(even * cos[i, c] + odd * sin[i, c], out)
                    kept[low + 2 * c + 1] = stored(odd * cos[i, c] - even * sin[i, c], out)


@kernel
def _match(asked, source, begin, end, weights, at):
    """Products of queries [A, D] with rows begin..end of source: to weights [A, ..] from column `at` on."""
    width = asked.shape[1]
    for k in range(begin, end):
        key = source[k]
        for a in range(asked.shape[0]):
            match, query = ZERO, asked[a]
            for d in range(width):
                match += query[d] * wide(key[d])
            weights[a, at + k - begin] = match


@kernel
def _give(weights, at, source, begin, end, given):
    """Add to given [A, D] rows begin..end of source, weighed by the columns of weights [A, ..] from `at` on."""
    width = given.shape[1]
    for k in range(begin, end, 4):  # four at a time: what is given is loaded and stored a quarter as often
        present = min(4, end - k)
        one, two = source[k], source[k + min(1, present - 1)]
        three, four = source[k + min(2, present - 1)], source[k + min(3, present - 1)]
        here = at + k - begin
        for a in range(given.shape[0]):
            w1, w2 = weights[a, here], weights[a, here + 1] if present > 1 else ZERO
            w3, w4 = weights[a, here + 2] if present > 2 else ZERO, weights[a, here + 3] if present > 3 else ZERO
            total = given[a]
            for d in range(width):
                total[d] += w1 * wide(one[d]) + w2 * wide(two[d]) + w3 * wide(three[d]) + w4 * wide(four[d])


@kernel
def _match_ring(asked, raw, ring, span, low, count, weights, room, free):
    """`_match` with `count` raw entries of a ring, from position `low` on; unpacked ones go to room from `free` on."""
    done = 0
    while done < count:
        window, begin, stop = stretch(low + done, low + count, span, raw.shape[1])
        part, at = readable(raw[ring[window]], begin, stop, room, free + done)
        _match(asked, part, at, at + stop - begin, weights, done)
        done += stop - begin


@kernel
def _give_ring(weights, raw, ring, span, low, count, given, room, free):
    """`_give` what `_match_ring` was asked for."""
    done = 0
    while done < count:
        window, begin, stop = stretch(low + done, low + count, span, raw.shape[1])
        part, at = read_again(raw[ring[window]], begin, room, free + done)
        _give(weights, done, part, at, at + stop - begin, given)
        done += stop - begin


@kernel
def attend_alone(
    query, keys, rows, sequence_of, offsets, starts, rings, span, raw, table, entries, chosen, counts,
    blocks, begins, lows, highs, scale, sink, cos, sin, out,
):  # fmt: skip
    """All that `lay`, `soften` and `gather` do, for blocks of one row each; windows in FP8 are unpacked first."""
    width, heads, page_entries = keys.shape[1], sink.shape[0], entries.shape[1]
    most = 0
    for block in blocks:
        most = max(most, highs[block] + 1 - lows[block] + counts[begins[block]])
    weights = np.empty((heads, (most + _LANES - 1) // _LANES * _LANES), np.float32)
    asked, given = np.empty((heads, width), np.float32), np.empty((heads, width), np.float32)
    shares, lanes = np.empty(heads, np.float32), np.empty(_LANES, np.float32)
    room = np.empty((most, width), keys.dtype)
    bend = width - 2 * cos.shape[1]
    for block in blocks:
        r = begins[block]
        i, b = rows[r], sequence_of[rows[r]]
        low, high = lows[block], highs[block] + 1
        for a in range(heads):
            for d in range(width):
                asked[a, d] = wide(query[r, a * width + d]) * scale
        # Rows of several windows, of this pass, and of the entries.
        before = max(min(high, starts[b]) - low, 0)
        now = max(low, starts[b]) + offsets[b] - starts[b]
        new, more = high - low - before, counts[r]
        for c in range(more):
            number = chosen[r, c] if chosen.shape[1] else c
            move(entries[table[b, number // page_entries], number % page_entries], room[c])
        weights[:] = NOTHING
        _match_ring(asked, raw, rings[b], span, low, before, weights, room, more)
        _match(asked, keys, now, now + new, weights, before)
        _match(asked, room, 0, more, weights, before + new)
        for a in range(heads):
            line = weights[a]
            largest = _largest(line, sink[a], lanes)
            total = exp(sink[a] - largest)
            for k in range(line.shape[0]):
                line[k] = exp(line[k] - largest)
                total += line[k]
            shares[a] = ONE / total
        given[:] = ZERO
        _give_ring(weights, raw, rings[b], span, low, before, given, room, more)
        _give(weights, before, keys, now, now + new, given)
        _give(weights, before + new, room, 0, more, given)
        for a in range(heads):
            # Not before they were added up: weights of what is not seen, the smallest numbers, would be subnormal ones.
            for d in range(width):
                given[a, d] *= shares[a]
            for c in range(cos.shape[1]):
                even, odd = given[a, bend + 2 * c], given[a, bend + 2 * c + 1]
                given[a, bend + 2 * c] = even * cos[i, c] + odd * sin[i, c]
                given[a, bend + 2 * c + 1] = odd * cos[i, c] - even * sin[i, c]
            for d in range(width):
                out[r, a * width + d] = stored(given[a, d], out)
