"""The vision tower: a ViT over 14x14 patches with 2-D rotary positions at any resolution, and the 3x3 aligner.

Shapes: B images of one grid, N patches, V vision_dim, A heads, D head width, H the language model's hidden size.
Source: reference section 5. Names are the official checkpoint's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config
from .layers import RMSNorm

VIT_EPS = 1e-6  # the tower's own; the language model's rms_norm_eps does not reach here


def grid_rotations(rows: int, columns: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Angles [N, D/2] of every patch of a grid, row-major: first the row's D/4, then the column's D/4."""
    quarter = head_dim // 4
    frequencies = 1.0 / theta ** (torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    row = torch.arange(rows, dtype=torch.float32, device=device)[:, None, None] * frequencies
    column = torch.arange(columns, dtype=torch.float32, device=device)[None, :, None] * frequencies
    both = torch.cat([row.expand(rows, columns, quarter), column.expand(rows, columns, quarter)], dim=-1)
    return both.reshape(rows * columns, 2 * quarter)


def rotate_halves(x_BAND: Tensor, angles: Tensor) -> Tensor:
    """Rotate the first against the second half of the channels by `angles` [N, D/2], in fp32."""
    first, second = x_BAND.float().chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_BAND.dtype)


class VisionAttention(nn.Module):
    """Full attention over the patches of one image."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.vision_n_heads
        self.wqkv = nn.Linear(config.vision_dim, 3 * config.vision_dim)
        self.wo = nn.Linear(config.vision_dim, config.vision_dim)

    def forward(self, x_BNV: Tensor, angles: Tensor) -> Tensor:
        # [B, N, 3V] -> three of [B, A, N, D]
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.wqkv(x_BNV).chunk(3, -1))
        seen = F.scaled_dot_product_attention(rotate_halves(q, angles), rotate_halves(k, angles), v)
        return self.wo(seen.transpose(1, 2).flatten(2))


class VisionMLP(nn.Module):
    """SwiGLU; w1 holds gate and up."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.vision_dim, 2 * config.vision_inter_dim, bias=False)
        self.w2 = nn.Linear(config.vision_inter_dim, config.vision_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w1(x).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * up)


class VisionBlock(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.vision_dim, VIT_EPS)
        self.attn = VisionAttention(config)
        self.norm2 = RMSNorm(config.vision_dim, VIT_EPS)
        self.mlp = VisionMLP(config)

    def forward(self, x_BNV: Tensor, angles: Tensor) -> Tensor:
        x_BNV = x_BNV + self.attn(self.norm1(x_BNV), angles)
        return x_BNV + self.mlp(self.norm2(x_BNV))


class PatchEmbed(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Linear(3 * config.vision_patch_size**2, config.vision_dim)

    def forward(self, patches: Tensor) -> Tensor:
        return self.proj(patches)


class VisionTransformer(nn.Module):
    """Patches of B images of one grid -> features [B, N, V]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_dim = config.vision_dim // config.vision_n_heads
        self.theta = config.vision_rope_theta
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.vision_n_layers))
        self.norm = RMSNorm(config.vision_dim, VIT_EPS)

    def forward(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """`patches` [B, N, 3, P, P] in the weights' type, row-major over the `rows` x `columns` patch grid."""
        assert patches.shape[1] == rows * columns, f"{patches.shape[1]} patches for a grid of {rows} x {columns}"
        angles = grid_rotations(rows, columns, self.head_dim, self.theta, patches.device)
        x_BNV = self.patch_embed(patches.flatten(2))
        for block in self.blocks:
            x_BNV = block(x_BNV, angles)
        return self.norm(x_BNV)


class Aligner(nn.Module):
    """Merges 3x3 patches into one image token: [B, N, V] -> [B, rows/3 * columns/3, H], row-major, rounded up."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ratio = config.vision_downsample_ratio
        self.w1 = nn.Linear(config.vision_dim * self.ratio**2, config.hidden_size)
        self.w2 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BNV: Tensor, rows: int, columns: int) -> Tensor:
        grid = x_BNV.transpose(1, 2).unflatten(2, (rows, columns))  # [B, V, rows, columns]
        grid = F.pad(grid, (0, -columns % self.ratio, 0, -rows % self.ratio))  # zeros right and below
        # [B, V * 9, cells] with features channel-major (c*9 + dy*3 + dx) -> [B, cells, V * 9]
        cells = F.unfold(grid, self.ratio, stride=self.ratio).transpose(1, 2)
        return self.w2(F.gelu(self.w1(cells)))
