"""Compressed KV entries: one for every `ratio` tokens (CSA, HCA), and the window that is not finished yet.

Shapes: B sequences, T tokens, H hidden, D entry width, E entries, n windows, m = ratio tokens a window, W the width of
the projections: 2D where windows overlap (CSA and its indexer: [Ca | Cb]), D where they do not (HCA).
Source: reference section 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import RMSNorm, rotate, rotations

NO_ENTRY = 1 << 40  # the number of a slot that holds no entry: later than anything, so never visible


@dataclass(frozen=True)
class CompressorState:
    """What one compressor keeps of B sequences: finished entries, the unfinished window, the overlap.

    `numbers_BE` says which window each entry slot stands for (`NO_ENTRY`: none), so slots may lie in any order.
    `pending_*` [B, m, W] holds the unfinished window, the token of position p in slot p % m (fp32, as the gates need).
    `previous_*` [B, m, D] is the Ca half of the last finished window; D = 0 where windows do not overlap.
    """

    entries_BED: Tensor
    numbers_BE: Tensor
    pending_kv_BmW: Tensor
    pending_gate_BmW: Tensor
    previous_kv_BmD: Tensor
    previous_gate_BmD: Tensor


class Compressor(nn.Module):
    """Pools each window of `ratio` tokens into one entry by a gated softmax per channel."""

    def __init__(self, hidden_size: int, entry_width: int, ratio: int, overlap: bool, eps: float) -> None:
        super().__init__()
        self.entry_width, self.ratio, self.overlap = entry_width, ratio, overlap
        width = 2 * entry_width if overlap else entry_width
        self.wkv = nn.Linear(hidden_size, width, bias=False)
        self.wgate = nn.Linear(hidden_size, width, bias=False)
        self.norm = RMSNorm(entry_width, eps)
        self.ape = nn.Parameter(torch.zeros(ratio, width))

    def empty_state(self, batch: int, like: Tensor) -> CompressorState:
        """The state before the first token, in the type and on the device of `like`."""
        width, overlap = self.ape.shape[1], self.entry_width if self.overlap else 0
        wide = like.new_zeros(batch, self.ratio, width, dtype=torch.float32)
        before = like.new_zeros(batch, self.ratio, overlap, dtype=torch.float32)
        return CompressorState(
            like.new_zeros(batch, 0, self.entry_width),
            torch.zeros(batch, 0, dtype=torch.int64, device=like.device),
            wide,
            wide,
            before,
            before - torch.inf,  # no weight before the first window
        )

    def forward(
        self, x_BTH: Tensor, positions_BT: Tensor, state: CompressorState, frequencies: Tensor
    ) -> CompressorState:
        """Take T more tokens. One token each may stand anywhere; several must start at one position for all B."""
        kv_BTW = self.wkv(x_BTH).float()
        gate_BTW = self.wgate(x_BTH).float() + self.ape[positions_BT % self.ratio]
        if x_BTH.shape[1] == 1:
            return self._step(kv_BTW, gate_BTW, positions_BT, state, frequencies, x_BTH.dtype)
        return self._fill(kv_BTW, gate_BTW, int(positions_BT[0, 0]), state, frequencies, x_BTH.dtype)

    def _fill(
        self, kv: Tensor, gate: Tensor, start: int, state: CompressorState, frequencies: Tensor, dtype: torch.dtype
    ) -> CompressorState:
        held = start % self.ratio
        kv = torch.cat([state.pending_kv_BmW[:, :held], kv], dim=1)  # begins at the first token of a window
        gate = torch.cat([state.pending_gate_BmW[:, :held], gate], dim=1)
        full = kv.shape[1] // self.ratio
        split = (full, self.ratio)
        rest = full * self.ratio
        numbers_n = torch.arange(full, device=kv.device) + start // self.ratio
        entries, previous_kv, previous_gate = state.entries_BED, state.previous_kv_BmD, state.previous_gate_BmD
        if full:
            windows, gates = kv[:, :rest].unflatten(1, split), gate[:, :rest].unflatten(1, split)  # [B, n, m, W]
            new = self._pool(windows, gates, state, numbers_n[None], frequencies, dtype)
            entries = torch.cat([entries, new], dim=1)
            if self.overlap:
                previous_kv = windows[:, -1, :, : self.entry_width]
                previous_gate = gates[:, -1, :, : self.entry_width]
        spare = (0, 0, 0, self.ratio - (kv.shape[1] - rest))  # the unfinished window, padded back to m slots
        return CompressorState(
            entries,
            torch.cat([state.numbers_BE, numbers_n.expand(kv.shape[0], -1)], dim=1),
            nn.functional.pad(kv[:, rest:], spare),
            nn.functional.pad(gate[:, rest:], spare),
            previous_kv,
            previous_gate,
        )

    def _step(
        self,
        kv: Tensor,
        gate: Tensor,
        positions_B1: Tensor,
        state: CompressorState,
        frequencies: Tensor,
        dtype: torch.dtype,
    ) -> CompressorState:
        slot_B11 = (positions_B1 % self.ratio)[..., None]
        pending_kv = state.pending_kv_BmW.scatter(1, slot_B11.expand_as(kv), kv)
        pending_gate = state.pending_gate_BmW.scatter(1, slot_B11.expand_as(gate), gate)
        numbers_B1 = positions_B1 // self.ratio
        # Pooled for every sequence, kept as an entry only where this token finished its window.
        new = self._pool(pending_kv[:, None], pending_gate[:, None], state, numbers_B1, frequencies, dtype)
        finished_B1 = positions_B1 % self.ratio == self.ratio - 1
        previous_kv, previous_gate = state.previous_kv_BmD, state.previous_gate_BmD
        if self.overlap:
            finished_B11 = finished_B1[..., None]
            previous_kv = torch.where(finished_B11, pending_kv[..., : self.entry_width], previous_kv)
            previous_gate = torch.where(finished_B11, pending_gate[..., : self.entry_width], previous_gate)
        return CompressorState(
            torch.cat([state.entries_BED, new], dim=1),
            torch.cat([state.numbers_BE, torch.where(finished_B1, numbers_B1, NO_ENTRY)], dim=1),
            pending_kv,
            pending_gate,
            previous_kv,
            previous_gate,
        )

    def _pool(
        self,
        kv_BnmW: Tensor,
        gate_BnmW: Tensor,
        state: CompressorState,
        numbers_Bn: Tensor,
        frequencies: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Entries [B, n, D] of whole windows, each turned to the position of its window's first token."""
        if self.overlap:
            # An entry reads Ca of the window before and Cb of its own: 2m slots.
            width = self.entry_width
            before_kv = torch.cat([state.previous_kv_BmD[:, None], kv_BnmW[:, :-1, :, :width]], dim=1)
            before_gate = torch.cat([state.previous_gate_BmD[:, None], gate_BnmW[:, :-1, :, :width]], dim=1)
            kv_BnmW = torch.cat([before_kv, kv_BnmW[..., width:]], dim=2)
            gate_BnmW = torch.cat([before_gate, gate_BnmW[..., width:]], dim=2)
        pooled_BnD = (kv_BnmW * gate_BnmW.softmax(dim=2)).sum(dim=2).to(dtype)
        turns = rotations(numbers_Bn * self.ratio, frequencies)
        return rotate(self.norm(pooled_BnD), turns)
