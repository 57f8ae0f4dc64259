"""Checkpoint folders: official tensor names in safetensors, to a model and back. Never pickle, never remote code.

The released format holds most matrices in FP8 and the routed experts in FP4, each with its `.scale`; the names and
types of reference section 2. Tensors are read one at a time, a few rows at a time, straight into their target type.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from safetensors.torch import save_file
from torch import Tensor

from .checkpoint import INDEX, KINDS, Stored, contents, shards, write_shards
from .config import Config
from .prompt import IMAGE
from .quantization import (
    FP8_BLOCK,
    TARGETS,
    dequantize_fp4,
    dequantize_fp8,
    fp4_scale_shape,
    fp8_scale_shape,
    quantize_fp4,
    quantize_fp8,
)
from .vision_language_model import VisionLanguageModel

# Kept in fp32 whatever the type of the rest, as in the official checkpoint: small, and sensitive.
WIDE = ("hc_", "attn_sink", ".ape", "gate.bias")
DRAFT = "mtp."  # the draft layers of speculative decoding, which the native model has no use for
_FP8_MATRIX = re.compile(
    r"layers\.\d+\.(attn\.(wq_a|wq_b|wkv|wo_a|wo_b|indexer\.wq_b)|ffn\.shared_experts\.w[123])\.weight"
)
_FP4_MATRIX = re.compile(r"layers\.\d+\.ffn\.experts\.\d+\.w[123]\.weight")
_CHUNK_BYTES = 1 << 22  # of a tensor as it is stored: what is read before it is converted
_SHARD_BYTES = 5_000_000_000
_ONE_FILE = "model.safetensors"


@dataclass(frozen=True)
class _Source:
    """Where one tensor of the model comes from: as it is stored, and the scales of a quantised one."""

    weight: Stored
    scale: Stored | None


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    packed_experts: bool = False,
) -> VisionLanguageModel:
    """The model of a checkpoint folder (`config.json`, `*.safetensors`), in `dtype` on `device`, ready to answer.

    FP8 and FP4 matrices become `dtype`, exactly; with `packed_experts` the routed experts stay in FP4 and are
    dequantised as they are hit. Every tensor is used exactly once, draft layers (`mtp.*`) are passed by and counted in
    `skipped_draft_tensors`; a missing, unknown or misshapen tensor or scale is a `ValueError` with its name, before any
    weight is read. `image_id` is the image placeholder of the folder's tokenizer.json, if it has one.
    """
    if dtype not in TARGETS:
        raise ValueError(f"can't load weights as {dtype}; use one of {', '.join(map(str, TARGETS))}")
    folder = Path(folder)
    config = Config.from_file(folder)
    with torch.device("meta"):
        model = VisionLanguageModel(config)
        if packed_experts:
            for layer in model.each_layer():
                layer.ffn.pack()
    wanted = dict(model.state_dict())
    stored = contents(folder)
    draft = [name for name in stored if name.startswith(DRAFT)]
    sources = _match(folder, wanted, {name: stored[name] for name in stored if name not in set(draft)}, config)
    given: dict[str, Tensor] = {}
    for name, empty in wanted.items():
        kind = _kind(name, dtype) if empty.is_floating_point() else empty.dtype
        given[name] = torch.empty(empty.shape, dtype=kind, device=device)
        if name in sources:
            _fill(given[name], sources[name])
        else:
            given[name].zero_()
    model.load_state_dict(given, assign=True)
    model.to(device)  # what no checkpoint holds, the rotations' frequencies
    model.skipped_draft_tensors = len(draft)
    model.image_id = _placeholder(folder)
    return model.eval().requires_grad_(False)


def save(
    model: VisionLanguageModel,
    folder: str | Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    released: bool = False,
    max_shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Write `config.json` and the weights under official names; the sensitive tensors stay in fp32.

    One file of `dtype`, or with `released` the format of the released checkpoint: its FP8 and FP4 matrices quantised,
    the rest in `dtype`, in shards of at most `max_shard_bytes` with their index. ValueError when the experts are
    packed, or when the folder holds shards that the new ones would not replace.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(tensor.dtype == torch.uint8 for tensor in model.state_dict().values()):
        raise ValueError("the experts are packed: load the checkpoint without packed_experts to save it")
    stale = sorted(path.name for path in folder.glob("*.safetensors") if released or path.name != _ONE_FILE)
    if stale or (folder / INDEX).exists():
        raise ValueError(f"{folder} holds other weights ({(stale or [INDEX])[0]}); give an empty folder")
    document = model.config.to_dict()
    if released:
        document["expert_dtype"] = "fp4"
        document["quantization_config"] = {
            "quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "activation_scheme": "dynamic",
            "weight_block_size": [FP8_BLOCK, FP8_BLOCK],
        }  # fmt: skip
        write_shards(folder, _released(model, dtype), max_shard_bytes)
    else:
        tensors = {name: _plain(name, tensor, dtype) for name, tensor in model.state_dict().items()}
        save_file(tensors, folder / _ONE_FILE)
    (folder / "config.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def revision(folder: str | Path) -> str:
    """A hash of the weights: SHA-256 over the shards' bytes, 16 hex digits."""
    digest = hashlib.sha256()
    for path in shards(Path(folder)):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _kind(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if any(part in name for part in WIDE) else dtype


def _plain(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(_kind(name, dtype) if tensor.is_floating_point() else tensor.dtype).contiguous()


def _released(model: VisionLanguageModel, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a released checkpoint, each quantised as its turn comes."""
    for name, tensor in model.state_dict().items():
        narrow = quantize_fp4 if _FP4_MATRIX.fullmatch(name) else None
        quantize = quantize_fp8 if _FP8_MATRIX.fullmatch(name) else narrow
        if quantize is None:
            yield name, _plain(name, tensor, dtype)
            continue
        try:
            weight, scale = quantize(tensor.detach().cpu())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        yield name, weight
        yield _scale_of(name), scale


def _scale_of(name: str) -> str:
    return name.removesuffix("weight") + "scale"


def _match(folder: Path, wanted: dict[str, Tensor], stored: dict[str, Stored], config: Config) -> dict[str, _Source]:
    """Pair each tensor of the model with its source and check kinds and shapes; nothing may be left over."""
    optional = {f"layers.{index}.ffn.gate.bias" for index in range(config.num_hash_layers)}  # not used when hashed
    missing: list[tuple[str, tuple[int, ...]]] = []
    sources: dict[str, _Source] = {}
    rest = dict(stored)
    for name, empty in wanted.items():
        found = rest.pop(name, None)
        if found is None:
            if name not in optional:
                missing.append((name, tuple(empty.shape)))
            continue
        shape, scale_shape = _stored_shapes(folder, name, found, empty)
        _check_shape(folder, name, found, shape)
        scale = None
        if scale_shape is not None:
            scale = rest.pop(_scale_of(name), None)
            if scale is None:
                missing.append((_scale_of(name), scale_shape))
            else:
                _check_scale(folder, _scale_of(name), scale, scale_shape)
        sources[name] = _Source(found, scale)
    if missing:
        name, shape = sorted(missing)[0]
        raise ValueError(
            f"{folder}: {name} is missing ({len(missing)} tensors in all), wanted with shape {list(shape)}; "
            "fetch all shards, and check that config.json is this checkpoint's"
        )
    if rest:
        name = min(rest)
        raise ValueError(
            f"{folder}: unknown tensor {name} of shape {list(rest[name].shape)}; this architecture has no such weight "
            f"({len(rest)} in all): remove it, or check that config.json is this checkpoint's"
        )
    return sources


def _stored_shapes(
    folder: Path, name: str, found: Stored, empty: Tensor
) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """Shapes that a tensor and its scale, if it needs one, must have in the file to become `empty`."""
    shape = tuple(empty.shape)
    kind = KINDS[found.kind]
    if empty.dtype == torch.uint8:  # a packed matrix or its scale, which is a tensor of the model then
        fits = found.kind == ("F8_E8M0" if name.endswith(".scale") else "I8")
    elif empty.is_floating_point():
        if found.kind == "F8_E4M3" and len(shape) == 2:
            return shape, fp8_scale_shape(*shape)
        if found.kind == "I8" and len(shape) == 2 and shape[1] % 2 == 0:
            return (shape[0], shape[1] // 2), fp4_scale_shape(*shape)
        fits = kind.is_floating_point and kind.itemsize > 1
    else:
        fits = found.kind in ("I64", "I32")
    if not fits:
        target = "packed FP4 (without packed_experts any type loads)" if empty.dtype == torch.uint8 else empty.dtype
        raise ValueError(
            f"{folder}: {name} is stored as {found.kind} {list(found.shape)}, which can't become {target} {list(shape)}"
        )
    return shape, None


def _check_shape(folder: Path, name: str, found: Stored, wanted: tuple[int, ...]) -> None:
    if found.shape != wanted:
        raise ValueError(
            f"{folder}: {name} has shape {list(found.shape)} as {found.kind}, wanted {list(wanted)}; "
            "check that config.json is this checkpoint's"
        )


def _check_scale(folder: Path, name: str, found: Stored, wanted: tuple[int, int]) -> None:
    _check_shape(folder, name, found, wanted)
    if found.kind != "F8_E8M0":
        raise ValueError(f"{folder}: {name} is stored as {found.kind}, wanted F8_E8M0 {list(wanted)}; convert it again")


def _fill(target: Tensor, source: _Source) -> None:
    """Read, convert and place a tensor, in blocks of rows that are whole rows of FP8 blocks."""
    weight = source.weight
    if not target.ndim:
        target.copy_(weight.rows(0, 1))
        return
    rows = target.shape[0]
    row_bytes = KINDS[weight.kind].itemsize * math.prod(weight.shape[1:])
    step = max(_CHUNK_BYTES // max(row_bytes, 1) // FP8_BLOCK, 1) * FP8_BLOCK
    for first in range(0, rows, step):
        stop = min(first + step, rows)
        block = weight.rows(first, stop)
        if source.scale is not None and weight.kind == "F8_E4M3":
            scale = source.scale.rows(first // FP8_BLOCK, -(-stop // FP8_BLOCK))
            block = dequantize_fp8(block, scale, target.dtype)
        elif source.scale is not None:
            block = dequantize_fp4(block, source.scale.rows(first, stop), target.dtype)
        elif target.dtype == torch.uint8:
            block = block.view(torch.uint8)  # packed codes and scales as they are: a cast would change them
        target[first:stop].copy_(block)


def _placeholder(folder: Path) -> int | None:
    """Id of the image placeholder in the folder's tokenizer.json, if there is one and it has one."""
    path = folder / "tokenizer.json"
    return tokenizers.Tokenizer.from_file(str(path)).token_to_id(IMAGE) if path.is_file() else None
