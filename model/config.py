"""The official config.json keys, read once into one frozen dataclass.

The defaults are the released DeepSeek-V4-Flash-Vision-Exp configuration, so this file is also the specification.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

Frame = Literal["image", "canvas"]

# Keys of released config files that the native model has no use for: the draft layers, the quantisation of the
# shards, bookkeeping of other libraries. Any other unknown key is an error.
FOREIGN_KEYS = frozenset(
    (
        *("architectures", "attention_bias", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id"),
        *("dtype", "torch_dtype", "expert_dtype", "hidden_act", "initializer_range", "model_type", "use_cache"),
        *("num_key_value_heads", "num_nextn_predict_layers", "quantization_config", "tie_word_embeddings"),
        *("transformers_version", "topk_method", "norm_topk_prob", "scoring_func", "rope_type", "note"),
        *("dspark_block_size", "dspark_markov_rank", "dspark_noise_token_id", "dspark_target_layer_ids"),
    )
)


@dataclass(frozen=True)
class RopeScaling:
    """YaRN, as the CSA and HCA layers use it. `factor` stretches `original_max_position_embeddings` positions."""

    type: Literal["yarn"] = "yarn"
    factor: float = 16.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    original_max_position_embeddings: int = 65536


@dataclass(frozen=True)
class Config:
    """One checkpoint's shape. Names and defaults are the released model's (reference: its config.json)."""

    vocab_size: int = 129280
    hidden_size: int = 4096
    num_hidden_layers: int = 43
    num_attention_heads: int = 64
    head_dim: int = 512
    qk_rope_head_dim: int = 64
    q_lora_rank: int = 1024
    o_lora_rank: int = 1024
    o_groups: int = 8
    sliding_window: int = 128
    compress_ratios: tuple[int, ...] = (0, 0) + (4, 128) * 20 + (4,)
    index_n_heads: int = 64
    index_head_dim: int = 128
    index_topk: int = 512
    n_routed_experts: int = 256
    n_shared_experts: int = 1
    num_experts_per_tok: int = 6
    moe_intermediate_size: int = 2048
    num_hash_layers: int = 3
    routed_scaling_factor: float = 1.5
    swiglu_limit: float = 10.0
    hc_mult: int = 4
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6
    rms_norm_eps: float = 1e-20
    rope_theta: float = 10000.0
    compress_rope_theta: float = 160000.0
    rope_scaling: RopeScaling | None = RopeScaling()
    max_position_embeddings: int = 1048576
    vision_n_layers: int = 32
    vision_dim: int = 1024
    vision_n_heads: int = 16
    vision_inter_dim: int = 2816
    vision_patch_size: int = 14
    vision_rope_theta: float = 10000.0
    vision_downsample_ratio: int = 3
    vision_max_n_token: int = 384
    vision_min_pixels: int = 147456
    vision_max_wh_ratio: int = 8
    # Ours, not the official file's: what the numbers 0..999 of a primitive span. "image" is the image as it was
    # given, "canvas" the padded canvas that the ViT sees. The reference leaves it open; each checkpoint says.
    primitive_frame: Frame = "image"

    def __post_init__(self) -> None:
        layers = len(self.compress_ratios)
        checks = {
            "num_hidden_layers": (self.num_hidden_layers == layers, f"compress_ratios names {layers} layers"),
            "num_attention_heads": (
                self.num_attention_heads % self.o_groups == 0,
                f"must be a multiple of o_groups = {self.o_groups}",
            ),
            "qk_rope_head_dim": (
                self.qk_rope_head_dim % 2 == 0 and self.qk_rope_head_dim <= min(self.head_dim, self.index_head_dim),
                f"must be even and fit head_dim = {self.head_dim} and index_head_dim = {self.index_head_dim}",
            ),
            "num_experts_per_tok": (
                self.num_experts_per_tok <= self.n_routed_experts,
                f"must not pass n_routed_experts = {self.n_routed_experts}",
            ),
            "compress_ratios": (
                all(ratio == 0 or ratio >= 4 for ratio in self.compress_ratios),
                "each is 0 (sliding only), 4 (CSA) or larger (HCA)",
            ),
            "n_shared_experts": (self.n_shared_experts == 1, "the architecture has exactly one"),
            "vision_dim": (
                self.vision_n_layers == 0 or self.vision_dim % (4 * self.vision_n_heads) == 0,
                f"each of its vision_n_heads = {self.vision_n_heads} heads must split into 4 for 2-D rotary positions",
            ),
            "primitive_frame": (self.primitive_frame in ("image", "canvas"), "must be 'image' or 'canvas'"),
        }
        for key, (good, wanted) in checks.items():
            if not good:
                raise ValueError(f"config.json: {key} = {getattr(self, key)!r}: {wanted}")

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Config:
        """Translate the content of an official config.json. Unknown keys and unsupported variants are `ValueError`s."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(raw) - known - FOREIGN_KEYS)
        if unknown:
            raise ValueError(f"config.json: unknown key {unknown[0]!r}; remove it, or check its spelling")
        if raw.get("scoring_func", "sqrtsoftplus") != "sqrtsoftplus":
            raise ValueError(f"config.json: scoring_func = {raw['scoring_func']!r}; only 'sqrtsoftplus' is supported")
        values = {key: value for key, value in raw.items() if key in known}
        if "compress_ratios" in values:
            # The official list goes on with one item for each draft layer, which the backbone does not have.
            depth = values.get("num_hidden_layers", cls.num_hidden_layers)
            values["compress_ratios"] = tuple(values["compress_ratios"][:depth])
        if isinstance(values.get("rope_scaling"), dict):
            values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
        if "vision_n_layers" not in values:
            values["vision_n_layers"] = 0  # a text-only checkpoint has no vision keys at all
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> Config:
        """Read `config.json` (the file, or the checkpoint folder that holds it)."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"no config.json at {path}; give a checkpoint folder")
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """The keys as config.json holds them, with the two that make other tools recognise the family."""
        head = {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4"}
        fixed = {"scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc", "norm_topk_prob": True}
        return head | asdict(self) | fixed
