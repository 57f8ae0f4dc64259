"""What the cache takes: bytes of slots, windows and pages, and of requests, by branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .attention import CSA_RATIO
from .config import Config
from .entries import EntryFormat

MIN_PAGE_TOKENS = 16
WINDOW_TOKENS = 16  # at most, whose raw entries are given to a sequence at a time


@dataclass(frozen=True)
class Footprint:
    """Bytes of one request at its longest, by branch, as the cache allocates them: whole slots, windows and pages."""

    slots: int
    shared_windows: int
    own_windows: tuple[int, ...]
    shared_pages: int
    own_pages: tuple[int, ...]
    sliding_bytes: int
    csa_bytes: int
    indexer_bytes: int
    hca_bytes: int
    unfinished_window_bytes: int

    @property
    def windows(self) -> int:
        return self.shared_windows + sum(self.own_windows)

    @property
    def pages(self) -> int:
        return self.shared_pages + sum(self.own_pages)

    @property
    def units(self) -> tuple[int, int, int]:
        """Slots, windows and pages."""
        return self.slots, self.windows, self.pages

    @property
    def total_bytes(self) -> int:
        kept = self.sliding_bytes + self.unfinished_window_bytes
        return kept + self.csa_bytes + self.indexer_bytes + self.hca_bytes


class CacheLayout:
    """What a slot, a window and a page of one configuration take, in bytes by branch: computed in `dtype`, kept so or
    in FP8."""

    def __init__(self, config: Config, dtype: torch.dtype, fp8: bool = False) -> None:
        self.config = config
        self.attention = EntryFormat.of_attention(config, dtype, fp8)
        self.index = EntryFormat.of_indexer(config, dtype, fp8)
        ratios = [ratio for ratio in config.compress_ratios if ratio]
        self.page_tokens = max([MIN_PAGE_TOKENS, *ratios])
        for ratio in ratios:
            assert self.page_tokens % ratio == 0, f"a page of {self.page_tokens} tokens cuts windows of {ratio}"
        entry = self.attention.entry_bytes
        self.window_tokens = min(WINDOW_TOKENS, config.sliding_window)
        self.ring_windows = -(-config.sliding_window // self.window_tokens)
        self.sliding = config.num_hidden_layers * self.window_tokens * entry
        self.unfinished = sum(_unfinished_bytes(config, ratio) for ratio in ratios)
        csa = ratios.count(CSA_RATIO)
        self.csa = csa * (self.page_tokens // CSA_RATIO) * entry
        self.indexer = csa * (self.page_tokens // CSA_RATIO) * self.index.entry_bytes
        self.hca = sum(self.page_tokens // ratio for ratio in ratios if ratio != CSA_RATIO) * entry

    @property
    def slot_bytes(self) -> int:
        return self.unfinished

    @property
    def window_bytes(self) -> int:
        return self.sliding

    @property
    def page_bytes(self) -> int:
        return self.csa + self.indexer + self.hca

    @property
    def ring_tokens(self) -> int:
        """Token p lies at p % ring_tokens; a sequence that is shorter has windows for its own length only."""
        return self.ring_windows * self.window_tokens

    def windows(self, tokens: int) -> int:
        """How many a sequence of `tokens` ever needs: raw entries of all, or of the last `sliding_window` in a ring."""
        return min(-(-tokens // self.window_tokens), self.ring_windows)

    def footprint(self, prefix_tokens: int, tail_tokens: Sequence[int]) -> Footprint:
        """Of one image's prompt up to its questions, and for each question its tail with the longest response."""
        shared = prefix_tokens // self.page_tokens
        own = tuple(-(-(prefix_tokens + tail) // self.page_tokens) - shared for tail in tail_tokens)
        # The windows that the image fills can be shared as long as nobody's ring comes around to write there.
        longest = prefix_tokens + max(tail_tokens)
        same = prefix_tokens // self.window_tokens if longest <= self.ring_tokens else 0
        rings = tuple(self.windows(prefix_tokens + tail) - same for tail in tail_tokens)
        slots, windows, pages = len(own), same + sum(rings), shared + sum(own)
        return Footprint(
            slots, same, rings, shared, own, windows * self.sliding, pages * self.csa, pages * self.indexer,
            pages * self.hca, slots * self.unfinished,
        )  # fmt: skip


def _unfinished_bytes(config: Config, ratio: int) -> int:
    """The unfinished window of one layer's compressors: three sums a channel, in fp32."""
    if ratio != CSA_RATIO:
        return 3 * config.head_dim * 4
    # Of the window's Ca and Cb, and of Ca of the window before; for the entries and for the indexer.
    return 3 * 3 * (config.head_dim + config.index_head_dim) * 4
