"""A small configuration with every mechanism in use, and models of it with random weights."""

from __future__ import annotations

import torch

from model.config import Config, RopeScaling
from model.vision_language_model import VisionLanguageModel

TINY = Config(
    vocab_size=3456,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=4,
    head_dim=16,
    qk_rope_head_dim=8,
    q_lora_rank=24,
    o_lora_rank=12,
    o_groups=2,
    sliding_window=12,
    compress_ratios=(0, 4, 16, 4),
    index_n_heads=8,
    index_head_dim=8,
    index_topk=3,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=24,
    num_hash_layers=1,
    hc_mult=2,
    hc_sinkhorn_iters=4,
    rms_norm_eps=1e-6,
    rope_scaling=RopeScaling(factor=16, original_max_position_embeddings=64),
    max_position_embeddings=4096,
    vision_n_layers=2,
    vision_dim=32,
    vision_n_heads=4,
    vision_inter_dim=48,
    vision_max_n_token=32,
    vision_min_pixels=28224,
)


def tiny_model(config: Config, seed: int = 0) -> VisionLanguageModel:
    """A model in which every weight is random and matters, biases and sinks too."""
    torch.manual_seed(seed)
    model = VisionLanguageModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight") or ".norm1." in name or ".norm2." in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif parameter.ndim == 2 and "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 1.2 * parameter.shape[1] ** -0.5)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model.eval().requires_grad_(False)
