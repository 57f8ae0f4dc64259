"""Checkpoint folders: official tensor names in safetensors, to a model and back. Never pickle, never remote code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import Config
from .layers import rope_frequencies
from .vision_language_model import VisionLanguageModel

# Kept in fp32 whatever the type of the rest, as in the official checkpoint: small, and sensitive.
WIDE = ("hc_", "attn_sink", ".ape", "gate.bias")


def load(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> VisionLanguageModel:
    """The model of a checkpoint folder (`config.json`, `*.safetensors`), in `dtype` on `device`, ready to answer.

    Every tensor is used exactly once; a missing, unknown or misshapen one is a `ValueError` with its name.
    """
    config = Config.from_file(folder)
    with torch.device("meta"):
        model = VisionLanguageModel(config)
    wanted = dict(model.state_dict())
    given: dict[str, Tensor] = {}
    for name, tensor in _tensors(Path(folder)):
        if name not in wanted:
            raise ValueError(f"{folder}: unknown tensor {name}; this architecture has no such weight")
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{folder}: {name} has shape {list(tensor.shape)}, wanted {list(wanted[name].shape)}")
        kind = torch.float32 if any(part in name for part in WIDE) else dtype
        given[name] = tensor.to(device=device, dtype=kind if tensor.is_floating_point() else tensor.dtype)
    optional = {f"layers.{index}.ffn.gate.bias" for index in range(config.num_hash_layers)}  # not used when hashed
    missing = sorted(set(wanted) - set(given) - optional)
    if missing:
        raise ValueError(f"{folder}: {missing[0]} is missing ({len(missing)} tensors in all)")
    for name in optional - set(given):
        given[name] = torch.zeros(wanted[name].shape, device=device)
    model.load_state_dict(given, assign=True)
    _fill_buffers(model, config, torch.device(device))
    return model.eval().requires_grad_(False)


def save(model: VisionLanguageModel, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write `config.json` and `model.safetensors` under official names; the sensitive tensors stay in fp32."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in model.state_dict().items():
        kind = torch.float32 if any(part in name for part in WIDE) else dtype
        tensors[name] = tensor.detach().to(kind if tensor.is_floating_point() else tensor.dtype).contiguous()
    save_file(tensors, folder / "model.safetensors")
    text = json.dumps(model.config.to_dict(), indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def revision(folder: str | Path) -> str:
    """A hash of the weights: SHA-256 over the shards' bytes, 16 hex digits."""
    digest = hashlib.sha256()
    for path in _shards(Path(folder)):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _shards(folder: Path) -> list[Path]:
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ValueError(f"no *.safetensors in {folder}; give a checkpoint folder")
    return shards


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    seen: set[str] = set()
    for path in _shards(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name in seen:
                    raise ValueError(f"{folder}: {name} is in two shards")
                seen.add(name)
                yield name, file.get_tensor(name)


def _fill_buffers(model: VisionLanguageModel, config: Config, device: torch.device) -> None:
    """Make the buffers that no checkpoint holds, which the meta device left empty."""
    for layer in model.each_layer():
        layer.attn.frequencies = rope_frequencies(config, compressed=layer.attn.ratio > 0).to(device)
