"""The dense heads beside a checkpoint: whoever answers does not need them, whoever goes on training begins with them.

They lie in a folder of their own, where a checkpoint's loader does not look.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .dense import MOST_PATCHES, MOST_PLACES
from .facts import CHARACTERS, DIRECTIONS, NOUNS
from .supervised import Student

HEADS = Path("training") / "heads.safetensors"  # in a checkpoint's folder
_PREFIXES = ("patch_head.", "cell_head.", "detail_head.")
# What the heads' rows stand for: those of other classes would be noise.
_MEANING = hashlib.sha256(repr((NOUNS, CHARACTERS, DIRECTIONS, MOST_PLACES, MOST_PATCHES)).encode()).hexdigest()[:16]


def save_heads(student: Student, checkpoint: Path) -> None:
    """Write a student's heads, in bf16, into the folder of its checkpoint."""
    path = checkpoint / HEADS
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in _heads_of(student).items()}
    save_file(tensors, path, {"classes": _MEANING})


def inherit_heads(student: Student, checkpoint: Path) -> bool:
    """Begin with the heads in the folder of a checkpoint; False where it has none, or of other classes or shapes."""
    path = checkpoint / HEADS
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        if file.metadata().get("classes") != _MEANING:
            return False
    ours, theirs = _heads_of(student), load_file(path)
    if {name: tensor.shape for name, tensor in ours.items()} != {name: tensor.shape for name, tensor in theirs.items()}:
        return False
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])
    return True


def _heads_of(student: Student) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in student.state_dict().items() if name.startswith(_PREFIXES)}
