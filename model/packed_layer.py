"""One layer over packed tokens: torch's products, and between them the loops of `kernels/`, over the cache in place.

Shapes: N tokens of a share, B sequences, R rows (tokens whose outputs are wanted), S streams, H hidden, A heads,
D head width, Q the query's low rank, X experts, k experts a token, I their inner width, G output groups.
"""

from __future__ import annotations

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
from .kernels.entries import round_rows
from .language_model import Layer
from .packed_attention import Array, Blocks, Pass, Seen, attend, cells

_STEP = 32


class PackedLayer:
    """One layer's weights, those that read the same input stacked, and its place in the cache."""

    def __init__(self, layer: Layer, pool: LayerPool) -> None:
        attn = layer.attn
        self.config, self.attn, self.ratio = layer.config, attn, attn.ratio
        self.dtype = attn.wq_a.weight.dtype
        self.compressed, self.frequencies = attn.ratio > 0, attn.frequencies.numpy()
        self.raw = cells(pool.raw)
        self.no_entries = np.zeros((1, 1, self.raw.shape[2]), self.raw.dtype)
        self.packed = pool.format.fp8
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
        self.readers, self.ranked, self.wo_b = by_input(*readers), by_input(*ranked), by_input(attn.wo_b.weight)
        self.groups = attn.wo_a.weight.unflatten(0, (attn.wo_a.groups, -1)).transpose(1, 2).contiguous()  # [G, in, out]
        self.q_norm, self.kv_norm, self.sink = arrays(attn.q_norm.weight, attn.kv_norm.weight, attn.attn_sink)
        self.open_attn = arrays(layer.hc_attn_fn, layer.hc_attn_base, layer.hc_attn_scale, layer.attn_norm.weight)
        self.open_ffn = arrays(layer.hc_ffn_fn, layer.hc_ffn_base, layer.hc_ffn_scale, layer.ffn_norm.weight)
        self.experts = Experts(layer)
        self.eps = np.float32(self.config.rms_norm_eps)

    def __call__(self, kept_NSH: Tensor, batch: Pass, blocks: Blocks) -> Tensor:
        rows = blocks.rows
        read_NH, post, mix = self._open(kept_NSH, self.open_attn)
        out_RH = self._attend(read_NH, batch, blocks)
        if len(rows) < len(kept_NSH):
            kept_NSH, post, mix = kept_NSH[rows], post[rows], mix[rows]
        streams.close_block(kept_NSH.numpy(), cells(out_RH), post, mix)
        read_RH, post, mix = self._open(kept_NSH, self.open_ffn)
        streams.close_block(kept_NSH.numpy(), self.experts(read_RH, batch.ids[rows]), post, mix)
        return kept_NSH

    def _open(self, kept_NSH: Tensor, weights: tuple[Array, ...]) -> tuple[Tensor, Array, Array]:
        tokens, count, hidden = kept_NSH.shape
        read_NH = rows_of(tokens, hidden, self.dtype)
        post, mix = np.empty((tokens, count), np.float32), np.empty((tokens, count, count), np.float32)
        iterations, hc_eps = self.config.hc_sinkhorn_iters, np.float32(self.config.hc_eps)
        streams.open_block(kept_NSH.numpy(), *weights, hc_eps, self.eps, iterations, cells(read_NH), post, mix)
        return read_NH, post, mix

    def _attend(self, x_NH: Tensor, batch: Pass, blocks: Blocks) -> Tensor:
        config, heads, width = self.config, self.config.num_attention_heads, self.config.head_dim
        rows, tokens = blocks.rows, len(batch.ids)
        cos, sin = batch.turns[self.compressed]
        projected = cells(x_NH @ self.readers)[:tokens]
        keys = torch.empty(tokens, width, dtype=self.dtype)
        rms_norm(projected, config.q_lora_rank, self.kv_norm, self.eps, cells(keys))
        rotate(cells(keys), 0, 1, width, cos, sin)
        if self.packed:
            round_rows(cells(keys), self.raw.shape[2])
        for one in self.compressors:
            attention.compress(
                projected, one.kv_at, one.gate_at, one.ape, one.norm, self.eps, self.frequencies, self.ratio,
                one.module.overlap, batch.offsets, batch.starts, batch.slots, batch.table, one.page_tokens,
                one.sums, one.before, one.entries,
            )  # fmt: skip
        rank_RQ = rows_of(len(rows), config.q_lora_rank, self.dtype)
        rms_norm(projected if len(rows) == tokens else projected[rows], 0, self.q_norm, self.eps, cells(rank_RQ))
        query = cells(rank_RQ @ self.ranked)[: len(rows)]
        turns = (cos, sin) if len(rows) == tokens else (cos[rows], sin[rows])
        normalise_heads(query, heads, width, self.eps)
        rotate(query, 0, heads, width, *turns)
        seen = Seen(keys, self.raw, *self._choose_entries(query, projected, batch, rows, turns))
        out = rows_of(len(rows), heads * width, self.dtype)
        attend(query, seen, self.sink, batch, blocks, (cos, sin), cells(out))
        attention.keep(cells(keys), batch.offsets, batch.starts, batch.rings, batch.span, self.raw)
        inner = heads * width // len(self.groups)
        low_rank = [out[:, g * inner : (g + 1) * inner] @ weight for g, weight in enumerate(self.groups)]
        return torch.cat(low_rank, dim=1) @ self.wo_b

    def _choose_entries(
        self, query: Array, projected: Array, batch: Pass, rows: Array, turns: tuple[Array, Array]
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
            query, at, heads, width, projected, self.weights_at, np.float32(heads**-0.5 * width**-0.5), rows,
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
        self.ape, self.norm = arrays(module.ape, module.norm.weight)
        self.sums, self.before, self.entries = pool.sums.numpy(), pool.before.numpy(), cells(pool.entries)


class Experts:
    """The routed experts' products by runs of sorted visits, and the shared one."""

    def __init__(self, layer: Layer) -> None:
        self.config, self.gate = layer.config, layer.ffn.gate
        every = [*layer.ffn.experts, layer.ffn.shared_experts]
        for expert in every:
            assert isinstance(expert, Expert), f"a {type(expert).__name__} among the experts"
        self.first = [by_input(expert.w1.weight, expert.w3.weight) for expert in every]  # of [H, 2I]
        self.second = [by_input(expert.w2.weight) for expert in every]
        self.bias, self.bias_vl = arrays(self.gate.bias, self.gate.bias_vl)
        k = self.config.num_experts_per_tok
        self.table = self.gate.tid2eid.numpy() if self.gate.hashed else np.zeros((1, k), np.int64)

    def __call__(self, x_NH: Tensor, ids: Array) -> Array:
        """What the experts give each token [N, H], fp32; x [N or more, H]."""
        tokens, k, hidden = len(ids), self.config.num_experts_per_tok, x_NH.shape[1]
        logits = cells(F.linear(x_NH, self.gate.weight))
        chosen, visit_of = np.empty((tokens, k), np.int64), np.empty((tokens, k), np.int64)
        weights, counts = np.empty((tokens, k), np.float32), np.empty(len(self.first) - 1, np.int64)
        factor = np.float32(self.config.routed_scaling_factor)
        experts.route(
            logits, ids, self.config.vocab_size, self.bias, self.bias_vl, self.table, self.gate.hashed, factor,
            chosen, weights, counts,
        )  # fmt: skip
        # The shared expert is the last run: everybody visits it.
        step = step_of(x_NH.dtype)
        ends = (-(-np.append(counts, tokens) // step) * step).cumsum()
        starts = np.append(0, ends[:-1])
        visitors = torch.empty(int(ends[-1]), hidden, dtype=x_NH.dtype)
        experts.sort_visits(cells(x_NH), chosen, starts, visit_of, cells(visitors))
        visitors[starts[-1] :] = x_NH
        runs = [
            (slice(begin, end), number)
            for number, (begin, end) in enumerate(zip(starts, ends, strict=True))
            if end > begin
        ]
        both = torch.empty(len(visitors), self.first[0].shape[1], dtype=x_NH.dtype)
        for run, number in runs:
            torch.mm(visitors[run], self.first[number], out=both[run])
        inner = torch.empty(len(visitors), both.shape[1] // 2, dtype=x_NH.dtype)
        swiglu(cells(both), np.float32(self.config.swiglu_limit), cells(inner))
        for run, number in runs:
            torch.mm(inner[run], self.second[number], out=visitors[run])
        out = np.empty((tokens, hidden), np.float32)
        experts.add_routed(cells(visitors), starts[-1], visit_of, weights, out)
        return out


def step_of(dtype: torch.dtype) -> int:
    """What rows of products are rounded up to: torch generates a bf16 product of a new shape first, a millisecond."""
    return 1 if dtype == torch.float32 else _STEP


def rows_of(count: int, width: int, dtype: torch.dtype) -> Tensor:
    """Room for rows of activations, and for as many more as the step asks."""
    step = step_of(dtype)
    return torch.empty(-(-count // step) * step, width, dtype=dtype)


def by_input(*weights: Tensor) -> Tensor:
    """Weights of the same input, stacked, as [in, out]. In fp32 they are laid out so, which makes products of up to
    some hundred rows 5 to 35 % faster; in bf16 it gains nothing, and the copies would be a second model."""
    stacked = torch.cat(weights) if len(weights) > 1 else weights[0]
    return stacked.T.contiguous() if stacked.dtype == torch.float32 else stacked.T


def arrays(*tensors: Tensor) -> tuple[Array, ...]:
    """Weights for the kernels, in fp32."""
    return tuple(tensor.detach().float().contiguous().numpy() for tensor in tensors)
