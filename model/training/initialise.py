"""Where a model starts before it has learnt anything."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..vision_language_model import VisionLanguageModel

COORDINATE_SCALE = 0.05  # of the Fourier features beside the random part of the numbers' head rows
EMBEDDING_STD = 0.7  # as large as what the first layers add: a word that drowns in the residual is never asked about
BLOCK_SCALE = 0.3  # of the blocks' output matrices


@torch.no_grad()
def initialise(model: VisionLanguageModel, number_ids: list[int], seed: int) -> None:
    """Random weights that keep activations at unit size, deterministic in `seed`.

    The integers' embeddings and head rows start as Fourier features of their value, so that neighbours are alike:
    coordinates are then learnt by their nearness, not one by one.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(model.embed.weight, std=EMBEDDING_STD, generator=generator)
    for mark in (model.image_start, model.image_pad, model.image_newline, model.image_end):
        nn.init.normal_(mark, std=EMBEDDING_STD, generator=generator)
    for layer in model.each_layer():
        for expert in (layer.ffn.shared_experts, *layer.ffn.experts):
            expert.get_submodule("w2").get_parameter("weight").mul_(BLOCK_SCALE)
        nn.init.normal_(layer.ffn.gate.weight, std=model.config.hidden_size**-0.5, generator=generator)
        # Each block starts as an ordinary residual one: reads the mean of the streams, writes to all, mixes little.
        for name in ("attn", "ffn"):
            _plain_residual(layer, name, model.config.hc_mult, generator)
        layer.attn.wo_b.weight.mul_(BLOCK_SCALE)
    model.hc_head_base.fill_(math.log(1 / (model.config.hc_mult - 1)) if model.config.hc_mult > 1 else 4.0)
    model.hc_head_scale.fill_(0.1)
    nn.init.normal_(model.head.weight, std=0.02, generator=generator)
    features = _fourier(len(number_ids), model.config.hidden_size)
    model.embed.weight[number_ids] = 0.5 * model.embed.weight[number_ids] + EMBEDDING_STD * features
    model.head.weight[number_ids] += COORDINATE_SCALE * features


def _plain_residual(layer: nn.Module, name: str, streams: int, generator: torch.Generator) -> None:
    base = torch.zeros((2 + streams) * streams)
    # Streams that start alike stay alike, since their gradients are the same: read and write them unevenly.
    uneven = 0.5 * torch.randn(2 * streams, generator=generator)
    if streams > 1:
        base[:streams] = math.log(1 / (streams - 1))  # sigmoid -> 1 / streams
    base[: 2 * streams] += uneven
    base[2 * streams :] = 3.0 * torch.eye(streams).flatten()
    layer.get_parameter(f"hc_{name}_base").copy_(base)
    layer.get_parameter(f"hc_{name}_scale").fill_(0.1)


def _fourier(count: int, width: int) -> torch.Tensor:
    """Features [count, width] of the values 0..count-1: sines and cosines from one turn over all to one in four."""
    waves = torch.logspace(0, math.log2(count / 4), width // 2, base=2.0)
    angles = torch.arange(count)[:, None] / count * waves[None] * 2 * math.pi
    return torch.cat([angles.sin(), angles.cos()], dim=1)
