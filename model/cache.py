"""The KV cache of the engine: slots and pages under one budget of bytes, and footprints.

Each running sequence owns one slot: in every layer its sliding window (raw entries, the token of position p at p % W)
and the unfinished windows of the compressors. Finished compressed entries lie in pages; one page spans `page_tokens`
tokens of one sequence in all compressed layers at once. Pages that an image fills are shared by all its questions.

    who owns what          allocated by        released by
    slot                   reserve()           release(), one a sequence
    page, shared           reserve()           release(), when the last sequence that holds it goes
    page, own              reserve()           release()

Shapes: B sequences, W = sliding_window, D entry width, m = ratio, E entries of a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .attention import CSA_RATIO, LayerState
from .compression import NO_ENTRY, NOTHING, CompressorState
from .config import Config

MIN_PAGE_TOKENS = 16


@dataclass(frozen=True)
class Footprint:
    """Bytes of one request at its longest, by branch, as the cache allocates them: whole slots, whole pages."""

    slots: int
    shared_pages: int
    own_pages: tuple[int, ...]
    sliding_bytes: int
    csa_bytes: int
    indexer_bytes: int
    hca_bytes: int
    unfinished_window_bytes: int

    @property
    def pages(self) -> int:
        return self.shared_pages + sum(self.own_pages)

    @property
    def total_bytes(self) -> int:
        kept = self.sliding_bytes + self.unfinished_window_bytes
        return kept + self.csa_bytes + self.indexer_bytes + self.hca_bytes


@dataclass
class CachedSequence:
    """One sequence's place in the cache, and how many of its tokens are in it."""

    slot: int
    pages: list[int]
    length: int


