"""One layer over packed tokens: torch's products, and between them the loops of `kernels/`, over the cache in place.

Shapes: N tokens of a share, B sequences, R rows (tokens whose outputs are wanted), S streams, H hidden, A heads,
D head width, Q the query's low rank, X experts, k experts a token, I their inner width, G output groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import CSA_RATIO, Indexer
from .cache import EntryPool, LayerPool
from .compression import Compressor
from .experts import Expert
from .kernels import attention, experts, streams
from .kernels.arithmetic import normalise_heads, rms_norm, rotate, swiglu
from .language_model import Layer

Array = np.ndarray


@dataclass(frozen=True)
class Pass:
    """A share of one pass: tokens [N] one after the other, and of its B sequences where they lie."""

    ids: Array
    positions: Array
    sequence_of: Array  # [N]
    offsets: Array  # [B + 1]
    starts: Array
    slots: Array
    table: Array  # [B, pages]
    first: Array  # [N]
    last: Array
    every_row: Array  # arange(N)
    wanted_rows: Array  # [R]
    turns: dict[bool, tuple[Array, Array]]  # cos and sin [N, r]: of sliding layers, and of compressed ones


class PackedLayer:
    """One layer's weights, those that read the same input stacked, and its place in the cache."""

    def __init__(self, layer: Layer, pool: LayerPool) -> None:
        attn = layer.attn
        self.config, self.attn, self.ratio = layer.config, attn, attn.ratio
        self.compressed, self.frequencies = attn.ratio > 0, attn.frequencies.numpy()
        self.raw, self.no_entries = pool.raw.numpy(), np.zeros((1, 1, self.config.head_dim), np.float32)
        self.compressors = [Compression(attn.compressor, pool.compressed)] if pool.compressed else []
        readers, ranked = [attn.wq_a.weight, attn.wkv.weight], [attn.wq_b.weight]
        self.indexer: Indexer | None = attn.indexer if self.ratio == CSA_RATIO else None
        if self.indexer is not None:
            assert pool.index is not None
            self.compressors.append(Compression(self.indexer.compressor, pool.index))
            self.weights_at = sum(map(len, readers))
            readers.append(self.indexer.weights_proj.weight)
            ranked.append(self.indexer.wq_b.weight)
        for one in self.compressors:
            one.kv_at = sum(map(len, readers))
            one.gate_at = one.kv_at + len(one.module.wkv.weight)
            readers += [one.module.wkv.weight, one.module.wgate.weight]
        self.readers, self.ranked = torch.cat(readers), torch.cat(ranked)
        self.groups = attn.wo_a.weight.unflatten(0, (attn.wo_a.groups, -1)).transpose(1, 2).contiguous()  # [G, in, out]
        numbers = (attn.q_norm.weight, attn.kv_norm.weight, attn.attn_sink)
        self.q_norm, self.kv_norm, self.sink = (tensor.detach().numpy() for tensor in numbers)
        self.open_attn = _arrays(layer.hc_attn_fn, layer.hc_attn_base, layer.hc_attn_scale, layer.attn_norm.weight)
        self.open_ffn = _arrays(layer.hc_ffn_fn, layer.hc_ffn_base, layer.hc_ffn_scale, layer.ffn_norm.weight)
        self.experts = Experts(layer)
        self.eps = np.float32(self.config.rms_norm_eps)

    def __call__(self, kept_NSH: Tensor, batch: Pass, rows: Array) -> Tensor:
        read_NH, post, mix = self._open(kept_NSH, self.open_attn)
        out_RH = self._attend(read_NH, batch, rows)
        if len(rows) < len(kept_NSH):
            kept_NSH, post, mix = kept_NSH[rows], post[rows], mix[rows]
        streams.close_block(kept_NSH.numpy(), out_RH.numpy(), post, mix)
        read_RH, post, mix = self._open(kept_NSH, self.open_ffn)
        streams.close_block(kept_NSH.numpy(), self.experts(read_RH, batch.ids[rows]).numpy(), post, mix)
        return kept_NSH

    def _open(self, kept_NSH: Tensor, weights: tuple[Array, ...]) -> tuple[Tensor, Array, Array]:
        tokens, count, hidden = kept_NSH.shape
        read_NH = torch.empty(tokens, hidden)
        post, mix = np.empty((tokens, count), np.float32), np.empty((tokens, count, count), np.float32)
        iterations, hc_eps = self.config.hc_sinkhorn_iters, np.float32(self.config.hc_eps)
        streams.open_block(kept_NSH.numpy(), *weights, hc_eps, self.eps, iterations, read_NH.numpy(), post, mix)
        return read_NH, post, mix

    def _attend(self, x_NH: Tensor, batch: Pass, rows: Array) -> Tensor:
        config, heads, width = self.config, self.config.num_attention_heads, self.config.head_dim
        cos, sin = batch.turns[self.compressed]
        projected = F.linear(x_NH, self.readers)
        keys = np.empty((len(x_NH), width), np.float32)
        rms_norm(projected.numpy(), config.q_lora_rank, self.kv_norm, self.eps, keys)
        rotate(keys, 0, 1, width, cos, sin)
        for one in self.compressors:
            attention.compress(
                projected.numpy(), one.kv_at, one.gate_at, one.ape, one.norm, self.eps, self.frequencies, self.ratio,
                one.module.overlap, batch.offsets, batch.starts, batch.slots, batch.table, one.page_tokens,
                one.sums, one.before, one.entries,
            )  # fmt: skip
        rank_RQ = torch.empty(len(rows), config.q_lora_rank)
        chosen_rows = projected if len(rows) == len(x_NH) else projected[rows]
        rms_norm(chosen_rows.numpy(), 0, self.q_norm, self.eps, rank_RQ.numpy())
        query = F.linear(rank_RQ, self.ranked).numpy()
        turns = (cos, sin) if len(rows) == len(x_NH) else (cos[rows], sin[rows])
        normalise_heads(query, heads, width, self.eps)
        rotate(query, 0, heads, width, *turns)
        entries, chosen, counts = self._choose_entries(query, projected, batch, rows, turns)
        out = torch.empty(len(rows), heads * width)
        attention.attend(
            query, heads, keys, rows, batch.positions, batch.first, batch.last, batch.sequence_of, batch.offsets,
            batch.starts, batch.slots, self.raw, batch.table, entries, chosen, counts, self.sink,
            np.float32(width**-0.5), cos, sin, out.numpy(),
        )  # fmt: skip
        attention.keep(keys, batch.offsets, batch.starts, batch.slots, self.raw)
        inner = heads * width // len(self.groups)
        low_rank = [out[:, g * inner : (g + 1) * inner] @ weight for g, weight in enumerate(self.groups)]
        return F.linear(torch.cat(low_rank, dim=1), self.attn.wo_b.weight)

    def _choose_entries(
        self, query: Array, projected: Tensor, batch: Pass, rows: Array, turns: tuple[Array, Array]
    ) -> tuple[Array, Array, Array]:
        """The layer's pages, and which of its sequence's entries each row sees: numbers [R, count], how many [R]."""
        if not self.compressors:
            return self.no_entries, np.empty((len(rows), 0), np.int64), np.zeros(len(rows), np.int64)
        entries = self.compressors[0].entries
        if self.indexer is None:
            return entries, np.empty((len(rows), 0), np.int64), (batch.positions[rows] + 1) // self.ratio
        heads, width = self.indexer.num_heads, self.indexer.head_dim
        at = self.config.num_attention_heads * self.config.head_dim
        rotate(query, at, heads, width, *turns)
        chosen, counts = np.zeros((len(rows), self.config.index_topk), np.int64), np.empty(len(rows), np.int64)
        attention.select(
            query, at, heads, projected.numpy(), self.weights_at, np.float32(heads**-0.5 * width**-0.5), rows,
            batch.positions, batch.sequence_of, batch.table, self.compressors[1].entries, self.ratio,
            self.config.index_topk, chosen, counts,
        )  # fmt: skip
        return entries, chosen, counts


