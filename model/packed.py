"""The fast runner for a CPU: the tokens of all sequences in one row, no padding, prefill and decode in one pass.

Products are torch's, one for each matrix; everything between them is a loop compiled by numba (`kernels/`), which reads
and writes the cache where it lies. Each core has a thread of its own with a share of the sequences, from embeddings to
logits: they meet once a pass.

Shapes: N tokens of a share, B sequences, R rows (tokens whose outputs are wanted), S streams, H hidden, A heads,
D head width, Q the query's low rank, X experts, k experts a token, I their inner width, G output groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import CSA_RATIO, Indexer
from .cache import Cache, LayerPool
from .compression import Compressor
from .experts import Expert
from .kernels import attention, experts, streams
from .kernels.arithmetic import normalise_heads, rms_norm, rotate, swiglu
from .language_model import Layer
from .packed_vision import PackedVision
from .runner import Feed, Picture
from .vision_language_model import VisionLanguageModel

Array = np.ndarray

PATCH_COST = 0.5  # of a patch in the tower, in tokens through the layers


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


class PackedRunner:
    """See the module. ValueError never: what it can't run, `runner_of` gives to the dense runner."""

    def __init__(self, model: VisionLanguageModel, cache: Cache, threads: int) -> None:
        self.model, self.cache, self.config = model, cache, model.config
        self.vision = PackedVision(model)
        self.layers = [PackedLayer(layer, pool) for layer, pool in zip(model.each_layer(), cache.layers, strict=True)]
        self._frequencies = {layer.compressed: layer.frequencies for layer in self.layers}
        head = (model.hc_head_fn, model.hc_head_base, model.hc_head_scale, model.norm.weight)
        self._head = tuple(tensor.detach().numpy() for tensor in head)
        # One core a thread: torch's own threads would wait for each other many times a layer.
        self._threads = ThreadPoolExecutor(threads, "pass", initializer=torch.set_num_threads, initargs=(1,))
        self._shares = threads

    def run(self, feeds: Sequence[Feed]) -> Tensor:
        shares = split(feeds, self._shares)
        running = [self._threads.submit(self._run, [feeds[number] for number in share]) for share in shares]
        wait(running)
        logits: list[tuple[int, Tensor]] = []
        for share, done in zip(shares, running, strict=True):
            logits += zip((number for number in share if feeds[number].wanted), done.result(), strict=True)
        for feed in feeds:
            feed.sequence.length += len(feed.ids)
        rows = [row for _, row in sorted(logits, key=lambda item: item[0])]
        return torch.stack(rows) if rows else torch.zeros(0, self.config.vocab_size)

    def close(self) -> None:
        self._threads.shutdown()

    @torch.inference_mode()
    def _run(self, feeds: list[Feed]) -> Tensor:
        pictures = {id(feed.picture): feed.picture for feed in feeds if feed.picture is not None}
        self.vision.see([picture for picture in pictures.values() if picture.features is None])
        batch = self._pack(feeds)
        kept = self._embed(feeds, batch)[:, None].repeat(1, self.config.hc_mult, 1)  # [N, S, H]
        for layer in self.layers[:-1]:
            kept = layer(kept, batch, batch.every_row)
        # In the last layer the other tokens leave their raw and compressed entries, and nobody reads more of them.
        kept = self.layers[-1](kept, batch, batch.wanted_rows)
        hidden = torch.empty(len(kept), self.config.hidden_size)
        eps = np.float32(self.config.hc_eps), np.float32(self.config.rms_norm_eps)
        streams.collapse(kept.numpy(), *self._head, *eps, hidden.numpy())
        return self.model.head(hidden)

    def _embed(self, feeds: list[Feed], batch: Pass) -> Tensor:
        seen = [feed.picture.features for feed in feeds if feed.picture and feed.picture.features is not None]
        ids_BT = torch.from_numpy(batch.ids)[None]
        return self.model.embed_prompt(ids_BT, torch.cat(seen)[None] if seen else None)[0]

    def _pack(self, feeds: list[Feed]) -> Pass:
        config, sequences = self.config, [feed.sequence for feed in feeds]
        ids = np.array([token for feed in feeds for token in feed.ids], np.int64)
        lengths = np.array([len(feed.ids) for feed in feeds])
        offsets = np.concatenate([[0], lengths.cumsum()])
        starts = np.array([sequence.length for sequence in sequences])
        sequence_of = np.repeat(np.arange(len(feeds)), lengths)
        every_row = np.arange(len(ids))
        positions = every_row - offsets[sequence_of] + starts[sequence_of]
        first, last = np.empty_like(ids), np.empty_like(ids)
        window, farthest = config.sliding_window, config.vision_max_n_token
        attention.reach(ids, positions, config.vocab_size, window, farthest, first, last)
        turns = {}
        for compressed, frequencies in self._frequencies.items():
            angles = torch.from_numpy(positions)[:, None].float() * frequencies
            turns[compressed] = angles.cos().numpy(), angles.sin().numpy()
        wanted = offsets[1:][[feed.wanted for feed in feeds]] - 1
        table = self.cache.page_table(sequences, int((starts + lengths).max())).numpy()
        slots = np.array([sequence.slot for sequence in sequences])
        return Pass(
            ids, positions, sequence_of, offsets, starts, slots, table, first, last, every_row, wanted, turns
        )  # fmt: skip


