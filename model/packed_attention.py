"""Attention of packed tokens by blocks of rows: laid out side by side, so that torch's batched products do the work.

Rows that follow each other in one sequence see nearly the same entries, which are copied once for all of them.
Shapes: N tokens of a share, B sequences, R rows (tokens whose outputs are wanted), A heads, D head width, `size` rows
a block, K entries that a block sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .kernels import blocks as kernels

Array = np.ndarray

BLOCK_ROWS = 16
BLOCK_BYTES = 1 << 19  # of what is laid at a time: it stays in the core's second cache
_STEP = 32  # K is rounded up to it: few shapes, and loops without remainders


@dataclass(frozen=True)
class Blocks:
    """Rows of one pass, cut into blocks: `begins`, `ends` into `rows`; `lows`, `highs` the raw entries each sees."""

    rows: Array
    begins: Array
    ends: Array
    lows: Array
    highs: Array

    @classmethod
    def of(cls, rows: Array, sequence_of: Array, first: Array, last: Array) -> Blocks:
        columns = np.empty((4, len(rows)), np.int64)
        count = kernels.cut(rows, sequence_of, first, last, BLOCK_ROWS, *columns)
        return cls(rows, *columns[:, :count])


@dataclass(frozen=True)
class Pass:
    """A share of one pass: tokens [N] one after the other, and of its B sequences where they lie."""

    ids: Array
    positions: Array
    sequence_of: Array  # [N]
    offsets: Array  # [B + 1]
    starts: Array
    slots: Array
    rings: Array  # [B, M], the windows of each one's ring
    span: int  # rows of a whole ring
    table: Array  # [B, pages]
    first: Array  # [N]
    last: Array
    every: Blocks  # of all N rows
    wanted: Blocks  # of the rows whose outputs are wanted
    turns: dict[bool, tuple[Array, Array]]  # cos and sin [N, r]: of sliding layers, and of compressed ones


@dataclass(frozen=True)
class Seen:
    """What the rows of one layer attend to: keys [N, D] of this pass, `raw` entries [windows, rows, ..] of what came
    before, and compressed entries: for each row `counts` [R] of them, those in `chosen` [R, ..], or all where it is
    [R, 0]."""

    keys: Tensor
    raw: Array
    entries: Array
    chosen: Array
    counts: Array


def attend(
    query: Array, seen: Seen, sink: Array, batch: Pass, blocks: Blocks, turns: tuple[Array, Array], out: Array
) -> None:
    """Softmax over what each row sees and the head's sink: out [R, A * D], turned back. query [R, A * D and more]."""
    heads, width, dtype = len(sink), seen.keys.shape[1], seen.keys.dtype
    scale, cut = np.float32(width**-0.5), (blocks.begins, blocks.ends, blocks.lows, blocks.highs)
    where = (
        blocks.rows, batch.sequence_of, batch.offsets, batch.starts, batch.rings, batch.span, seen.raw, batch.table,
        seen.entries, seen.chosen, seen.counts,
    )  # fmt: skip
    alone = blocks.ends - blocks.begins == 1
    if alone.any():
        lone = np.flatnonzero(alone), blocks.begins, blocks.lows, blocks.highs
        kernels.attend_alone(query, cells(seen.keys), *where, *lone, scale, sink, *turns, out)
    for numbers, most in _slices(blocks, np.flatnonzero(~alone), seen, dtype.itemsize * width):
        # Shapes of few kinds: a bf16 product of a new shape is generated first, a millisecond each time.
        count = len(numbers) if dtype == torch.float32 else 1 << (len(numbers) - 1).bit_length()
        asked = torch.zeros(count, BLOCK_ROWS * heads, width, dtype=dtype)
        laid = torch.empty(count, most, width, dtype=dtype)
        asked_rows = cells(asked).reshape(count, BLOCK_ROWS, heads * width)
        kernels.lay(query, cells(seen.keys), *where, numbers, *cut, asked_rows, cells(laid))
        logits = torch.bmm(asked, laid.transpose(1, 2))
        kernels.soften(
            cells(logits).reshape(count, BLOCK_ROWS, heads, most), scale, sink, blocks.rows, batch.first, batch.last,
            seen.chosen, seen.counts, numbers, *cut,
        )  # fmt: skip
        torch.bmm(logits, laid, out=asked)
        kernels.gather(asked_rows, numbers, blocks.begins, blocks.ends, blocks.rows, width, *turns, out)


def _slices(blocks: Blocks, numbers: Array, seen: Seen, entry_bytes: int) -> list[tuple[Array, int]]:
    """Numbers of blocks that are laid together, and K: all that one of them could see."""
    if not len(numbers):
        return []
    entries = np.add.reduceat(seen.counts, blocks.begins) if seen.chosen.shape[1] else seen.counts[blocks.ends - 1]
    most = int((blocks.highs + 1 - blocks.lows + entries)[numbers].max())
    most = -(-most // _STEP) * _STEP
    together = 1 << max(BLOCK_BYTES // (most * entry_bytes), 1).bit_length() - 1
    return [(numbers[at : at + together], most) for at in range(0, len(numbers), together)]


def cells(tensor: Tensor) -> Array:
    """The numbers of a tensor in its own memory, for the kernels: bf16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