class Compression:
    """One compressor's weights, its part of the cache, and where its projections are among the layer's."""

    kv_at: int
    gate_at: int

    def __init__(self, module: Compressor, pool: EntryPool) -> None:
        self.module, self.page_tokens = module, pool.ratio * pool.page_entries
        self.ape, self.norm = _arrays(module.ape, module.norm.weight)
        self.sums, self.before, self.entries = pool.sums.numpy(), pool.before.numpy(), pool.entries.numpy()


class Experts:
    """The routed experts' products by runs of sorted visits, and the shared one."""

    def __init__(self, layer: Layer) -> None:
        self.config, self.gate = layer.config, layer.ffn.gate
        every: list[Expert] = [layer.ffn.shared_experts]
        for expert in layer.ffn.experts:
            assert isinstance(expert, Expert), f"a {type(expert).__name__} among the experts"
            every.append(expert)
        self.first = [torch.cat([expert.w1.weight, expert.w3.weight]).T for expert in every]  # of [H, 2I]
        self.second = [expert.w2.weight.T for expert in every]
        self.bias, self.bias_vl = _arrays(self.gate.bias, self.gate.bias_vl)
        k = self.config.num_experts_per_tok
        self.table = self.gate.tid2eid.numpy() if self.gate.hashed else np.zeros((1, k), np.int64)

    def __call__(self, x_NH: Tensor, ids: Array) -> Tensor:
        tokens, k = len(x_NH), self.config.num_experts_per_tok
        logits = F.linear(x_NH, self.gate.weight).numpy()
        chosen, visit_of = np.empty((tokens, k), np.int64), np.empty((tokens, k), np.int64)
        weights, counts = np.empty((tokens, k), np.float32), np.empty(len(self.first) - 1, np.int64)
        factor = np.float32(self.config.routed_scaling_factor)
        experts.route(
            logits, ids, self.config.vocab_size, self.bias, self.bias_vl, self.table, self.gate.hashed, factor,
            chosen, weights, counts,
        )  # fmt: skip
        # The shared expert is the last run: everybody visits it.
        visitors = torch.empty(tokens * (k + 1), x_NH.shape[1])
        experts.sort_visits(x_NH.numpy(), chosen, counts, visit_of, visitors.numpy())
        visitors[tokens * k :] = x_NH
        runs = [*enumerate(counts.tolist(), start=1), (0, tokens)]
        both = torch.empty(len(visitors), self.first[0].shape[1])
        self._by_runs(visitors, self.first, runs, both)
        inner = torch.empty(len(visitors), both.shape[1] // 2)
        swiglu(both.numpy(), np.float32(self.config.swiglu_limit), inner.numpy())
        self._by_runs(inner, self.second, runs, visitors)
        out = visitors[tokens * k :]
        experts.add_routed(out.numpy(), visitors.numpy(), visit_of, weights)
        return out

    @staticmethod
    def _by_runs(x: Tensor, weights: list[Tensor], runs: list[tuple[int, int]], out: Tensor) -> None:
        """out = x @ weight, for each run of rows the weight of its expert."""
        start = 0
        for number, count in runs:
            if count:
                torch.mm(x[start : start + count], weights[number], out=out[start : start + count])
            start += count


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
