"""The safetensors files of a checkpoint folder: where each tensor lies, its rows, and shards with their index.

Files are read with plain reads at the offsets that their headers give, a few rows at a time: a mapped file's pages
would count as memory of ours, and a released shard is 3.5 GB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"
# The names that safetensors headers give to types; any other kind of tensor has no place in a checkpoint of ours.
KINDS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Stored:
    """One tensor in a shard: its kind (a key of KINDS), its shape, and the byte where it starts."""

    shard: Path
    kind: str
    shape: tuple[int, ...]
    start: int

    def rows(self, first: int, stop: int) -> Tensor:
        """Rows `first` to `stop` of the first axis, as stored; the tensor itself when it has no axes."""
        shape = (stop - first, *self.shape[1:]) if self.shape else ()
        dtype = KINDS[self.kind]
        row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
        buffer = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8)
        with self.shard.open("rb", buffering=0) as file:
            file.seek(self.start + first * row_bytes)
            into, done = memoryview(buffer.numpy().data), 0
            while done < len(into):
                count = file.readinto(into[done:])
                if not count:
                    raise ValueError(f"{self.shard}: the file ended while it was read; was it replaced meanwhile?")
                done += count
        return buffer.view(dtype).view(shape)


def shards(folder: Path) -> list[Path]:
    """The folder's safetensors files; ValueError when it has none, with what it has instead."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled:
            raise ValueError(
                f"no *.safetensors in {folder}, only {pickled[0]}: pickle files can run code and are never opened; "
                "convert them to safetensors"
            )
        raise ValueError(f"no *.safetensors in {folder}; give a checkpoint folder")
    return found


def contents(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint folder by name: of the shards that its index names, or of all without an index.

    ValueError for a shard that is missing or damaged, for a tensor that is not where the index says, or is there twice.
    """
    index = _index(folder) if (folder / INDEX).is_file() else None
    if index is None:
        paths = shards(folder)
    else:
        shards(folder)  # refuses a folder without any
        paths = [folder / shard for shard in sorted(set(index.values()))]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{folder}: {INDEX} names the shard {path.name}, which is missing; fetch it again")
    found: dict[str, Stored] = {}
    for path in paths:
        for name, stored in _header(path).items():
            if name in found:
                raise ValueError(f"{folder}: {name} is in two shards, {found[name].shard.name} and {path.name}")
            if index is not None and index.get(name) != path.name:
                where = f"says {index[name]}" if name in index else "does not name it"
                raise ValueError(f"{folder}: {path.name} holds {name}, but {INDEX} {where}; write the index again")
            found[name] = stored
    lost = sorted(set(index or ()) - set(found))
    if index is not None and lost:
        shard = index[lost[0]]
        raise ValueError(f"{folder}: {INDEX} says that {lost[0]} is in {shard}, which does not hold it; fetch it again")
    return found


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> None:
    """Write tensors in order to shards of at most `max_shard_bytes` (or one tensor, if larger), and their index."""
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes = {max_shard_bytes}: must be at least 1")
    parts: list[tuple[Path, list[str]]] = []
    pending: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        path = folder / f"part-{len(parts)}"
        save_file(pending, path)
        parts.append((path, list(pending)))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > max_shard_bytes:
            flush()
            size = 0
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(parts, 1):
        shard = f"model-{number:05}-of-{len(parts):05}.safetensors"
        path.rename(folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _index(folder: Path) -> dict[str, str]:
    """The index's map from tensor to shard; a shard's name must not lead out of the folder."""
    try:
        weight_map: Any = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map")
    except (json.JSONDecodeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder}: {INDEX} is not a JSON object ({error}); fetch it again") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{folder}: {INDEX} has no weight_map; fetch it again, or remove it to read every shard")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(f"{folder}: {INDEX} puts {name} in {shard!r}; only safetensors of the folder are read")
    return weight_map


def _header(path: Path) -> dict[str, Stored]:
    """What a shard's header says it holds: 8 bytes of length, JSON, then the bytes of the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{path}: not a safetensors file, or cut short; fetch it again")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            return {name: _stored(path, name, about, 8 + length, size) for name, about in header.items()}
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: its header is not a safetensors header ({error!r}); fetch it again") from error


def _stored(path: Path, name: str, about: dict[str, Any], data: int, size: int) -> Stored:
    kind, shape, (start, stop) = about["dtype"], tuple(map(int, about["shape"])), about["data_offsets"]
    if kind not in KINDS:
        raise ValueError(f"{path}: {name} has type {kind}; a checkpoint has {', '.join(KINDS)}")
    if min(shape, default=0) < 0 or not 0 <= start <= stop or stop - start != math.prod(shape) * KINDS[kind].itemsize:
        raise ValueError(f"{path}: {name} of {kind} {list(shape)} does not fill bytes {start} to {stop}")
    if data + stop > size:
        raise ValueError(f"{path}: cut short, {name} should end at byte {data + stop} of {size}; fetch it again")
    return Stored(path, kind, shape, data + start)
