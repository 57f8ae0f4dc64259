"""A checkpoint of random weights with every mechanism in it: it talks nonsense, but quickly."""

from __future__ import annotations

from pathlib import Path

import torch

from model.config import Config
from model.prompt import Tokenizer
from model.training import tokenizer
from model.training.initialise import initialise
from model.vision_language_model import VisionLanguageModel
from model.weights import save


def make_tiny_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    tokens = Tokenizer(folder)
    config = Config(
        vocab_size=tokens.vocab_size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        head_dim=16,
        qk_rope_head_dim=8,
        q_lora_rank=16,
        o_lora_rank=16,
        o_groups=2,
        sliding_window=8,
        compress_ratios=(0, 4, 8),
        index_n_heads=2,
        index_head_dim=16,
        index_topk=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        num_hash_layers=1,
        hc_mult=2,
        rope_scaling=None,
        max_position_embeddings=4096,
        vision_n_layers=1,
        vision_dim=16,
        vision_n_heads=2,
        vision_inter_dim=32,
        vision_min_pixels=84 * 84,
        vision_max_n_token=64,
        rms_norm_eps=1e-6,
    )
    model = VisionLanguageModel(config)
    initialise(model, list(tokens.number_ids), seed=0)
    save(model, folder, torch.float32)
    return folder
