"""The KV cache of the engine: slots and pages under one budget of bytes, and footprints.

Each running sequence owns one slot: in every layer its sliding window (raw entries, the token of position p at p % W)
and the unfinished windows of the compressors. Finished compressed entries lie in pages; one page spans `page_tokens`
tokens of one sequence in all compressed layers at once. Pages that an image fills are shared by all its questions.

    who owns what          allocated by        released by
    slot                   reserve()           release(), one a sequence
    page, shared           reserve()           release(), when the last sequence that holds it goes
    page, own              reserve()           release()

Shapes: B sequences, W = sliding_window, D entry width, m = ratio, E entries of a page. Rings and pages hold entries as
`entries.py` packs them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .attention import CSA_RATIO, LayerState
from .cache_layout import CacheLayout, Footprint
from .compression import NO_ENTRY, NOTHING, CompressorState
from .config import Config
from .entries import EntryFormat


@dataclass
class CachedSequence:
    """One sequence's place in the cache, and how many of its tokens are in it."""

    slot: int
    pages: list[int]
    length: int


class Cache:
    """Slots and pages of all layers, allocated once, within `budget_bytes`.

    How the budget is split: for each slot as many pages as `typical_tokens` of one sequence fill.
    """

    def __init__(
        self, config: Config, budget_bytes: int, dtype: torch.dtype, device: torch.device, typical_tokens: int,
        fp8: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.layout, self.budget_bytes = config, CacheLayout(config, dtype, fp8), budget_bytes
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
        self.layers = [LayerPool(config, ratio, self, device) for ratio in config.compress_ratios]
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

    def __init__(self, config: Config, ratio: int, cache: Cache, device: torch.device) -> None:
        self.ratio, self.window, self.format = ratio, config.sliding_window, cache.layout.attention
        room = cache.num_slots, config.sliding_window, self.format.cells
        self.raw = torch.zeros(room, dtype=self.format.cell_dtype, device=device)
        self.compressed: EntryPool | None = None
        self.index: EntryPool | None = None
        if ratio:
            self.compressed = EntryPool(self.format, ratio, cache, device)
        if ratio == CSA_RATIO:
            self.index = EntryPool(cache.layout.index, ratio, cache, device)

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
            self.format.unpack(self.raw[slots]),
            positions_BW.clamp(min=-1),
            self.compressed.gather(slots, lengths, pages) if self.compressed else None,
            self.index.gather(slots, lengths, pages) if self.index else None,
        )

    def append(self, slots: Tensor, lengths: Tensor, pages: Tensor, state: LayerState, tokens: int) -> None:
        kept = min(tokens, self.window)
        positions = lengths[:, None] + torch.arange(tokens - kept, tokens, device=slots.device)
        self.raw[slots[:, None], positions % self.window] = self.format.pack(state.window_BWD[:, -kept:])
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
    """One compressor's pages of entries, and by slot the sums of its unfinished window and of the one before."""

    def __init__(self, kept_as: EntryFormat, ratio: int, cache: Cache, device: torch.device) -> None:
        self.ratio, self.page_entries, self.format = ratio, cache.layout.page_tokens // ratio, kept_as
        room = cache.num_pages, self.page_entries, kept_as.cells
        self.entries = torch.zeros(room, dtype=kept_as.cell_dtype, device=device)
        overlap, width = ratio == CSA_RATIO, kept_as.width
        self.sums = torch.zeros(cache.num_slots, 3, 2 * width if overlap else width, device=device)
        self.before = torch.zeros(cache.num_slots, 3, width if overlap else 0, device=device)

    def gather(self, slots: Tensor, lengths: Tensor, pages: Tensor) -> CompressorState:
        entries = self.format.unpack(self.entries[pages].flatten(1, 2))  # [B, pages, E, ..] -> [B, entries, D]
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
        self.entries[at, numbers % self.page_entries] = self.format.pack(state.entries_BED[rows, columns])
