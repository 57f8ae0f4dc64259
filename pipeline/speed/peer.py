"""transformers' model of the same language weights: the oracle of the tests, the peer of the benchmark.

transformers is not needed to run, so it is imported where it is used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.config import Config
from model.vision_language_model import VisionLanguageModel

if TYPE_CHECKING:
    from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

# Official name -> transformers' name; each pattern meets what those before it made.
RENAMES = (
    (r"^embed\.", "model.embed_tokens."),
    (r"^head\.", "lm_head."),
    (r"^norm\.", "model.norm."),
    (r"^hc_head_(fn|base|scale)$", r"model.hc_head.hc_\1"),
    (r"^layers\.", "model.layers."),
    (r"\.hc_(attn|ffn)_(fn|base|scale)$", r".\1_hc.\2"),
    (r"\.attn_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.attn\.indexer\.compressor\.", ".self_attn.compressor.indexer."),
    (r"\.attn\.indexer\.weights_proj\.", ".self_attn.compressor.indexer.scorer.weights_proj."),
    (r"\.attn\.indexer\.wq_b\.", ".self_attn.compressor.indexer.q_b_proj."),
    (r"\.attn\.attn_sink$", ".self_attn.sinks"),
    (r"\.attn\.", ".self_attn."),
    (r"\.ffn\.gate\.bias$", ".mlp.gate.e_score_correction_bias"),
    (r"\.ffn\.shared_experts\.w1\.", ".mlp.shared_experts.gate_proj."),
    (r"\.ffn\.shared_experts\.w2\.", ".mlp.shared_experts.down_proj."),
    (r"\.ffn\.shared_experts\.w3\.", ".mlp.shared_experts.up_proj."),
    (r"\.ffn\.", ".mlp."),
    (r"\.wq_a\.", ".q_a_proj."),
    (r"\.q_norm\.", ".q_a_norm."),
    (r"\.wq_b\.", ".q_b_proj."),
    (r"\.wkv\.", ".kv_proj."),
    (r"\.wgate\.", ".gate_proj."),
    (r"\.wo_a\.", ".o_a_proj."),
    (r"\.wo_b\.", ".o_b_proj."),
    (r"\.ape$", ".position_bias"),
    (r"(compressor\.(?:indexer\.)?)norm\.", r"\1kv_norm."),
)
_OURS_ALONE = ("architectures", "primitive_frame", "compress_ratios")
_ATTENTION = {0: "sliding_attention", 4: "compressed_sparse_attention"}
_HCA = "heavily_compressed_attention"
_UNUSED_HCA_RATE = 128  # transformers wants a rate for every kind of layer, also for one that no layer is of


def peer_of(model: VisionLanguageModel) -> DeepseekV4ForCausalLM:
    """transformers' model of `model`'s language weights, on the CPU in fp32, ready to generate.

    ValueError when transformers is not installed, or when two HCA layers have different ratios, which it can't express.
    """
    try:
        import transformers
    except ImportError:
        raise ValueError("transformers is not installed: pip install -e .[dev]") from None
    transformers.logging.set_verbosity_error()
    peer = transformers.DeepseekV4ForCausalLM(_config_of(model.config)).eval()
    given = _weights_of(model)
    assert set(given) == set(peer.state_dict()), set(given) ^ set(peer.state_dict())
    peer.load_state_dict(given)
    # It generates as many tokens as it is asked for: nothing ends a response early, nothing is masked.
    peer.generation_config.eos_token_id = None
    peer.generation_config.pad_token_id = 0
    return peer


@torch.inference_mode()
def peer_generate(peer: DeepseekV4ForCausalLM, ids_BP: Tensor, new_tokens: int) -> Tensor:
    """transformers' `generate`: `new_tokens` greedy tokens [B, new_tokens] after B prompts of one length, cached."""
    generator: Any = peer  # its own annotations forbid what they describe
    ids_BT = generator.generate(
        ids_BP,
        attention_mask=torch.ones_like(ids_BP),
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        do_sample=False,
        use_cache=True,
    )
    assert isinstance(ids_BT, Tensor), type(ids_BT)
    return ids_BT[:, ids_BP.shape[1] :]


def _config_of(config: Config) -> DeepseekV4Config:
    from transformers import DeepseekV4Config

    hca = {ratio for ratio in config.compress_ratios if ratio not in _ATTENTION}
    if len(hca) > 1:
        raise ValueError(f"transformers has one HCA ratio for all layers, got {sorted(hca)}; use one")
    raw = config.to_dict()
    raw = {key: value for key, value in raw.items() if key not in _OURS_ALONE and not key.startswith("vision_")}
    if raw["rope_scaling"] is not None:
        raw["rope_scaling"] = {**raw["rope_scaling"], "rope_type": "yarn"}
    experts = ["hash_moe" if index < config.num_hash_layers else "moe" for index in range(config.num_hidden_layers)]
    return DeepseekV4Config(
        **raw,
        layer_types=[_ATTENTION.get(ratio, _HCA) for ratio in config.compress_ratios],
        compress_rates={_ATTENTION[4]: 4, _HCA: max(hca, default=_UNUSED_HCA_RATE)},
        mlp_layer_types=experts,
    )


def _weights_of(model: VisionLanguageModel) -> dict[str, Tensor]:
    """The language weights under transformers' names, its experts stacked."""
    config = model.config
    given: dict[str, Tensor] = {}
    stacks: dict[tuple[int, str], dict[int, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.cpu().float() if tensor.is_floating_point() else tensor.cpu()
        if name.startswith(("vision.", "aligner.", "image_")) or name.endswith("bias_vl"):
            continue
        if name.endswith("gate.bias") and int(name.split(".")[1]) < config.num_hash_layers:
            continue
        expert = re.fullmatch(r"layers\.(\d+)\.ffn\.experts\.(\d+)\.(w[123])\.weight", name)
        if expert:
            stacks.setdefault((int(expert[1]), expert[3]), {})[int(expert[2])] = tensor
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        given[name] = tensor
    for layer in range(config.num_hidden_layers):
        w1, w2, w3 = (
            torch.stack([stacks[layer, part][number] for number in range(config.n_routed_experts)])
            for part in ("w1", "w2", "w3")
        )
        given[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.cat([w1, w3], dim=1)
        given[f"model.layers.{layer}.mlp.experts.down_proj"] = w2
    return given
