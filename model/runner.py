"""One pass of the model over more tokens of many sequences: what the engine asks for, and who can do it.

Two runners give the same logits: `PackedRunner` (CPU, fp32, fast: all tokens in one row, loops compiled by numba) and
`DenseRunner` (any device and type, slow and obvious: rectangles of equal length, with the model's own forward).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .cache import Cache, CachedSequence
from .experts import PackedLinear
from .image import Geometry
from .vision_language_model import VisionLanguageModel


@dataclass(eq=False)
class Picture:
    """One image, for all the requests in flight that show it: patches [N, 3, P, P], and once seen, features [C, H]."""

    geometry: Geometry
    patches: Tensor
    features: Tensor | None = None


@dataclass(eq=False)
class Feed:
    """More tokens of one sequence, after those that the cache holds of it.

    `picture` is what the image span in `ids` shows; a span is never cut. Without `wanted` nobody needs the logits.
    """

    sequence: CachedSequence
    ids: list[int]
    picture: Picture | None = None
    wanted: bool = True


class Runner(Protocol):
    """Runs feeds, each of another sequence, and leaves them in the cache."""

    def run(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits [wanted feeds, V] after the last token of each wanted feed, in order, fp32."""
        ...

    def close(self) -> None:
        """Give back its threads."""
        ...


def runner_of(model: VisionLanguageModel, cache: Cache, threads: int) -> Runner:
    """The fastest that can run this model where it is. `threads` of a CPU at most."""
    weight = model.embed.weight
    packed_experts = any(isinstance(module, PackedLinear) for module in model.modules())
    compiled = importlib.util.find_spec("numba") is not None
    fast = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and multiplies_bf16())
    if weight.device.type == "cpu" and fast and compiled and not packed_experts:
        from .packed import PackedRunner  # numba is not needed to import `model`

        return PackedRunner(model, cache, threads)
    from .dense import DenseRunner

    return DenseRunner(model, cache)


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products in bf16; without them they are many times slower than in fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
