"""How the cache keeps entries: as they were computed, or as the released model keeps them, in FP8.

In FP8 an entry is a row of bytes: E4M3 codes of its plain channels, the rotary channels in bf16, then a scale for each
BLOCK plain channels, a power of two (byte b stands for 2^(b - 127)). Indexer entries are codes throughout. Everything
that attends sees the rounded entry, also within the pass that computed it, so what is kept is exact.

Shapes: D entry width, r rotary channels at its end. Source: reference sections 6.1 (KV QAT) and 8 (bytes of an entry);
the released kernels pad the scales of an entry, and the indexer's are fp32, here neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import Config

BLOCK = 64
LEAST = 1e-4  # what the largest number of a block counts as at least
_BIAS = 127


@dataclass(frozen=True)
class EntryFormat:
    """One kind of entry: `width` channels, the last `rotary` of which stay bf16 in FP8; computed in `dtype`."""

    width: int
    rotary: int
    dtype: torch.dtype
    fp8: bool = False

    def __post_init__(self) -> None:
        # `kernels/entries.py` tells the parts of a row by its length, which odd widths would make ambiguous.
        assert self.width % 2 == 0 and self.rotary % 2 == 0, (self.width, self.rotary)

    @staticmethod
    def of_attention(config: Config, dtype: torch.dtype, fp8: bool) -> EntryFormat:
        return EntryFormat(config.head_dim, config.qk_rope_head_dim, dtype, fp8)

    @staticmethod
    def of_indexer(config: Config, dtype: torch.dtype, fp8: bool) -> EntryFormat:
        return EntryFormat(config.index_head_dim, 0, dtype, fp8)

    @property
    def plain(self) -> int:
        return self.width - self.rotary

    @property
    def cells(self) -> int:
        """Elements of a kept entry."""
        return self.plain + 2 * self.rotary + -(-self.plain // BLOCK) if self.fp8 else self.width

    @property
    def cell_dtype(self) -> torch.dtype:
        return torch.uint8 if self.fp8 else self.dtype

    @property
    def entry_bytes(self) -> int:
        return self.cells * self.cell_dtype.itemsize

    def pack(self, entries: Tensor) -> Tensor:
        """Entries [.., D] as they are kept, [.., cells]."""
        if not self.fp8:
            return entries
        plain, rotary = entries.float().split([self.plain, self.rotary], dim=-1)
        blocks = torch.nn.functional.pad(plain, (0, -self.plain % BLOCK)).unflatten(-1, (-1, BLOCK))
        # ceil(log2(largest / 448)), without a logarithm's rounding: 448 is 0.875 * 2^9.
        fraction, exponent = torch.frexp(blocks.abs().amax(dim=-1).clamp(min=LEAST))
        exponent = exponent - 9 + (fraction > 0.875).int()
        codes = torch.ldexp(blocks, -exponent[..., None]).to(torch.float8_e4m3fn).flatten(-2)[..., : self.plain]
        half = rotary.to(torch.bfloat16).float().view(torch.int32) >> 16
        halves = torch.stack([half & 255, half >> 8 & 255], dim=-1).flatten(-2)  # the lower byte first
        rest = torch.cat([halves, exponent + _BIAS], dim=-1).to(torch.uint8)
        return torch.cat([codes.contiguous().view(torch.uint8), rest], dim=-1)

    def unpack(self, rows: Tensor) -> Tensor:
        """What kept rows [.., cells] stand for, [.., D]."""
        if not self.fp8:
            return rows
        codes, bits, scales = rows.split([self.plain, 2 * self.rotary, -(-self.plain // BLOCK)], dim=-1)
        exponent = (scales.int() - _BIAS).repeat_interleave(BLOCK, dim=-1)[..., : self.plain]
        plain = torch.ldexp(codes.contiguous().view(torch.float8_e4m3fn).float(), exponent)
        rotary = (bits[..., 0::2].int() << 16 | bits[..., 1::2].int() << 24).view(torch.float32)
        return torch.cat([plain, rotary], dim=-1).to(self.dtype)

    def rounded(self, entries: Tensor) -> Tensor:
        """What is left of entries [.., D] when they are kept."""
        return self.unpack(self.pack(entries)).to(entries.dtype) if self.fp8 else entries
