"""The text backbone against transformers' DeepseekV4, with the same random weights, in fp32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.config import Config
from pipeline.speed.peer import peer_of
from tests.tiny import TINY, tiny_model

CONFIGS = {
    "every kind of layer, top-k drops entries": replace(TINY, sliding_window=8),
    "no hash layer, four streams, one CSA layer": replace(
        TINY, num_hash_layers=0, hc_mult=4, hc_sinkhorn_iters=20, compress_ratios=(4, 0, 8), num_hidden_layers=3
    ),
    "all sliding, many heads, a window longer than the text": replace(
        TINY, num_attention_heads=8, o_groups=4, sliding_window=128, compress_ratios=(0, 0, 0), num_hidden_layers=3
    ),
    "wide rotary, HCA of 32, six experts by three": replace(
        TINY,
        qk_rope_head_dim=8,
        head_dim=32,
        compress_ratios=(0, 32, 4, 32, 4),
        num_hidden_layers=5,
        n_routed_experts=6,
        num_experts_per_tok=3,
        num_hash_layers=2,
        index_topk=5,
        rms_norm_eps=1e-20,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_text_logits_equal_those_of_transformers(name: str) -> None:
    config: Config = CONFIGS[name]
    model = tiny_model(config, seed=sum(map(ord, name)))
    ids = torch.randint(config.vocab_size, (2, 75), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        hidden, _ = model(model.embed_prompt(ids), ids, torch.arange(75).expand(2, 75), model.empty_state(2))
        ours = model.head(hidden)
        theirs = peer_of(model)(ids, use_cache=False).logits
    assert theirs.std() > 0.1, "the logits are too small to compare"
    assert (ours - theirs).abs().max() <= 1e-4
