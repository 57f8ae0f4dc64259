"""Whole sequences through the model, for training: from position 0 to the end at once, without states or caches.

The same function as `VisionLanguageModel.forward` on a fresh state, written so that `torch.compile` makes few loops of
it: no complex numbers, no data-dependent shapes, every expert run on every token and weighed by 0 where it was not
chosen. Products run in `product_type` (bf16 on a CPU that has instructions for it), everything else in fp32.
Shapes: B sequences, T tokens, S streams, H hidden, A heads, D entry width, E entries, K keys = T raw ones then E, X
experts. Source: reference section 6; `tests/model/training/test_whole.py` holds it to the model's own forward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import CSA_RATIO, Attention, describe_tokens
from ..compression import NOTHING, Compressor
from ..experts import Expert, MixtureOfExperts
from ..hyper_connections import collapse
from ..language_model import Layer
from ..layers import RMSNorm
from ..vision import Aligner, VisionBlock, VisionTransformer, grid_rotations
from ..vision_language_model import VisionLanguageModel
from .mixing import close_streams, open_streams


@dataclass(frozen=True)
class How:
    """How it is run. `sparse`: CSA sees the indexer's best alone; without, every finished entry, whatever its score."""

    product_type: torch.dtype = torch.float32
    compiled: bool = False
    sparse: bool = True


@dataclass(frozen=True)
class Seen:
    """What one layer did: weights [B, A, T, K] over raw keys then entries, the indexer's scores [B, T, E], and how many
    text and image tokens went to each expert [2, X]."""

    weights_BATK: Tensor
    scores_BTE: Tensor | None
    load_2X: Tensor


def linear(x: Tensor, weight: Tensor, product_type: torch.dtype) -> Tensor:
    """A product in `product_type`, given back in fp32."""
    return F.linear(x.to(product_type), weight.to(product_type)).float()


