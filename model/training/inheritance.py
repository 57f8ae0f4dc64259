"""A model that begins with what another has learnt: other vocabulary, other compression, the same widths."""

from __future__ import annotations

from pathlib import Path

import torch

from .. import weights
from ..attention import CSA_RATIO
from ..prompt import Tokenizer
from ..vision_language_model import VisionLanguageModel

_BY_TOKEN = ("embed.weight", "head.weight")


@torch.no_grad()
def inherit(model: VisionLanguageModel, tokenizer: Tokenizer, parent_folder: str | Path) -> list[str]:
    """Copy into `model` all that the checkpoint in `parent_folder` has in the same shape; returns what it has not.

    Rows that belong to tokens go by the tokens' text. A layer that compresses otherwise than the parent's begins with
    entries that are the means of their tokens' keys.
    """
    parent = weights.load(parent_folder)
    theirs, ours = parent.state_dict(), model.state_dict()
    known, old = _meanings(tokenizer), _meanings(Tokenizer(parent_folder))
    mine, their_rows = torch.tensor([(known[meaning], old[meaning]) for meaning in known if meaning in old]).T
    missing: list[str] = []
    for name, tensor in ours.items():
        changed = _layer_of(name) is not None and _ratio(model, name) != _ratio(parent, name)
        if name in _BY_TOKEN or name.endswith("tid2eid"):
            tensor[mine] = theirs[name][their_rows]
        elif name in theirs and theirs[name].shape == tensor.shape and not (changed and "compressor" in name):
            tensor.copy_(theirs[name])
        else:
            missing.append(name)
    for ours_layer, theirs_layer in zip(model.each_layer(), parent.each_layer(), strict=True):
        attention = ours_layer.attn
        if attention.ratio and attention.ratio != theirs_layer.attn.ratio:
            compressor = attention.compressor
            copies = 2 if attention.ratio == CSA_RATIO else 1
            compressor.wkv.weight.copy_(attention.wkv.weight.repeat(copies, 1))
            compressor.wgate.weight.mul_(0.1)
            compressor.ape.zero_()
            compressor.norm.weight.copy_(attention.kv_norm.weight)
    return missing


def _meanings(tokenizer: Tokenizer) -> dict[bytes | str, int]:
    """The id of each token by what it stands for: bytes, or the name of a special one."""
    ordinary = {spelled: token for token, spelled in tokenizer.ordinary_tokens().items()}
    return ordinary | {tokenizer.decode([token]): token for token in tokenizer.special_ids}


def _layer_of(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "layers" else None


def _ratio(model: VisionLanguageModel, name: str) -> int:
    layer = _layer_of(name)
    assert layer is not None, name
    return model.config.compress_ratios[layer]
