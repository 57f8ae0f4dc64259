"""The KV cache of the engine: slots, windows and pages under one budget of bytes.

Each running sequence owns one slot: the unfinished windows of all compressors. Its raw entries lie in windows, which
span `window_tokens` tokens in all layers at once: as many as the sequence fills at its longest, or, where that is more
than the sliding window, a ring of them (the token of position p lies at p % R, of R rows). Finished compressed entries
lie in pages, which span `page_tokens` tokens in all compressed layers at once. Windows and pages that an image fills
are shared by all its questions; windows only where no ring comes around.

    who owns what            allocated by        released by
    slot                     reserve()           release(), one a sequence
    window, page, shared     reserve()           release(), when the last sequence that holds it goes
    window, page, own        reserve()           release()

Shapes: B sequences, W = sliding_window, M windows of the longest ring, D entry width, m = ratio, E entries of a page.
Windows and pages hold entries as `entries.py` packs them.
"""

from __future__ import annotations

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
from .units import Units

_SLOTS_EACH = 2  # for each sequence of typical length


@dataclass
class CachedSequence:
    """One sequence's place in the cache, and how many of its tokens are in it."""

    slot: int
    windows: list[int]
    pages: list[int]
    length: int


class Cache:
    """Slots, windows and pages of all layers, allocated once, within `budget_bytes`.

    How the budget is split: as many windows and pages as sequences of `typical_tokens` fill, and for each of those two
    slots, which are small: where sequences are shorter there is room for more of them.
    """

    def __init__(
        self, config: Config, budget_bytes: int, dtype: torch.dtype, device: torch.device, typical_tokens: int,
        fp8: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.layout, self.budget_bytes = config, CacheLayout(config, dtype, fp8), budget_bytes
        layout = self.layout
        windows, pages = layout.windows(typical_tokens), -(-typical_tokens // layout.page_tokens)
        each = _SLOTS_EACH * layout.slot_bytes + windows * layout.window_bytes + pages * layout.page_bytes
        typical = budget_bytes // each
        if typical < 1:
            raise ValueError(
                f"a KV budget of {budget_bytes} bytes holds no sequence of {typical_tokens} tokens, which takes "
                f"{each}; raise it to at least that"
            )
        spare = budget_bytes - typical * (_SLOTS_EACH * layout.slot_bytes + windows * layout.window_bytes)
        self.slots = Units("slots", _SLOTS_EACH * typical)
        self.windows = Units("windows", typical * windows)
        self.pages = Units("pages", spare // layout.page_bytes if layout.page_bytes else typical * pages)
        self.layers = [LayerPool(config, ratio, self, device) for ratio in config.compress_ratios]
        held = sum(tensor.nbytes for layer in self.layers for tensor in layer.tensors())
        assert held <= budget_bytes, f"the cache takes {held} bytes of a budget of {budget_bytes}"
        self.device = device
        self.peak_bytes = 0

    @property
    def used_bytes(self) -> int:
        return self._bytes(self.slots.used, self.windows.used, self.pages.used)

    def held_bytes(self, sequences: Sequence[CachedSequence]) -> int:
        """What sequences hold together, what they share once."""
        windows = {window for sequence in sequences for window in sequence.windows}
        pages = {page for sequence in sequences for page in sequence.pages}
        return self._bytes(len(sequences), len(windows), len(pages))

    def _bytes(self, slots: int, windows: int, pages: int) -> int:
        layout = self.layout
        return slots * layout.slot_bytes + windows * layout.window_bytes + pages * layout.page_bytes

    def can_ever_hold(self, footprint: Footprint) -> bool:
        room = self.slots.count, self.windows.count, self.pages.count
        return all(need <= count for need, count in zip(footprint.units, room, strict=True))

    def can_hold(self, footprint: Footprint) -> bool:
        room = self.slots.free, self.windows.free, self.pages.free
        return all(need <= free for need, free in zip(footprint.units, room, strict=True))

    def reserve(self, footprint: Footprint) -> list[CachedSequence]:
        """All that a request will ever need, one sequence for each question, sharing what the image fills."""
        free = f"{self.slots.free} slots, {self.windows.free} windows, {self.pages.free} pages"
        assert self.can_hold(footprint), f"{footprint} reserved with {free} free"
        windows, pages = self.windows.take(footprint.shared_windows), self.pages.take(footprint.shared_pages)
        sequences = []
        for own_windows, own_pages in zip(footprint.own_windows, footprint.own_pages, strict=True):
            (slot,) = self.slots.take(1)
            own = self.windows.take(own_windows), self.pages.take(own_pages)
            sequence = CachedSequence(slot, windows + own[0], pages + own[1], 0)
            self.slots.hold([sequence.slot])
            self.windows.hold(sequence.windows)
            self.pages.hold(sequence.pages)
            sequences.append(sequence)
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        assert self.used_bytes <= self.budget_bytes, f"{self.used_bytes} bytes in a budget of {self.budget_bytes}"
        return sequences

    def release(self, sequence: CachedSequence) -> None:
        """Give back a sequence's slot, and its windows and pages that nobody else holds."""
        self.slots.release([sequence.slot])
        self.windows.release(sequence.windows)
        self.pages.release(sequence.pages)

    def check_integrity(self) -> None:
        """When nothing runs, everything is free, once."""
        for units in (self.slots, self.windows, self.pages):
            units.check_all_free()

    def gather(self, sequences: Sequence[CachedSequence]) -> list[LayerState]:
        """Dense states of B running sequences, for one pass over more of their tokens."""
        slots, lengths = self._places(sequences)
        rings = torch.from_numpy(self.rings(sequences)).to(self.device)
        pages = self.page_table(sequences, [s.length for s in sequences])
        return [layer.gather(rings, slots, lengths, pages) for layer in self.layers]

    def append(self, sequences: Sequence[CachedSequence], state: list[LayerState], tokens: int) -> None:
        """Take over what a pass added to gathered states; each sequence is `tokens` longer after it."""
        slots, lengths = self._places(sequences)
        rings = torch.from_numpy(self.rings(sequences)).to(self.device)
        pages = self.page_table(sequences, [s.length + tokens for s in sequences])
        for layer, layer_state in zip(self.layers, state, strict=True):
            layer.append(rings, slots, lengths, pages, layer_state, tokens)
        for sequence in sequences:
            sequence.length += tokens

    def fork(self, pairs: Sequence[tuple[CachedSequence, CachedSequence]]) -> None:
        """Make the second of each pair equal to the first: its slot, and its own copies of the windows and of a page
        that is not full.

        Full pages are shared since they were reserved, and so are full windows where no ring comes around.
        """
        if not pairs:
            return
        sources, targets = ([s.slot for s in column] for column in zip(*pairs, strict=True))
        size = self.layout.page_tokens
        partial = [(a, b, a.length // size) for a, b in pairs if a.length % size]
        begun = [(source.pages[at], target.pages[at]) for source, target, at in partial]
        # Rings of different lengths have not come around yet: the tokens lie at the same places of both.
        filled = [(a, b, self.layout.windows(a.length)) for a, b in pairs]
        both = [pair for a, b, count in filled for pair in zip(a.windows[:count], b.windows[:count], strict=True)]
        own = [(one, other) for one, other in both if one != other]
        for layer in self.layers:
            layer.fork(sources, targets, own, begun)
        for source, target in pairs:
            target.length = source.length

    def rings(self, sequences: Sequence[CachedSequence]) -> np.ndarray:
        """The windows [B, M] of each one's ring; short rows go on with window 0, never read for them."""
        most = max(len(sequence.windows) for sequence in sequences)
        flat = [window for s in sequences for window in (*s.windows, *[0] * (most - len(s.windows)))]
        return np.array(flat, np.int64).reshape(len(sequences), most)

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
    """One layer's slots, windows and pages."""

    def __init__(self, config: Config, ratio: int, cache: Cache, device: torch.device) -> None:
        self.ratio, self.window, self.format = ratio, config.sliding_window, cache.layout.attention
        self.ring_tokens = cache.layout.ring_tokens
        room = cache.windows.count, cache.layout.window_tokens, self.format.cells
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

    def gather(self, rings: Tensor, slots: Tensor, lengths: Tensor, pages: Tensor) -> LayerState:
        positions_BW = lengths[:, None] + torch.arange(-self.window, 0, device=slots.device)
        return LayerState(
            self.format.unpack(self.raw[self._places(rings, positions_BW.clamp(min=0))]),
            positions_BW.clamp(min=-1),
            self.compressed.gather(slots, lengths, pages) if self.compressed else None,
            self.index.gather(slots, lengths, pages) if self.index else None,
        )

    def append(
        self, rings: Tensor, slots: Tensor, lengths: Tensor, pages: Tensor, state: LayerState,
        tokens: int,
    ) -> None:  # fmt: skip
        kept = min(tokens, self.window)
        positions = lengths[:, None] + torch.arange(tokens - kept, tokens, device=slots.device)
        self.raw[self._places(rings, positions)] = self.format.pack(state.window_BWD[:, -kept:])
        for pool, added in ((self.compressed, state.compressed), (self.index, state.index)):
            if pool is not None:
                assert added is not None
                pool.append(slots, lengths, pages, added)

    def _places(self, rings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Where the raw entries of positions [B, n] lie: their windows, and their rows there."""
        rows, size = positions % self.ring_tokens, self.raw.shape[1]
        return rings.gather(1, rows // size), rows % size

    def fork(
        self, sources: list[int], targets: list[int], own: list[tuple[int, int]], begun: list[tuple[int, int]]
    ) -> None:
        """Copy slots, and windows and pages from the first of each pair to the second."""
        if own:
            self.raw[[its for _, its in own]] = self.raw[[given for given, _ in own]]
        for pool in self.pools:
            pool.sums[targets], pool.before[targets] = pool.sums[sources], pool.before[sources]
            if begun:
                pool.entries[[its for _, its in begun]] = pool.entries[[given for given, _ in begun]]


class EntryPool:
    """One compressor's pages of entries, and by slot the sums of its unfinished window and of the one before."""

    def __init__(self, kept_as: EntryFormat, ratio: int, cache: Cache, device: torch.device) -> None:
        self.ratio, self.page_entries, self.format = ratio, cache.layout.page_tokens // ratio, kept_as
        room = cache.pages.count, self.page_entries, kept_as.cells
        self.entries = torch.zeros(room, dtype=kept_as.cell_dtype, device=device)
        overlap, width = ratio == CSA_RATIO, kept_as.width
        self.sums = torch.zeros(cache.slots.count, 3, 2 * width if overlap else width, device=device)
        self.before = torch.zeros(cache.slots.count, 3, width if overlap else 0, device=device)

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
