"""Attention over a sliding window of raw entries and, in CSA and HCA layers, over compressed ones.

Shapes: B sequences, T new tokens, H hidden, A heads, D head width (keys are values), Q the query's low rank, K keys =
the raw ones kept or new, then E compressed entries. Sources: reference sections 6.1 (attention) and 6.2 (image spans).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .compression import Compressor, CompressorState
from .config import Config
from .entries import EntryFormat
from .image import TokenType
from .layers import RMSNorm, rms_normalise, rope_frequencies, rotate, rotations

CSA_RATIO = 4


@dataclass(frozen=True)
class LayerState:
    """What one layer keeps of B sequences. `window_positions` is -1 where a slot of the window is empty."""

    window_BWD: Tensor
    window_positions_BW: Tensor
    compressed: CompressorState | None
    index: CompressorState | None


@dataclass(frozen=True)
class Tokens:
    """T new tokens of B sequences as every layer sees them.

    ids [B, T] (vocab_size + TokenType inside image spans), positions [B, T], and for each token the first and the
    last position [B, T] whose raw entries it may see.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    first_BT: Tensor
    last_BT: Tensor


@dataclass(frozen=True)
class AttentionTrace:
    """What one layer looked at: probabilities [B, A, T, K] over raw keys then entries, and the indexer's scores."""

    probabilities_BATK: Tensor
    raw_positions_BR: Tensor
    index_scores_BTE: Tensor | None


def describe_tokens(ids_BT: Tensor, positions_BT: Tensor, config: Config) -> Tokens:
    """Which raw entries each token may see (reference section 6.2).

    A text token sees itself and the `sliding_window` - 1 before it. A token of an image, START..END, sees that and
    its whole image, forwards too; alignment pads before START are like text. With a window of 3:

        text text START IMAGE IMAGE END text
        first   0    0    0     1     2    2    4
        last    0    1    5     5     5    5    6
    """
    window, reach = config.sliding_window, config.vision_max_n_token
    first_BT, last_BT = (positions_BT - window + 1).clamp(min=0), positions_BT
    if int(ids_BT.max()) < config.vocab_size:
        return Tokens(ids_BT, positions_BT, first_BT, last_BT)
    far = torch.iinfo(torch.int64).max
    is_start = ids_BT == config.vocab_size + TokenType.START
    is_end = ids_BT == config.vocab_size + TokenType.END
    start_BT = torch.where(is_start, positions_BT, -1).cummax(dim=1).values
    ended_BT = torch.where(is_end, positions_BT, -1).cummax(dim=1).values.roll(1, dims=1)
    ended_BT[:, 0] = -1
    end_BT = torch.where(is_end, positions_BT, far).flip(1).cummin(dim=1).values.flip(1)
    inside = (ids_BT >= config.vocab_size) & (start_BT > ended_BT)
    assert bool((end_BT[inside] < far).all()), "an image span was cut: its END is missing from these tokens"
    left = (positions_BT - start_BT).clamp(max=reach - 1)
    right = (end_BT - positions_BT).clamp(max=reach)
    first_BT = torch.where(inside, torch.minimum(first_BT, positions_BT - left), first_BT)
    return Tokens(ids_BT, positions_BT, first_BT, torch.where(inside, positions_BT + right, last_BT))


def best_entries(scores_BTE: Tensor, count: int) -> Tensor:
    """The `count` entries [B, T, count] of the highest scores; of equal ones the latest.

    ReLU makes exact ties at 0 common, and torch.topk breaks them by the length of the row: what a sequence sees would
    depend on how it was batched.
    """
    ranked = scores_BTE.flip(2).sort(dim=2, descending=True, stable=True).indices
    return scores_BTE.shape[2] - 1 - ranked[..., :count]