def forward(
    model: VisionLanguageModel, embeddings_BTH: Tensor, ids_BT: Tensor, how: How
) -> tuple[Tensor, list[Seen], list[Tensor]]:
    """Normed hidden states [B, T, H], what each layer did, and the streams [B, T, S, H] after each.

    T must be a multiple of all compression ratios (pad at the end; nothing sees later tokens). `ids_BT` holds
    vocab_size + TokenType inside image spans.
    """
    config, (batch, length) = model.config, ids_BT.shape
    assert all(not ratio or length % ratio == 0 for ratio in config.compress_ratios), (length, config.compress_ratios)
    positions_T = torch.arange(length, device=ids_BT.device)
    tokens = describe_tokens(ids_BT, positions_T.expand(batch, -1), config)
    seen_BTT = (positions_T >= tokens.first_BT[..., None]) & (positions_T <= tokens.last_BT[..., None])
    image_BT1 = (ids_BT >= config.vocab_size)[..., None]
    streams = embeddings_BTH[:, :, None].repeat(1, 1, config.hc_mult, 1)
    layer_of = _compiled_layer() if how.compiled else _layer
    looked: list[Seen] = []
    after: list[Tensor] = []
    for layer in model.each_layer():
        turns = turning(positions_T, layer.attn.frequencies)
        gate = layer.ffn.gate
        hashed_BTX = None
        if gate.hashed:
            chosen_BTk = gate.tid2eid[ids_BT.clamp(max=config.vocab_size - 1)]
            hashed_BTX = F.one_hot(chosen_BTk, config.n_routed_experts).sum(dim=2).bool()
        visible, entry_turns = None, None
        if layer.attn.ratio:
            numbers_E = torch.arange(length // layer.attn.ratio, device=ids_BT.device)
            visible = numbers_E < ((positions_T + 1) // layer.attn.ratio)[:, None]
            entry_turns = turning(numbers_E * layer.attn.ratio, layer.attn.frequencies)
        streams, weights, scores, load = layer_of(
            layer, streams, seen_BTT, image_BT1, turns, visible, entry_turns, hashed_BTX, how.sparse, how.product_type
        )
        looked.append(Seen(weights, scores, load))
        after.append(streams)
    hidden = collapse(streams, model.hc_head_fn, model.hc_head_base, model.hc_head_scale, config)
    return model.norm(hidden), looked, after


def see(model: VisionTransformer, batch_patches: Tensor, seen_BN: Tensor, rows: int, columns: int, how: How) -> Tensor:
    """Patches [B, N, 3 * P * P] on a grid of `rows` x `columns` -> features [B, N, V], as the tower's own forward.

    Only those of `seen_BN` are there; the others are never looked at, and their features are 0, as the aligner pads.
    """
    angles = grid_rotations(rows, columns, model.head_dim, model.theta, batch_patches.device)
    turns = (angles.cos(), angles.sin())
    proj = model.patch_embed.proj
    x_BNV = linear(batch_patches, proj.weight, how.product_type) + proj.bias
    block_of = _compiled_block() if how.compiled else _vision_block
    unseen_B11N = torch.zeros(seen_BN.shape, device=seen_BN.device).masked_fill(~seen_BN, float("-inf"))[:, None, None]
    for block in model.blocks:
        assert isinstance(block, VisionBlock), f"a {type(block).__name__} among the tower's blocks"
        x_BNV = block_of(block, x_BNV, turns, unseen_B11N, how.product_type)
    return model.norm(x_BNV) * seen_BN[..., None]


def align(model: Aligner, features_BNV: Tensor, rows: int, columns: int, how: How) -> Tensor:
    """Features of a grid of whole cells -> image tokens [B, rows * columns, H], row by row."""
    ratio, product_type = model.ratio, how.product_type
    # [B, N, V] -> [B, rows, r, columns, r, V] -> [B, rows, columns, V, r, r], channel-major as the aligner reads it
    grid = features_BNV.unflatten(1, (rows, ratio, columns, ratio)).permute(0, 1, 3, 5, 2, 4)
    cells = grid.flatten(3).flatten(1, 2)
    inner = F.gelu(linear(cells, model.w1.weight, product_type) + model.w1.bias)
    return linear(inner, model.w2.weight, product_type) + model.w2.bias


@functools.cache
def _compiled_layer() -> Callable[..., tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    # One variant for each kind of layer, with gradients, without, and of frozen weights: more than the limit of 8.
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(_layer, dynamic=True)


@functools.cache
def _compiled_block() -> Callable[..., Tensor]:
    return torch.compile(_vision_block, dynamic=True)


Turns = tuple[Tensor, Tensor]  # cosines and sines


def turning(positions: Tensor, frequencies: Tensor) -> Turns:
    """Cosines and sines [positions, R/2] of each rotary pair."""
    angles = positions[:, None].float() * frequencies
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, turns: Turns, back: bool = False) -> Tensor:
    """Turn the last R channels of `x` [.., D] as pairs (2i, 2i+1); `turns` broadcast against [.., R/2]."""
    cos, sin = turns
    width = 2 * cos.shape[-1]
    still, even, odd = x[..., :-width], x[..., -width::2], x[..., -width + 1 :: 2]
    if back:
        sin = -sin
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([still, turned], dim=-1)


def _norm(x: Tensor, norm: RMSNorm) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * norm.weight


def _vision_block(
    block: VisionBlock, x_BNV: Tensor, turns: Turns, unseen_B11N: Tensor, product_type: torch.dtype
) -> Tensor:
    attention, mlp = block.attn, block.mlp
    cos, sin = turns

    def turned(x_BAND: Tensor) -> Tensor:
        first, second = x_BAND.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    qkv = linear(_norm(x_BNV, block.norm1), attention.wqkv.weight, product_type) + attention.wqkv.bias
    q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    # Spelt out, and divided by the sum at the end: half the time of the library's attention on a CPU.
    scaled_BAND = (turned(q) * q.shape[-1] ** -0.5).to(product_type)
    logits_BANN = (scaled_BAND @ turned(k).to(product_type).transpose(2, 3)).float() + unseen_B11N
    grown_BANN = (logits_BANN - logits_BANN.amax(-1, keepdim=True).detach()).exp()
    read_BAND = (grown_BANN.to(product_type) @ v.to(product_type)).float() / grown_BANN.sum(-1, keepdim=True)
    read_BNV = read_BAND.transpose(1, 2).flatten(2)
    x_BNV = x_BNV + linear(read_BNV, attention.wo.weight, product_type) + attention.wo.bias
    gate, up = linear(_norm(x_BNV, block.norm2), mlp.w1.weight, product_type).chunk(2, dim=-1)
    return x_BNV + linear(F.silu(gate) * up, mlp.w2.weight, product_type)


def _layer(
    layer: Layer, streams: Tensor, seen_BTT: Tensor, image_BT1: Tensor, turns: Turns, visible: Tensor | None,
    entry_turns: Turns | None, hashed_BTX: Tensor | None, sparse: bool, product_type: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    read, post, mix = open_streams(streams, layer.hc_attn_fn, layer.hc_attn_base, layer.hc_attn_scale, layer.config)
    read = _norm(read, layer.attn_norm)
    out, weights, scores = _attend(layer.attn, read, seen_BTT, turns, visible, entry_turns, sparse, product_type)
    streams = close_streams(streams, out, post, mix)
    read, post, mix = open_streams(streams, layer.hc_ffn_fn, layer.hc_ffn_base, layer.hc_ffn_scale, layer.config)
    out, load = _experts(layer.ffn, _norm(read, layer.ffn_norm), image_BT1, hashed_BTX, product_type)
    return close_streams(streams, out, post, mix), weights, scores, load


def _attend(
    attn: Attention, x_BTH: Tensor, seen_BTT: Tensor, turns: Turns, visible_TE: Tensor | None,
    entry_turns: Turns | None, sparse: bool, product_type: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    config = attn.config
    heads = config.num_attention_heads
    headed = (turns[0][:, None], turns[1][:, None])
    rank_BTQ = _norm(linear(x_BTH, attn.wq_a.weight, product_type), attn.q_norm)
    query = linear(rank_BTQ, attn.wq_b.weight, product_type).unflatten(-1, (heads, -1))
    query = query * torch.rsqrt(query.square().mean(-1, keepdim=True) + config.rms_norm_eps)
    query_BATD = _rotate(query, headed).transpose(1, 2)
    keys_BKD = _rotate(_norm(linear(x_BTH, attn.wkv.weight, product_type), attn.kv_norm), turns)
    seen_BTK, scores = seen_BTT, None
    if visible_TE is not None:
        assert entry_turns is not None, "a compressing layer needs its entries' positions"
        entries_BED = _compress(attn.compressor, x_BTH, entry_turns, product_type)
        keys_BKD = torch.cat([keys_BKD, entries_BED], dim=1)
        visible = visible_TE.expand(len(x_BTH), -1, -1)
        if attn.ratio == CSA_RATIO:
            scores = _index(attn, x_BTH.detach(), rank_BTQ.detach(), headed, entry_turns, product_type)
            if sparse:
                visible = visible & _best(scores.detach(), visible, config.index_topk)
        seen_BTK = torch.cat([seen_BTT, visible], dim=2)
    keys = keys_BKD.to(product_type)
    logits = (query_BATD.to(product_type).flatten(1, 2) @ keys.transpose(1, 2)).float() * config.head_dim**-0.5
    logits = logits.unflatten(1, (heads, -1)).masked_fill(~seen_BTK[:, None], float("-inf"))
    sink = attn.attn_sink[:, None, None]
    largest = torch.maximum(logits.amax(dim=-1, keepdim=True), sink).detach()
    grown = (logits - largest).exp()
    weights = grown / (grown.sum(dim=-1, keepdim=True) + (sink - largest).exp())
    out_BATD = (weights.to(product_type).flatten(1, 2) @ keys).float().unflatten(1, (heads, -1))
    out_BTAD = _rotate(out_BATD.transpose(1, 2), headed, back=True)
    grouped = out_BTAD.flatten(2).unflatten(-1, (config.o_groups, -1)).to(product_type)
    wo_a = attn.wo_a.weight.unflatten(0, (config.o_groups, -1)).to(product_type)
    low = torch.cat([F.linear(grouped[:, :, g], wo_a[g]) for g in range(config.o_groups)], dim=-1)
    return linear(low, attn.wo_b.weight, product_type), weights, scores


def _compress(compressor: Compressor, x_BTH: Tensor, entry_turns: Turns, product_type: torch.dtype) -> Tensor:
    """All entries [B, E, D] of whole sequences."""
    ratio, width = compressor.ratio, compressor.entry_width
    kv = linear(x_BTH, compressor.wkv.weight, product_type).unflatten(1, (-1, ratio))  # [B, E, m, W]
    gates = linear(x_BTH, compressor.wgate.weight, product_type).unflatten(1, (-1, ratio)) + compressor.ape
    if compressor.overlap:
        # An entry reads Ca of the window before (nothing before the first) and Cb of its own.
        kv = torch.cat([F.pad(kv[:, :-1, :, :width], (0, 0, 0, 0, 1, 0)), kv[..., width:]], dim=2)
        earlier = F.pad(gates[:, :-1, :, :width], (0, 0, 0, 0, 1, 0), value=NOTHING)
        gates = torch.cat([earlier, gates[..., width:]], dim=2)
    pooled = (gates.softmax(dim=2) * kv).sum(dim=2)
    return _rotate(_norm(pooled, compressor.norm), entry_turns)


def _index(
    attn: Attention, x_BTH: Tensor, rank_BTQ: Tensor, headed: Turns, entry_turns: Turns, product_type: torch.dtype
) -> Tensor:
    """The indexer's scores [B, T, E]. Its inputs come detached: it learns to rank and moves nothing else."""
    indexer = attn.indexer
    entries_BED = _compress(indexer.compressor, x_BTH, entry_turns, product_type)
    query = linear(rank_BTQ, indexer.wq_b.weight, product_type).unflatten(-1, (indexer.num_heads, -1))
    query = _rotate(query, headed).transpose(1, 2).flatten(1, 2)  # [B, A * T, D]
    match = (query.to(product_type) @ entries_BED.to(product_type).transpose(1, 2)).float()
    weights_BTA = F.linear(x_BTH, indexer.weights_proj.weight) * (indexer.num_heads**-0.5 * indexer.head_dim**-0.5)
    return (weights_BTA.transpose(1, 2)[..., None] * match.unflatten(1, (indexer.num_heads, -1)).relu()).sum(dim=1)


def _best(scores_BTE: Tensor, visible_BTE: Tensor, count: int) -> Tensor:
    """Which entries [B, T, E] are among the `count` best visible ones; ties at the edge all are."""
    if scores_BTE.shape[2] <= count:
        return visible_BTE
    ranked = scores_BTE.masked_fill(~visible_BTE, float("-inf"))
    return ranked >= ranked.topk(count, dim=2).values[..., -1:]


def _experts(
    ffn: MixtureOfExperts, x_BTH: Tensor, image_BT1: Tensor, hashed_BTX: Tensor | None, product_type: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What the experts say, and how many text and image tokens chose each [2, X]."""
    gate, config = ffn.gate, ffn.gate.config
    scores_BTX = F.softplus(F.linear(x_BTH, gate.weight)).sqrt()
    biased = scores_BTX.detach() + torch.where(image_BT1, gate.bias_vl, gate.bias)
    chosen = biased >= biased.topk(config.num_experts_per_tok, dim=-1).values[..., -1:]
    if hashed_BTX is not None:
        chosen = torch.where(image_BT1, chosen, hashed_BTX)
    weights_BTX = scores_BTX * chosen
    weights_BTX = weights_BTX / (weights_BTX.sum(dim=-1, keepdim=True) + 1e-20) * config.routed_scaling_factor
    experts = [expert for expert in (*ffn.experts, ffn.shared_experts) if isinstance(expert, Expert)]
    w1, w3 = (torch.cat([expert.get_parameter(f"{name}.weight") for expert in experts]) for name in ("w1", "w3"))
    gates, ups = linear(x_BTH, w1, product_type), linear(x_BTH, w3, product_type)
    limit = config.swiglu_limit
    inner = (F.silu(gates.clamp(max=limit)) * ups.clamp(-limit, limit)).unflatten(-1, (len(experts), -1))
    weighed = torch.cat([inner[..., :-1, :] * weights_BTX[..., None], inner[..., -1:, :]], dim=-2)
    w2 = torch.cat([expert.w2.weight for expert in experts], dim=1)  # one product adds the experts up
    load = torch.stack([(chosen & ~image_BT1).sum(dim=(0, 1)), (chosen & image_BT1).sum(dim=(0, 1))])
    return linear(weighed.flatten(2), w2, product_type), load
