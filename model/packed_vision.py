"""The vision tower over packed patches: images of any sizes in one pass, attention within each.

Shapes: N patches of all images of a pass, V vision_dim, A heads, D head width. What it computes: `model/vision.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .image import span
from .kernels.arithmetic import rms_norm, rotate_halves, swiglu
from .packed_attention import cells
from .packed_layer import rows_of
from .runner import Picture
from .vision import VIT_EPS, VisionBlock, grid_rotations
from .vision_language_model import VisionLanguageModel

PASS_PATCHES = 1024  # more in one pass leave the CPU's second cache, and gain nothing
_UNLIMITED = np.float32(3e38)


class PackedVision:
    def __init__(self, model: VisionLanguageModel) -> None:
        self.model, self.tower, self.dtype = model, model.vision, model.embed.weight.dtype
        self.heads, self.width = model.config.vision_n_heads, self.tower.head_dim
        self._turns = lru_cache(64)(self._turns_of)

    def see(self, pictures: Sequence[Picture]) -> None:
        """Give each picture its features [C, H], in the order of its span's IMAGE tokens."""
        waiting: list[Picture] = []
        for picture in pictures:
            if waiting and sum(len(one.patches) for one in [*waiting, picture]) > PASS_PATCHES:
                self._see(waiting)
                waiting = []
            waiting.append(picture)
        if waiting:
            self._see(waiting)

    def _see(self, pictures: list[Picture]) -> None:
        lengths = [len(picture.patches) for picture in pictures]
        grids = [(picture.geometry.patch_rows, picture.geometry.patch_columns) for picture in pictures]
        turns = tuple(np.concatenate(part) for part in zip(*(self._turns(*grid) for grid in grids), strict=True))
        patches = torch.cat([picture.patches for picture in pictures]).flatten(1)
        x_NV = self.tower.patch_embed(patches.to(self.dtype)).float()
        tokens = len(x_NV)
        for block in self.tower.blocks:
            assert isinstance(block, VisionBlock), f"a {type(block).__name__} in the tower"
            x_NV += self._attend(block, self._normed(x_NV, block.norm1.weight), lengths, turns)
            both = block.mlp.w1(self._normed(x_NV, block.norm2.weight))
            inner = torch.empty(len(both), both.shape[1] // 2, dtype=self.dtype)
            swiglu(cells(both), _UNLIMITED, cells(inner))
            x_NV += block.mlp.w2(inner)[:tokens]
        each = self._normed(x_NV, self.tower.norm.weight)[:tokens].split(lengths)
        for picture, grid, features in zip(pictures, grids, each, strict=True):
            order = span(picture.geometry.rows, picture.geometry.columns, 0).order
            picture.features = self.model.aligner(features[None], *grid)[0, order]

    def _attend(self, block: VisionBlock, x_NV: Tensor, lengths: list[int], turns: tuple[np.ndarray, ...]) -> Tensor:
        qkv = block.attn.wqkv(x_NV)[: sum(lengths)]  # [N, 3V]
        rotate_halves(cells(qkv), 0, 2 * self.heads, self.width, *turns)  # queries, then keys
        parts = qkv.unflatten(1, (3, self.heads, self.width))
        seen = []
        for image in parts.split(lengths):
            q, k, v = image.permute(1, 2, 0, 3)[:, None]  # each [1, A, n, D]
            seen.append(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1))
        out = rows_of(len(qkv), self.heads * self.width, self.dtype)
        torch.cat(seen, out=out[: len(qkv)])
        return block.attn.wo(out)[: len(qkv)]

    def _turns_of(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        angles = grid_rotations(rows, columns, self.width, self.tower.theta, torch.device("cpu"))
        return angles.cos().numpy(), angles.sin().numpy()

    def _normed(self, x_NV: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm, and as many more rows as the products of this type ask."""
        out = rows_of(x_NV.shape[0], x_NV.shape[1], self.dtype)
        rms_norm(x_NV.numpy(), 0, weight.detach().float().numpy(), np.float32(VIT_EPS), cells(out))
        return out
