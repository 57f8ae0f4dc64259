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

import torch
from torch import Tensor

from .attention import CSA_RATIO, LayerState
from .compression import NO_ENTRY, CompressorState
from .config import Config

MIN_PAGE_TOKENS = 16
PENDING = ("pending_kv_BmW", "pending_gate_BmW", "previous_kv_BmD", "previous_gate_BmD")


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
    """The unfinished window of one layer's compressors, kept in fp32: values and gates of each slot's tokens."""
    if ratio != CSA_RATIO:
        return 2 * ratio * config.head_dim * 4
    # [Ca | Cb] of the window's tokens, and Ca of the window before; for the entries and for the indexer.
    return 2 * ratio * 3 * (config.head_dim + config.index_head_dim) * 4


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
        self._layers = [_LayerPool(config, ratio, self, dtype, device) for ratio in config.compress_ratios]
        held = sum(tensor.nbytes for layer in self._layers for tensor in layer.tensors())
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

    def write_prefilled(self, sequences: Sequence[CachedSequence], state: list[LayerState]) -> None:
        """Take over dense prefilled states of B sequences of equal length. Siblings write the same entries to the
        pages that they share."""
        for layer, layer_state in zip(self._layers, state, strict=True):
            layer.write_prefilled(sequences, layer_state)

    def gather(self, sequences: Sequence[CachedSequence]) -> list[LayerState]:
        """Dense states of B running sequences, for one decode step."""
        slots = torch.tensor([s.slot for s in sequences], device=self.device)
        lengths = torch.tensor([s.length for s in sequences], device=self.device)
        table = [s.pages[: -(-s.length // self.layout.page_tokens)] for s in sequences]
        pages = torch.tensor(_rectangular(table), device=self.device)  # [B, pages]
        return [layer.gather(slots, lengths, pages) for layer in self._layers]

    def append(self, sequences: Sequence[CachedSequence], state: list[LayerState]) -> None:
        """Take over what one decode step added to gathered states; each sequence is one token longer after it."""
        slots = torch.tensor([s.slot for s in sequences], device=self.device)
        lengths = torch.tensor([s.length for s in sequences], device=self.device)
        at = torch.tensor([s.pages[s.length // self.layout.page_tokens] for s in sequences], device=self.device)
        for layer, layer_state in zip(self._layers, state, strict=True):
            layer.append(slots, lengths, at, layer_state)
        for sequence in sequences:
            sequence.length += 1


class _LayerPool:
    """One layer's slots and pages."""

    def __init__(self, config: Config, ratio: int, cache: Cache, dtype: torch.dtype, device: torch.device) -> None:
        self.ratio, self.window, self.page_tokens = ratio, config.sliding_window, cache.layout.page_tokens
        self.raw = torch.zeros(cache.num_slots, config.sliding_window, config.head_dim, dtype=dtype, device=device)
        self.compressed: _EntryPool | None = None
        self.index: _EntryPool | None = None
        if ratio:
            self.compressed = _EntryPool(config.head_dim, ratio, cache, dtype, device)
        if ratio == CSA_RATIO:
            self.index = _EntryPool(config.index_head_dim, ratio, cache, dtype, device)

    def tensors(self) -> list[Tensor]:
        pools = [pool for pool in (self.compressed, self.index) if pool is not None]
        return [self.raw, *(tensor for pool in pools for tensor in (pool.entries, *pool.pending.values()))]

    def write_prefilled(self, sequences: Sequence[CachedSequence], state: LayerState) -> None:
        slots = torch.tensor([s.slot for s in sequences], device=self.raw.device)
        positions_W = state.window_positions_BW[0]
        self.raw[slots[:, None], positions_W % self.window] = state.window_BWD
        for pool, kept in ((self.compressed, state.compressed), (self.index, state.index)):
            if pool is not None:
                assert kept is not None
                pool.write_prefilled(slots, [s.pages for s in sequences], kept)

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

    def append(self, slots: Tensor, lengths: Tensor, pages: Tensor, state: LayerState) -> None:
        self.raw[slots, lengths % self.window] = state.window_BWD[:, -1]
        for pool, kept in ((self.compressed, state.compressed), (self.index, state.index)):
            if pool is not None:
                assert kept is not None
                pool.append(slots, lengths, pages, kept)


class _EntryPool:
    """One compressor's pages [pages, E, D], and its unfinished windows by slot."""

    def __init__(self, width: int, ratio: int, cache: Cache, dtype: torch.dtype, device: torch.device) -> None:
        self.ratio, self.page_entries = ratio, cache.layout.page_tokens // ratio
        self.entries = torch.zeros(cache.num_pages, self.page_entries, width, dtype=dtype, device=device)
        overlap = ratio == CSA_RATIO
        widths = {"pending": 2 * width if overlap else width, "previous": width if overlap else 0}
        self.pending = {
            name: torch.zeros(cache.num_slots, ratio, widths[name.split("_")[0]], device=device) for name in PENDING
        }

    def write_prefilled(self, slots: Tensor, pages: list[list[int]], state: CompressorState) -> None:
        for name, pool in self.pending.items():
            pool[slots] = getattr(state, name)
        numbers = torch.arange(state.entries_BED.shape[1], device=slots.device)
        table = torch.tensor(_rectangular(pages), device=slots.device)
        self.entries[table[:, numbers // self.page_entries], numbers % self.page_entries] = state.entries_BED

    def gather(self, slots: Tensor, lengths: Tensor, pages: Tensor) -> CompressorState:
        entries = self.entries[pages].flatten(1, 2)  # [B, pages, E, D] -> [B, entries, D]
        numbers = torch.arange(entries.shape[1], device=slots.device)
        finished = lengths[:, None] // self.ratio
        pending = [self.pending[name][slots] for name in PENDING]
        return CompressorState(entries, torch.where(numbers < finished, numbers, NO_ENTRY), *pending)

    def append(self, slots: Tensor, lengths: Tensor, pages: Tensor, state: CompressorState) -> None:
        for name, pool in self.pending.items():
            pool[slots] = getattr(state, name)
        number_B = state.numbers_BE[:, -1]
        finished = (number_B != NO_ENTRY).nonzero()[:, 0]
        self.entries[pages[finished], number_B[finished] % self.page_entries] = state.entries_BED[finished, -1]


def _rectangular(pages: list[list[int]]) -> list[list[int]]:
    """A rectangular page table: shorter rows are filled with page 0, which is never read for them."""
    most = max(len(row) for row in pages)
    return [row + [0] * (most - len(row)) for row in pages]