def split(feeds: Sequence[Feed], shares: int) -> list[list[int]]:
    """The numbers of the feeds in shares of about equal work, those of one picture together, none empty."""
    groups: dict[int, list[int]] = {}
    for number, feed in enumerate(feeds):
        groups.setdefault(id(feed.picture if feed.picture is not None else feed), []).append(number)
    costs = {key: sum(len(feeds[number].ids) for number in members) for key, members in groups.items()}
    for key, (number, *_) in groups.items():
        picture: Picture | None = feeds[number].picture
        if picture is not None and picture.features is None:
            costs[key] += int(len(picture.patches) * PATCH_COST)
    parts: list[list[int]] = [[] for _ in range(shares)]
    loads = [0] * shares
    for key in sorted(groups, key=costs.__getitem__, reverse=True):
        lightest = loads.index(min(loads))
        parts[lightest] += groups[key]
        loads[lightest] += costs[key]
    return [part for part in parts if part]


class PackedLayer:
    """One layer's weights, those that read the same input stacked, and its place in the cache."""

    def __init__(self, layer: Layer, pool: LayerPool) -> None:
        attn = layer.attn
        self.config, self.attn, self.pool, self.ratio = layer.config, attn, pool, attn.ratio
        self.compressed, self.frequencies = attn.ratio > 0, attn.frequencies
        self.compressors = [Compression(attn.compressor)] if self.compressed else []
        readers, ranked = [attn.wq_a.weight, attn.wkv.weight], [attn.wq_b.weight]
        self.indexer: Indexer | None = attn.indexer if self.ratio == CSA_RATIO else None
        if self.indexer is not None:
            self.compressors.append(Compression(self.indexer.compressor))
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
        for one, pool in zip(self.compressors, self.pool.pools, strict=True):
            attention.compress(
                projected.numpy(), one.kv_at, one.gate_at, one.ape, one.norm, self.eps, one.frequencies(self),
                self.ratio, one.module.overlap, batch.offsets, batch.starts, batch.slots, batch.table,
                pool.ratio * pool.page_entries, pool.sums.numpy(), pool.before.numpy(), pool.entries.numpy(),
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
            batch.starts, batch.slots, self.pool.raw.numpy(), batch.table, entries, chosen, counts, self.sink,
            np.float32(width**-0.5), cos, sin, out.numpy(),
        )  # fmt: skip
        attention.keep(keys, batch.offsets, batch.starts, batch.slots, self.pool.raw.numpy())
        inner = heads * width // len(self.groups)
        low_rank = [out[:, g * inner : (g + 1) * inner] @ weight for g, weight in enumerate(self.groups)]
        return F.linear(torch.cat(low_rank, dim=1), self.attn.wo_b.weight)

    def _choose_entries(
        self, query: Array, projected: Tensor, batch: Pass, rows: Array, turns: tuple[Array, Array]
    ) -> tuple[Array, Array, Array]:
        """The layer's pages, and which of its sequence's entries each row sees: numbers [R, count], how many [R]."""
        if self.pool.compressed is None:
            none = np.zeros((1, 1, self.config.head_dim), np.float32)
            return none, np.empty((len(rows), 0), np.int64), np.zeros(len(rows), np.int64)
        entries = self.pool.compressed.entries.numpy()
        if self.indexer is None or self.pool.index is None:
            return entries, np.empty((len(rows), 0), np.int64), (batch.positions[rows] + 1) // self.ratio
        heads, width = self.indexer.num_heads, self.indexer.head_dim
        at = self.config.num_attention_heads * self.config.head_dim
        rotate(query, at, heads, width, *turns)
        chosen, counts = np.zeros((len(rows), self.config.index_topk), np.int64), np.empty(len(rows), np.int64)
        attention.select(
            query, at, heads, projected.numpy(), self.weights_at, np.float32(heads**-0.5 * width**-0.5), rows,
            batch.positions, batch.sequence_of, batch.table, self.pool.index.entries.numpy(), self.ratio,
            self.config.index_topk, chosen, counts,
        )  # fmt: skip
        return entries, chosen, counts


class Compression:
    """One compressor's weights, and where its projections are among the layer's."""

    kv_at: int
    gate_at: int

    def __init__(self, module: Compressor) -> None:
        self.module = module
        self.ape, self.norm = _arrays(module.ape, module.norm.weight)

    def frequencies(self, layer: PackedLayer) -> Array:
        return layer.frequencies.numpy()


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
