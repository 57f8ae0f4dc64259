"""Image-text models of eight families, tiny and random, with tokenizers and processors made on the spot.

Each is what transformers makes of such a configuration, saved to a folder as a real checkpoint is: its own vision
tower, its own way to count image tokens, its own processor. Vocabularies are bytes and the family's control tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

# Written out for each family in the manner of its own; DeepSeek-OCR 2 and its kin bring none at all.
_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '\n' }}{% endif %}"
)
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 300,
}
_SIGLIP: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}
_MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}

Made = tuple[Any, Any]  # a model's configuration, a processor


def _tokenizer(*specials: str, **named: str) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(specials),
        extra_special_tokens=named,
    )


def _template(image: str) -> str:
    return _TEMPLATE.replace("IMAGE", image)


def _llama(**more: Any) -> dict[str, Any]:
    return {"model_type": "llama", **_TEXT, **more}


def _deepseek_vl() -> Made:
    tokenizer = _tokenizer(image_token="<image_placeholder>")
    config = t.DeepseekVLConfig(
        text_config=_llama(),
        vision_config={"model_type": "siglip_vision_model", **_SIGLIP},
        image_token_id=tokenizer.image_token_id,
    )
    images = t.DeepseekVLImageProcessor(size={"height": 64, "width": 64})
    template = _template("<image_placeholder>")
    return config, t.DeepseekVLProcessor(images, tokenizer, chat_template=template, num_image_tokens=16)


def _deepseek_vl_hybrid() -> Made:
    tokenizer = _tokenizer(image_token="<image_placeholder>")
    config = t.DeepseekVLHybridConfig(
        text_config=_llama(),
        vision_config={"model_type": "siglip_vision_model", **_SIGLIP},
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 128,
            "patch_size": 16,
            "window_size": 4,
            "global_attn_indexes": [0],
            "mlp_dim": 64,
        },
        image_token_id=tokenizer.image_token_id,
    )
    images = t.DeepseekVLHybridImageProcessor(
        size={"height": 64, "width": 64}, high_res_size={"height": 128, "width": 128}
    )
    template = _template("<image_placeholder>")
    return config, t.DeepseekVLHybridProcessor(images, tokenizer, chat_template=template, num_image_tokens=16)


def _janus() -> Made:
    tokenizer = _tokenizer(image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>")
    config = t.JanusConfig(
        text_config=_llama(),
        vision_config={**_SIGLIP, "projection_dim": 32, "num_image_tokens": 16, "depth": 1},
        vq_config={
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "latent_channels": 32,
            "num_embeddings": 16,
            "projection_dim": 32,
            "image_token_embed_dim": 32,
        },
        image_token_id=tokenizer.image_token_id,
    )
    images = t.JanusImageProcessor(size={"height": 64, "width": 64})
    template = _template("<image_placeholder>")
    return config, t.JanusProcessor(images, tokenizer, chat_template=template, num_image_tokens=16)


def _deepseek_ocr2() -> Made:
    tokenizer = _tokenizer(image_token="<image>")
    sam = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "global_attn_indexes": [],
        "downsample_channels": [16, 32],
        "image_size": 768,
    }
    encoder = {key: value for key, value in _TEXT.items() if key != "head_dim"}
    config = t.DeepseekOcr2Config(
        text_config={
            **_TEXT,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "moe_intermediate_size": 16,
            "mlp_layer_types": ["dense", "sparse"],
        },
        vision_config={"sam_config": sam, "encoder_config": encoder},
        image_token_id=tokenizer.image_token_id,
    )
    images = t.DeepseekOcr2ImageProcessor(size={"height": 768, "width": 768}, tile_size=768)
    return config, t.DeepseekOcr2Processor(images, tokenizer)


def _qwen(
    config_class: Any, processor_class: Any, patch: int, vision: dict[str, Any], text: dict[str, Any] | None = None
) -> Made:
    vision_start, vision_end = "<|vision_start|>", "<|vision_end|>"
    tokenizer = _tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_bos_token=vision_start,
        vision_eos_token=vision_end,
    )
    config = config_class(
        text_config={**_TEXT, "rope_parameters": _MROPE, **(text or {})},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": patch,
            "spatial_merge_size": 2,
            **vision,
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        vision_start_token_id=tokenizer.convert_tokens_to_ids(vision_start),
        vision_end_token_id=tokenizer.convert_tokens_to_ids(vision_end),
    )
    images = t.Qwen2VLImageProcessor(patch_size=patch, min_pixels=4 * patch * patch, max_pixels=10**6)
    template = _template(f"{vision_start}<|image_pad|>{vision_end}")
    videos = t.Qwen2VLVideoProcessor() if patch == 14 else t.Qwen3VLVideoProcessor()
    return config, processor_class(images, tokenizer, videos, chat_template=template)


def _qwen2_5_vl() -> Made:
    vision = {"window_size": 112, "fullatt_block_indexes": [1]}
    return _qwen(t.Qwen2_5_VLConfig, t.Qwen2_5_VLProcessor, 14, vision)


def _qwen2_5_vl_wide() -> Made:
    """With heads of 32 everywhere: vLLM has no attention for fewer."""
    text: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    text |= {"rope_parameters": {**_MROPE, "mrope_section": [4, 6, 6]}, "max_position_embeddings": 4096}
    vision: dict[str, Any] = {"window_size": 112, "fullatt_block_indexes": [1], "hidden_size": 64, "num_heads": 2}
    vision |= {"out_hidden_size": 64}
    return _qwen(t.Qwen2_5_VLConfig, t.Qwen2_5_VLProcessor, 14, vision, text)


def _qwen3_vl() -> Made:
    vision = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return _qwen(t.Qwen3VLConfig, t.Qwen3VLProcessor, 16, vision)


def _internvl() -> Made:
    tokenizer = _tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = t.InternVLConfig(
        text_config={"model_type": "qwen2", **_TEXT},
        vision_config={**_SIGLIP, "image_size": [64, 64], "patch_size": [16, 16]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = t.GotOcr2ImageProcessor(size={"height": 64, "width": 64}, max_patches=4)
    template = _template("<IMG_CONTEXT>")
    return config, t.InternVLProcessor(
        images, tokenizer, t.InternVLVideoProcessor(), image_seq_length=4, chat_template=template
    )


def _gemma3() -> Made:
    tokenizer = _tokenizer(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    config = t.Gemma3Config(
        text_config={**_TEXT, "sliding_window": 64},
        vision_config=_SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.image_token_id,
    )
    images = t.Gemma3ImageProcessor(size={"height": 64, "width": 64})
    template = _template("<start_of_image>")
    return config, t.Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)


FAMILIES: dict[str, Callable[[], Made]] = {
    "deepseek_vl": _deepseek_vl,
    "deepseek_vl_hybrid": _deepseek_vl_hybrid,
    "janus": _janus,
    "deepseek_ocr2": _deepseek_ocr2,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "gemma3": _gemma3,
}


def write_checkpoint(family: str, folder: Path) -> Path:
    """A checkpoint of this family with random weights, the same each time, as transformers saves one."""
    return _written(FAMILIES[family], folder)


def write_checkpoint_for_vllm(folder: Path) -> Path:
    """The same of a Qwen2.5-VL that vLLM can run."""
    return _written(_qwen2_5_vl_wide, folder)


def _written(made: Callable[[], Made], folder: Path) -> Path:
    torch.manual_seed(7)
    config, processor = made()
    tokenizer = processor.tokenizer
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model = t.AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