class Indexer(nn.Module):
    """The lightning indexer: scores every compressed entry for every query with small heads of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.index_n_heads, config.index_head_dim
        self.wq_b = nn.Linear(config.q_lora_rank, self.num_heads * self.head_dim, bias=False)
        self.weights_proj = nn.Linear(config.hidden_size, self.num_heads, bias=False)
        self.compressor = Compressor(config.hidden_size, self.head_dim, CSA_RATIO, True, config.rms_norm_eps)

    def forward(self, x_BTH: Tensor, rank_BTQ: Tensor, turns: Tensor, entries_BED: Tensor) -> Tensor:
        """Scores [B, T, E] in fp32."""
        query_BTAD = rotate(self.wq_b(rank_BTQ).unflatten(-1, (self.num_heads, -1)), turns[:, :, None])
        weights_BTA = self.weights_proj(x_BTH).float() * (self.num_heads**-0.5 * self.head_dim**-0.5)
        match_BTAE = torch.einsum("btad,bed->btae", query_BTAD.float(), entries_BED.float())
        return torch.einsum("bta,btae->bte", weights_BTA, match_BTAE.relu())


class GroupedLinear(nn.Linear):
    """The first half of the low-rank output: each group of heads has rows of its own."""

    def __init__(self, groups: int, in_features: int, out_features: int) -> None:
        super().__init__(in_features, groups * out_features, bias=False)
        self.groups = groups

    def forward(self, x_BTGI: Tensor) -> Tensor:
        return torch.einsum("btgi,goi->btgo", x_BTGI, self.weight.unflatten(0, (self.groups, -1)))


class Attention(nn.Module):
    """One layer's attention. `ratio` 0: sliding window alone; 4: CSA with its indexer; larger: HCA."""

    frequencies: Tensor

    def __init__(self, config: Config, ratio: int) -> None:
        super().__init__()
        self.config, self.ratio = config, ratio
        self.kept_as = EntryFormat.of_attention(config, torch.float32, fp8=False)
        heads, width, eps = config.num_attention_heads, config.head_dim, config.rms_norm_eps
        self.attn_sink = nn.Parameter(torch.zeros(heads))
        self.wq_a = nn.Linear(config.hidden_size, config.q_lora_rank, bias=False)
        self.q_norm = RMSNorm(config.q_lora_rank, eps)
        self.wq_b = nn.Linear(config.q_lora_rank, heads * width, bias=False)
        self.wkv = nn.Linear(config.hidden_size, width, bias=False)
        self.kv_norm = RMSNorm(width, eps)
        self.wo_a = GroupedLinear(config.o_groups, heads * width // config.o_groups, config.o_lora_rank)
        self.wo_b = nn.Linear(config.o_groups * config.o_lora_rank, config.hidden_size, bias=False)
        if ratio:
            self.compressor = Compressor(config.hidden_size, width, ratio, ratio == CSA_RATIO, eps)
        if ratio == CSA_RATIO:
            self.indexer = Indexer(config)
        self.register_buffer("frequencies", rope_frequencies(config, compressed=ratio > 0), persistent=False)

    def keep_in_fp8(self) -> None:
        """Round entries from now on as the released model does: `entries.py`."""
        self.kept_as = EntryFormat.of_attention(self.config, torch.float32, fp8=True)
        if self.ratio:
            self.compressor.kept_as = self.kept_as
        if self.ratio == CSA_RATIO:
            self.indexer.compressor.kept_as = EntryFormat.of_indexer(self.config, torch.float32, fp8=True)

    def empty_state(self, batch: int, like: Tensor) -> LayerState:
        return LayerState(
            like.new_zeros(batch, 0, self.config.head_dim),
            torch.zeros(batch, 0, dtype=torch.int64, device=like.device),
            self.compressor.empty_state(batch, like) if self.ratio else None,
            self.indexer.compressor.empty_state(batch, like) if self.ratio == CSA_RATIO else None,
        )

    def forward(
        self, x_BTH: Tensor, tokens: Tokens, state: LayerState, trace: list[AttentionTrace] | None = None
    ) -> tuple[Tensor, LayerState]:
        """Attend from T new tokens to what `state` keeps and to each other; returns [B, T, H] and the next state."""
        turns = rotations(tokens.positions_BT, self.frequencies)
        rank_BTQ = self.q_norm(self.wq_a(x_BTH))
        query_BTAD = self.wq_b(rank_BTQ).unflatten(-1, (self.config.num_attention_heads, -1))
        query_BTAD = rotate(rms_normalise(query_BTAD, self.config.rms_norm_eps), turns[:, :, None])
        new_BTD = self.kept_as.rounded(rotate(self.kv_norm(self.wkv(x_BTH)), turns))

        keys_BKD = torch.cat([state.window_BWD, new_BTD], dim=1)
        at_BR = torch.cat([state.window_positions_BW, tokens.positions_BT], dim=1)
        seen_BTK = (at_BR[:, None] >= tokens.first_BT[..., None]) & (at_BR[:, None] <= tokens.last_BT[..., None])
        window = self.config.sliding_window
        state = LayerState(keys_BKD[:, -window:], at_BR[:, -window:], state.compressed, state.index)
        scores_BTE = None
        if state.compressed is not None:
            state, scores_BTE = self._compress(x_BTH, rank_BTQ, turns, tokens, state)
            assert state.compressed is not None
            keys_BKD = torch.cat([keys_BKD, state.compressed.entries_BED], dim=1)
            seen_BTK = torch.cat([seen_BTK, self._visible_entries(tokens, state.compressed, scores_BTE)], dim=2)

        out_BTAD, probabilities = self._attend(query_BTAD, keys_BKD, seen_BTK)
        if trace is not None:
            trace.append(AttentionTrace(probabilities, at_BR, scores_BTE))
        grouped = rotate(out_BTAD, turns.conj()[:, :, None]).flatten(2).unflatten(-1, (self.config.o_groups, -1))
        return self.wo_b(self.wo_a(grouped).flatten(2)), state

    def _compress(
        self, x_BTH: Tensor, rank_BTQ: Tensor, turns: Tensor, tokens: Tokens, state: LayerState
    ) -> tuple[LayerState, Tensor | None]:
        """Feed the compressors; returns the state with the new entries and the indexer's scores of all entries."""
        assert state.compressed is not None
        compressed = self.compressor(x_BTH, tokens.positions_BT, state.compressed, self.frequencies)
        index, scores = state.index, None
        if index is not None:
            index = self.indexer.compressor(x_BTH, tokens.positions_BT, index, self.frequencies)
            scores = self.indexer(x_BTH, rank_BTQ, turns, index.entries_BED)
        return LayerState(state.window_BWD, state.window_positions_BW, compressed, index), scores

    def _visible_entries(self, tokens: Tokens, compressed: CompressorState, scores_BTE: Tensor | None) -> Tensor:
        """Which entries [B, T, E] each token sees: finished strictly before it ends, and in CSA the best by score."""
        finished_BT1 = ((tokens.positions_BT + 1) // self.ratio)[..., None]
        visible_BTE = compressed.numbers_BE[:, None] < finished_BT1
        if scores_BTE is None or visible_BTE.shape[2] <= self.config.index_topk:
            return visible_BTE
        best = best_entries(scores_BTE.masked_fill(~visible_BTE, float("-inf")), self.config.index_topk)
        best = torch.zeros_like(visible_BTE).scatter(2, best, True)
        return visible_BTE & best

    def _attend(self, query_BTAD: Tensor, keys_BKD: Tensor, seen_BTK: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax in fp32 over the keys seen and the head's sink, which takes weight and gives nothing."""
        logits = torch.einsum("btad,bkd->batk", query_BTAD, keys_BKD).float() * self.config.head_dim**-0.5
        logits = logits.masked_fill(~seen_BTK[:, None], float("-inf"))
        sink = self.attn_sink.float()[None, :, None, None].expand(*logits.shape[:3], 1)
        probabilities = torch.cat([logits, sink], dim=-1).softmax(dim=-1)[..., :-1]
        return torch.einsum("batk,bkd->btad", probabilities.to(keys_BKD.dtype), keys_BKD), probabilities
