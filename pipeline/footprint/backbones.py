"""Other models' KV caches by their public shapes: grouped-query attention in bf16, each with its own image tokens."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .prediction import Peer

_KEYS_AND_VALUES = 2
_BF16 = 2


@dataclass(frozen=True)
class TokenRule:
    """Sides rounded to multiples of `cell` pixels under limits of the area in pixels; one token a cell, two marks."""

    cell: int
    min_pixels: int
    max_pixels: int

    def __call__(self, width: int, height: int) -> int:
        """Tokens of an image, its start and end marks included."""
        rows, columns = max(round(height / self.cell), 1), max(round(width / self.cell), 1)
        area = rows * columns * self.cell**2
        if area > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            rows = max(math.floor(height / shrink / self.cell), 1)
            columns = max(math.floor(width / shrink / self.cell), 1)
        elif area < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            rows, columns = math.ceil(height * grow / self.cell), math.ceil(width * grow / self.cell)
        return rows * columns + 2


# Cells and limits are those of the models' published preprocessor_config.json files.
_QWEN3_VL = TokenRule(cell=32, min_pixels=65_536, max_pixels=16_777_216)
_QWEN2_5_VL = TokenRule(cell=28, min_pixels=3_136, max_pixels=12_845_056)


def _gqa(name: str, layers: int, kv_heads: int, head_dim: int, rule: TokenRule) -> Peer:
    return Peer(name, layers * kv_heads * head_dim * _KEYS_AND_VALUES * _BF16, rule)


PEERS = (
    _gqa("Qwen3-VL-235B", 94, 4, 128, _QWEN3_VL),
    _gqa("8B class (Qwen3-VL-8B)", 36, 8, 128, _QWEN3_VL),
    _gqa("70B class (Qwen2.5-VL-72B)", 80, 8, 128, _QWEN2_5_VL),
)


def peer_of(model: str) -> Peer | None:
    """The peer whose model this name speaks of, as in `Qwen/Qwen3-VL-8B-Instruct`; None when there is none."""
    for peer in PEERS:
        known = peer.name.partition("(")[2].rstrip(")") or peer.name
        if re.search(rf"{re.escape(known)}(?![0-9A-Z])", model, re.IGNORECASE):
            return peer
    return None
