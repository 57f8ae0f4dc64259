"""Compressed KV entries: one for every `ratio` tokens (CSA, HCA), and the sums of the window that is not finished yet.

Shapes: B sequences, T tokens, H hidden, D entry width, E entries, n windows, m = ratio tokens a window, W the width of
the projections: 2D where windows overlap (CSA and its indexer: [Ca | Cb]), D where they do not (HCA).
Source: reference section 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .entries import EntryFormat
from .layers import RMSNorm, rotate, rotations

NO_ENTRY = 1 << 40  # the number of a slot that holds no entry: later than anything, so never visible
NOTHING = -1e30  # a gate below all others, and finite: differences of two such are 0 and not NaN


@dataclass(frozen=True)
class CompressorState:
    """What one compressor keeps of B sequences: finished entries, the sums of the unfinished window, the overlap.

    `numbers_BE` says which window each entry slot stands for (`NO_ENTRY`: none), so slots may lie in any order.
    `sums_B3W` is the unfinished window's softmax so far, channel by channel, in fp32: the largest gate, the sum of
    exp(gate - largest), and the values weighed so. `before_B3D` is the same of the Ca half of the window before; D = 0
    where windows do not overlap.
    """

    entries_BED: Tensor
    numbers_BE: Tensor
    sums_B3W: Tensor
    before_B3D: Tensor


class Compressor(nn.Module):
    """Pools each window of `ratio` tokens into one entry by a gated softmax per channel."""

    def __init__(self, hidden_size: int, entry_width: int, ratio: int, overlap: bool, eps: float) -> None:
        super().__init__()
        self.entry_width, self.ratio, self.overlap = entry_width, ratio, overlap
        width = 2 * entry_width if overlap else entry_width
        self.wkv = nn.Linear(hidden_size, width, bias=False)
        self.wgate = nn.Linear(hidden_size, width, bias=False)
        self.norm = RMSNorm(entry_width, eps)
        self.kept_as = EntryFormat(entry_width, 0, torch.float32)
        self.ape = nn.Parameter(torch.zeros(ratio, width))

    def empty_state(self, batch: int, like: Tensor) -> CompressorState:
        """The state before the first token, in the type and on the device of `like`."""
        nothing = like.new_tensor([NOTHING, 0.0, 0.0], dtype=torch.float32)[None, :, None]
        return CompressorState(
            like.new_zeros(batch, 0, self.entry_width),
            torch.zeros(batch, 0, dtype=torch.int64, device=like.device),
            nothing.repeat(batch, 1, self.ape.shape[1]),
            nothing.repeat(batch, 1, self.entry_width if self.overlap else 0),
        )

    def forward(
        self, x_BTH: Tensor, positions_BT: Tensor, state: CompressorState, frequencies: Tensor
    ) -> CompressorState:
        """Take T more tokens. One token each may stand anywhere; several must start at one position for all B."""
        kv_BTW = self.wkv(x_BTH).float()
        gate_BTW = self.wgate(x_BTH).float() + self.ape[positions_BT % self.ratio]
        if x_BTH.shape[1] == 1:
            sums_Bn3W = softmax_sums(kv_BTW[:, None], gate_BTW[:, None])  # one window of one token
            finished_Bn = positions_BT % self.ratio == self.ratio - 1
        else:
            sums_Bn3W, finished_Bn = self._windows(kv_BTW, gate_BTW, int(positions_BT[0, 0]))
        numbers_Bn = positions_BT[:, :1] // self.ratio + torch.arange(sums_Bn3W.shape[1], device=x_BTH.device)
        sums_Bn3W = torch.cat([merge(state.sums_B3W, sums_Bn3W[:, 0])[:, None], sums_Bn3W[:, 1:]], dim=1)
        own, before, last = sums_Bn3W, state.before_B3D, finished_Bn[:, -1, None, None]
        if self.overlap:
            # An entry reads Ca of the window before and Cb of its own: 2m tokens.
            ca_Bn3D, cb_Bn3D = sums_Bn3W.split(self.entry_width, dim=-1)
            earlier_Bn3D = torch.cat([before[:, None], ca_Bn3D[:, :-1]], dim=1)
            own = merge(earlier_Bn3D, cb_Bn3D)
            before = torch.where(last, ca_Bn3D[:, -1], earlier_Bn3D[:, -1])
        pooled_BnD = (own[:, :, 2] / own[:, :, 1]).to(x_BTH.dtype)
        turned_BnD = rotate(self.norm(pooled_BnD), rotations(numbers_Bn * self.ratio, frequencies))
        entries_BnD = self.kept_as.rounded(turned_BnD)
        # Pooled for every window, kept as an entry only where the tokens finished it.
        keep = finished_Bn.shape[1] if x_BTH.shape[1] == 1 else int(finished_Bn[0].sum())
        numbers_Bn = torch.where(finished_Bn, numbers_Bn, NO_ENTRY)
        nothing = self.empty_state(1, state.sums_B3W).sums_B3W
        return CompressorState(
            torch.cat([state.entries_BED, entries_BnD[:, :keep]], dim=1),
            torch.cat([state.numbers_BE, numbers_Bn[:, :keep]], dim=1),
            torch.where(last, nothing, sums_Bn3W[:, -1]),
            before,
        )

    def _windows(self, kv_BTW: Tensor, gate_BTW: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Sums [B, n, 3, W] of the windows that T tokens from `start` on touch, and which of them they finish."""
        end = start + kv_BTW.shape[1]
        spare = (0, 0, start % self.ratio, -end % self.ratio)  # to whole windows, with tokens that weigh nothing
        windows = nn.functional.pad(kv_BTW, spare).unflatten(1, (-1, self.ratio))  # [B, n, m, W]
        gates = nn.functional.pad(gate_BTW, spare, value=NOTHING).unflatten(1, (-1, self.ratio))
        sums_Bn3W = softmax_sums(windows, gates)
        finished_n = torch.arange(sums_Bn3W.shape[1], device=kv_BTW.device) < end // self.ratio - start // self.ratio
        return sums_Bn3W, finished_n.expand(kv_BTW.shape[0], -1)


def softmax_sums(values: Tensor, gates: Tensor) -> Tensor:
    """The softmax over the tokens of a window, before it is divided: [.., m, W] twice -> [.., 3, W]."""
    largest = gates.amax(dim=-2, keepdim=True)
    weights = (gates - largest).exp()
    return torch.stack([largest.squeeze(-2), weights.sum(dim=-2), (weights * values).sum(dim=-2)], dim=-2)


def merge(one: Tensor, other: Tensor) -> Tensor:
    """The sums [.., 3, W] over the tokens of both."""
    largest = torch.maximum(one[..., :1, :], other[..., :1, :])
    grown = [(sums[..., :1, :] - largest).exp() * sums[..., 1:, :] for sums in (one, other)]
    return torch.cat([largest, grown[0] + grown[1]], dim=-2)