class CacheLayout:
    """What a slot and a page of one configuration take, in bytes by branch."""

    def __init__(self, config: Config, itemsize: int) -> None:
        self.config = config
        ratios = [ratio for ratio in config.compress_ratios if ratio]
        self.page_tokens = max([MIN_PAGE_TOKENS, *ratios])
        for ratio in ratios:
            assert self.page_tokens % ratio == 0, f"a page of {self.page_tokens} tokens cuts windows of {ratio}"
        entry = config.head_dim * itemsize
        self.sliding = config.num_hidden_layers * config.sliding_window * entry
        self.unfinished = sum(_unfinished_bytes(config, ratio) for ratio in ratios)
        csa = ratios.count(CSA_RATIO)
        self.csa = csa * (self.page_tokens // CSA_RATIO) * entry
        self.indexer = csa * (self.page_tokens // CSA_RATIO) * config.index_head_dim * itemsize
        self.hca = sum(self.page_tokens // ratio for ratio in ratios if ratio != CSA_RATIO) * entry

    @property
    def slot_bytes(self) -> int:
        return self.sliding + self.unfinished

    @property
    def page_bytes(self) -> int:
        return self.csa + self.indexer + self.hca

    def footprint(self, prefix_tokens: int, tail_tokens: Sequence[int]) -> Footprint:
        """Of one image's prompt up to its questions, and for each question its tail with the longest response."""
        shared = prefix_tokens // self.page_tokens
        own = tuple(-(-(prefix_tokens + tail) // self.page_tokens) - shared for tail in tail_tokens)
        slots, pages = len(own), shared + sum(own)
        return Footprint(
            slots, shared, own, slots * self.sliding, pages * self.csa, pages * self.indexer, pages * self.hca,
            slots * self.unfinished,
        )  # fmt: skip


def _unfinished_bytes(config: Config, ratio: int) -> int:
    """The unfinished window of one layer's compressors: three sums a channel, in fp32."""
    if ratio != CSA_RATIO:
        return 3 * config.head_dim * 4
    # Of the window's Ca and Cb, and of Ca of the window before; for the entries and for the indexer.
    return 3 * 3 * (config.head_dim + config.index_head_dim) * 4


class Cache:
    """Slots and pages of all layers, allocated once, within `budget_bytes`.

    How the budget is split: for each slot as many pages as `typical_tokens` of one sequence fill.
    """

    def __init__(
        self, config: Config, budget_bytes: int, dtype: torch.dtype, device: torch.device, typical_tokens: int
    ) -> None:
        self.config, self.layout, self.budget_bytes = config, CacheLayout(config, dtype.itemsize), budget_bytes
        layout = self.layout
        each = layout.slot_bytes + -(-typical_tokens // layout.page_tokens) * layout.page_bytes
        self.num_slots = budget_bytes // each
        spare = budget_bytes - self.num_slots * layout.slot_bytes
        self.num_pages = spare // layout.page_bytes if layout.page_bytes else self.num_slots
        if self.num_slots < 1:
            raise ValueError(
                f"a KV budget of {budget_bytes} bytes holds no sequence of {typical_tokens} tokens, which takes "
                f"{each}; raise it to at least that"
            )
        self.layers = [LayerPool(config, ratio, self, dtype, device) for ratio in config.compress_ratios]
        held = sum(tensor.nbytes for layer in self.layers for tensor in layer.tensors())
        assert held <= budget_bytes, f"the cache takes {held} bytes of a budget of {budget_bytes}"
        self._free_slots = list(range(self.num_slots))
        self._free_pages = list(range(self.num_pages))
        self._holders: Counter[int] = Counter()
        self.device = device
        self.peak_bytes = 0

    @property
    def used_bytes(self) -> int:
        slots, pages = self.num_slots - len(self._free_slots), self.num_pages - len(self._free_pages)
        return slots * self.layout.slot_bytes + pages * self.layout.page_bytes

    def can_ever_hold(self, footprint: Footprint) -> bool:
        return footprint.slots <= self.num_slots and footprint.pages <= self.num_pages

    def can_hold(self, footprint: Footprint) -> bool:
        return footprint.slots <= len(self._free_slots) and footprint.pages <= len(self._free_pages)

    def reserve(self, footprint: Footprint) -> list[CachedSequence]:
        """All that a request will ever need, one sequence for each question, sharing the image's full pages."""
        free = f"{len(self._free_slots)} slots, {len(self._free_pages)} pages"
        assert self.can_hold(footprint), f"{footprint} reserved with {free} free"
        shared = [self._free_pages.pop() for _ in range(footprint.shared_pages)]
        sequences = []
        for own in footprint.own_pages:
            pages = shared + [self._free_pages.pop() for _ in range(own)]
            self._holders.update(pages)
            sequences.append(CachedSequence(self._free_slots.pop(), pages, 0))
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        assert self.used_bytes <= self.budget_bytes, f"{self.used_bytes} bytes in a budget of {self.budget_bytes}"
        return sequences

    def release(self, sequence: CachedSequence) -> None:
        """Give back a sequence's slot, and its pages that nobody else holds."""
        self._free_slots.append(sequence.slot)
        self._holders.subtract(sequence.pages)
        self._free_pages += [page for page in sequence.pages if self._holders[page] == 0]

    def check_integrity(self) -> None:
        """When nothing runs, everything is free, once."""
        held = [page for page, holders in self._holders.items() if holders]
        assert not held, f"pages {held[:5]} are held by nobody that runs"
        assert sorted(self._free_slots) == list(range(self.num_slots)), "slots were lost or freed twice"
        assert sorted(self._free_pages) == list(range(self.num_pages)), "pages were lost or freed twice"

    def gather(self, sequences: Sequence[CachedSequence]) -> list[LayerState]:
        """Dense states of B running sequences, for one pass over more of their tokens."""
        slots, lengths = self._places(sequences)
        pages = self.page_table(sequences, [s.length for s in sequences])
        return [layer.gather(slots, lengths, pages) for layer in self.layers]

    def append(self, sequences: Sequence[CachedSequence], state: list[LayerState], tokens: int) -> None:
        """Take over what a pass added to gathered states; each sequence is `tokens` longer after it."""
        slots, lengths = self._places(sequences)
        pages = self.page_table(sequences, [s.length + tokens for s in sequences])
        for layer, layer_state in zip(self.layers, state, strict=True):
            layer.append(slots, lengths, pages, layer_state, tokens)
        for sequence in sequences:
            sequence.length += tokens

    def fork(self, pairs: Sequence[tuple[CachedSequence, CachedSequence]]) -> None:
        """Make the second of each pair equal to the first: its slot, and its own copy of a page that is not full.

        Full pages are shared since they were reserved.
        """
        if not pairs:
            return
        sources, targets = ([s.slot for s in column] for column in zip(*pairs, strict=True))
        size = self.layout.page_tokens
        partial = [(a, b, a.length // size) for a, b in pairs if a.length % size]
        begun = [(source.pages[at], target.pages[at]) for source, target, at in partial]
        for layer in self.layers:
            layer.fork(sources, targets, begun)
        for source, target in pairs:
            target.length = source.length

    def page_table(self, sequences: Sequence[CachedSequence], lengths: Sequence[int]) -> Tensor:
        """The pages [B, pages] of each one's first tokens; short rows go on with page 0, never read for them."""
        for sequence, length in zip(sequences, lengths, strict=True):
            room = len(sequence.pages) * self.layout.page_tokens
            assert length <= room, f"a sequence of {length} tokens reserved {room}"
        most = -(-max(lengths) // self.layout.page_tokens)
        flat = [page for s in sequences for page in (*s.pages[:most], *[0] * (most - len(s.pages)))]
        # By way of numpy, which reads a long list several times faster.
        return torch.from_numpy(np.array(flat, np.int64).reshape(len(sequences), most)).to(self.device)

    def _places(self, sequences: Sequence[CachedSequence]) -> tuple[Tensor, Tensor]:
        """Slots and lengths, [B] each."""
        both = torch.tensor([(s.slot, s.length) for s in sequences], device=self.device)
        return both[:, 0], both[:, 1]


class LayerPool:
    """One layer's slots and pages."""

    def __init__(self, config: Config, ratio: int, cache: Cache, dtype: torch.dtype, device: torch.device) -> None:
        self.ratio, self.window = ratio, config.sliding_window
        self.raw = torch.zeros(cache.num_slots, config.sliding_window, config.head_dim, dtype=dtype, device=device)
        self.compressed: EntryPool | None = None
        self.index: EntryPool | None = None
        if ratio:
            self.compressed = EntryPool(config.head_dim, ratio, cache, dtype, device)
        if ratio == CSA_RATIO:
            self.index = EntryPool(config.index_head_dim, ratio, cache, dtype, device)

    @property
    def pools(self) -> list[EntryPool]:
        return [pool for pool in (self.compressed, self.index) if pool is not None]

    def tensors(self) -> list[Tensor]:
        return [self.raw, *(tensor for pool in self.pools for tensor in (pool.entries, pool.sums, pool.before))]

    def gather(self, slots: Tensor, lengths: Tensor, pages: Tensor) -> LayerState:
        ring = torch.arange(self.window, device=slots.device)
        last = lengths[:, None] - 1
        positions_BW = last - (last - ring) % self.window  # the latest position that this place of the ring held
        return LayerState(
            self.raw[slots],
            positions_BW.clamp(min=-1),
            self.compressed.gather(slots, lengths, pages) if self.compressed else None,
            self.index.gather(slots, lengths, pages) if self.index else None,
        )

    def append(self, slots: Tensor, lengths: Tensor, pages: Tensor, state: LayerState, tokens: int) -> None:
        kept = min(tokens, self.window)
        positions = lengths[:, None] + torch.arange(tokens - kept, tokens, device=slots.device)
        self.raw[slots[:, None], positions % self.window] = state.window_BWD[:, -kept:]
        for pool, added in ((self.compressed, state.compressed), (self.index, state.index)):
            if pool is not None:
                assert added is not None
                pool.append(slots, lengths, pages, added)

    def fork(self, sources: list[int], targets: list[int], begun: list[tuple[int, int]]) -> None:
        self.raw[targets] = self.raw[sources]
        for pool in self.pools:
            pool.sums[targets], pool.before[targets] = pool.sums[sources], pool.before[sources]
            if begun:
                pool.entries[[own for _, own in begun]] = pool.entries[[its for its, _ in begun]]


class EntryPool:
    """One compressor's pages [pages, E, D], and by slot the sums of its unfinished window and of the one before."""

    def __init__(self, width: int, ratio: int, cache: Cache, dtype: torch.dtype, device: torch.device) -> None:
        self.ratio, self.page_entries = ratio, cache.layout.page_tokens // ratio
        self.entries = torch.zeros(cache.num_pages, self.page_entries, width, dtype=dtype, device=device)
        overlap = ratio == CSA_RATIO
        self.sums = torch.zeros(cache.num_slots, 3, 2 * width if overlap else width, device=device)
        self.before = torch.zeros(cache.num_slots, 3, width if overlap else 0, device=device)

    def gather(self, slots: Tensor, lengths: Tensor, pages: Tensor) -> CompressorState:
        entries = self.entries[pages].flatten(1, 2)  # [B, pages, E, D] -> [B, entries, D]
        numbers = torch.arange(entries.shape[1], device=slots.device)
        finished = lengths[:, None] // self.ratio
        # A sequence that begins finds in its slot what the last one left there.
        begins = (lengths == 0)[:, None, None]
        nothing = torch.tensor([NOTHING, 0.0, 0.0], device=slots.device)[:, None]
        sums, before = (torch.where(begins, nothing, kept[slots]) for kept in (self.sums, self.before))
        return CompressorState(entries, torch.where(numbers < finished, numbers, NO_ENTRY), sums, before)

    def append(self, slots: Tensor, lengths: Tensor, pages: Tensor, state: CompressorState) -> None:
        self.sums[slots], self.before[slots] = state.sums_B3W, state.before_B3D
        is_new = (state.numbers_BE != NO_ENTRY) & (state.numbers_BE >= lengths[:, None] // self.ratio)
        rows, columns = is_new.nonzero(as_tuple=True)
        numbers = state.numbers_BE[rows, columns]
        at = pages[rows, numbers // self.page_entries]
        self.entries[at, numbers % self.page_entries] = state.entries_BED[rows, columns]
