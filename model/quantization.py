"""The two block formats of the released checkpoint, to tensors and back. Exact: one rounding, to the target type.

FP8: E4M3 bytes, one E8M0 scale for each 128 x 128 block (the last row and column of blocks may be ragged).
FP4: E2M1 codes, two to a byte along the input axis (low nibble = even column), one E8M0 scale for 32 input columns.
E8M0: byte b stands for 2^(b - 127), and 255 for NaN, as in the OCP microscaling formats, so its whole block is NaN.

Shapes: R rows (outputs), C columns (inputs). Source: reference section 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FP8_BLOCK = 128
FP4_BLOCK = 32
TARGETS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_E8M0_BIAS = 127
_E8M0_NAN = 255
_FP8_MAX = 448.0
_FP4_MAX = 6.0
_FP4_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_FP4_VALUES = (*_FP4_MAGNITUDES, *(-value for value in _FP4_MAGNITUDES))
_PACKED_ROWS = 256  # rows that are unpacked at a time, so that the fp32 copy stays small


def fp8_scale_shape(rows: int, columns: int) -> tuple[int, int]:
    """Shape of the scales of an FP8 matrix [R, C]."""
    return math.ceil(rows / FP8_BLOCK), math.ceil(columns / FP8_BLOCK)


def fp4_scale_shape(rows: int, columns: int) -> tuple[int, int]:
    """Shape of the scales of an FP4 matrix of R x C weights, stored as [R, C / 2] bytes."""
    return rows, math.ceil(columns / FP4_BLOCK)


def dequantize_fp8(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix [R, C] in `dtype`, from E4M3 [R, C] and E8M0 scales [ceil(R / 128), ceil(C / 128)] (or raw bytes).

    ValueError for shapes that don't belong together or a `dtype` that is not a wider float.
    """
    rows, columns = weight.shape
    _check(scale, fp8_scale_shape(rows, columns), dtype)
    weight = weight.view(torch.float8_e4m3fn)
    scales = _scales(scale, dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    for block, first in enumerate(range(0, rows, FP8_BLOCK)):
        factors_C = scales[block].repeat_interleave(FP8_BLOCK)[:columns]
        out[first : first + FP8_BLOCK] = weight[first : first + FP8_BLOCK].to(scales.dtype) * factors_C
    return out


def dequantize_fp4(packed: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix [R, C] in `dtype`, from packed E2M1 [R, C / 2] bytes and E8M0 scales [R, ceil(C / 32)] (or raw bytes).

    ValueError for shapes that don't belong together or a `dtype` that is not a wider float.
    """
    rows, columns = packed.shape[0], 2 * packed.shape[1]
    _check(scale, fp4_scale_shape(rows, columns), dtype)
    codes = packed.view(torch.uint8)
    scales = _scales(scale, dtype)
    values = torch.tensor(_FP4_VALUES, dtype=scales.dtype, device=packed.device)
    byte = torch.arange(256, device=packed.device)
    pairs = torch.stack([values[byte & 15], values[byte >> 4]], dim=1)  # byte -> even column, odd column
    out = torch.empty(rows, columns, dtype=dtype, device=packed.device)
    for first in range(0, rows, _PACKED_ROWS):
        part = slice(first, first + _PACKED_ROWS)
        # [r, C / 2] bytes -> [r * C / 2, 2] -> [r, C]
        unpacked = pairs.index_select(0, codes[part].flatten().int()).view(-1, columns)
        if columns % FP4_BLOCK:
            unpacked *= scales[part].repeat_interleave(FP4_BLOCK, dim=1)[:, :columns]
        else:
            unpacked.view(-1, columns // FP4_BLOCK, FP4_BLOCK).mul_(scales[part][..., None])
        out[part] = unpacked
    return out


def quantize_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """E4M3 [R, C] and E8M0 scales of a matrix: the smallest power of two that fits each block, round to nearest even.

    ValueError when a weight is infinite or NaN.
    """
    rows, columns = weight.shape
    grid = fp8_scale_shape(rows, columns)
    wide = _finite(weight)
    padded = torch.nn.functional.pad(wide, (0, -columns % FP8_BLOCK, 0, -rows % FP8_BLOCK))
    # [R, C] -> [block rows, 128, block columns, 128]
    blocks = padded.view(grid[0], FP8_BLOCK, grid[1], FP8_BLOCK)
    exponents = _exponents(blocks.abs().amax(dim=(1, 3)), _FP8_MAX)
    scaled = torch.ldexp(blocks.double(), -exponents[:, None, :, None]).float()
    codes = scaled.view(padded.shape)[:rows, :columns].to(torch.float8_e4m3fn)
    return codes.contiguous(), _e8m0(exponents)


def quantize_fp4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Packed E2M1 [R, C / 2] (int8) and E8M0 scales of a matrix with an even number of columns.

    The smallest power of two that fits each 32 columns, round to nearest even. ValueError when C is odd or a weight is
    infinite or NaN.
    """
    rows, columns = weight.shape
    if columns % 2:
        raise ValueError(f"FP4 packs two columns to a byte, got {columns} columns; give an even number")
    padded = torch.nn.functional.pad(_finite(weight), (0, -columns % FP4_BLOCK))
    blocks = padded.view(rows, -1, FP4_BLOCK)
    exponents = _exponents(blocks.abs().amax(dim=2), _FP4_MAX)
    scaled = torch.ldexp(blocks.double(), -exponents[..., None]).view(rows, -1)[:, :columns]
    size = scaled.abs()
    # Halfway between two values the even code wins: to codes 0, 2, 2, 4, 4, 6 and 6.
    code = (size > 0.25).to(torch.uint8)
    code += size >= 0.75
    code += size > 1.25
    code += size >= 1.75
    code += size > 2.5
    code += size >= 3.5
    code += size > 5.0
    code |= torch.signbit(scaled).to(torch.uint8) << 3
    return (code[:, 0::2] | (code[:, 1::2] << 4)).view(torch.int8), _e8m0(exponents)


def _check(scale: Tensor, wanted: tuple[int, int], dtype: torch.dtype) -> None:
    if tuple(scale.shape) != wanted:
        raise ValueError(f"scales of shape {list(scale.shape)}, wanted {list(wanted)}; pair each weight with its own")
    if scale.dtype not in (torch.float8_e8m0fnu, torch.uint8):
        raise ValueError(f"scales of type {scale.dtype}; give E8M0, or its raw bytes as uint8")
    if dtype not in TARGETS:
        raise ValueError(f"can't dequantise to {dtype}; use one of {', '.join(map(str, TARGETS))}")


def _scales(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Powers of two in fp32, which holds every product of ours exactly (the least is 2^-136), or overflows as it must.

    Only fp64, which overflows later, needs its own.
    """
    byte = torch.arange(256, dtype=torch.float64)
    table = torch.exp2(byte - _E8M0_BIAS)
    table[_E8M0_NAN] = torch.nan
    table = table.to(torch.float64 if dtype == torch.float64 else torch.float32)
    return table.to(scale.device)[scale.view(torch.uint8).int()]  # the bytes: a cast would round 2^n to a number


def _finite(weight: Tensor) -> Tensor:
    wide = weight.float()
    if not bool(wide.isfinite().all()):
        raise ValueError("a weight is infinite or NaN; block formats hold finite weights only")
    return wide


def _exponents(largest: Tensor, limit: float) -> Tensor:
    """The least n with largest <= limit * 2^n, within E8M0's range; 0 for a block of zeros."""
    mantissa, exponent = torch.frexp(largest.double() / limit)  # in [0.5, 1) * 2^exponent
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    return torch.where(largest == 0, 0, exponent.clamp(-_E8M0_BIAS, _E8M0_BIAS))


def _e8m0(exponents: Tensor) -> Tensor:
    return (exponents + _E8M0_BIAS).to(torch.uint8).view(torch.float8_e8m0fnu)
