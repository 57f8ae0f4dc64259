"""FP8 and FP4 blocks: exact for every byte and every scale, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.quantization import dequantize_fp4, dequantize_fp8, quantize_fp4, quantize_fp8

# Significant bits and least and greatest exponent of each target type.
SHAPES = {torch.float32: (24, -126, 127), torch.bfloat16: (8, -126, 127), torch.float16: (11, -14, 15)}


def e4m3(byte: int) -> float:
    sign, exponent, mantissa = -1.0 if byte & 128 else 1.0, byte >> 3 & 15, byte & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10))


def e2m1(code: int) -> float:
    sign, exponent, mantissa = -1.0 if code & 8 else 1.0, code >> 1 & 3, code & 1
    return sign * (mantissa * 0.5 if exponent == 0 else (2 + mantissa) * 2.0 ** (exponent - 2))


def e8m0(byte: int) -> float:
    return float("nan") if byte == 255 else 2.0 ** (byte - 127)


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float64 rounded once, to nearest even, to the values of `dtype`; subnormals and overflow included."""
    bits, least, greatest = SHAPES[dtype]
    exponent = np.maximum(np.frexp(values)[1] - 1, least)
    step = np.ldexp(1.0, exponent - (bits - 1))
    near = np.rint(values / step) * step
    return np.where(np.abs(near) >= 2.0 ** (greatest + 1), np.copysign(np.inf, values), near)


def assert_same_bits(found: torch.Tensor, exact: np.ndarray, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    wanted = rounded(exact, dtype)
    got = found.double().numpy()
    assert np.array_equal(got, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(got)[~np.isnan(wanted)], np.signbit(wanted)[~np.isnan(wanted)])


@pytest.mark.parametrize("dtype", SHAPES)
def test_every_fp8_byte_with_every_scale_is_the_formula_rounded_once(dtype: torch.dtype) -> None:
    # Block row r has scale byte r; each row of it holds all 256 weights.
    weight = torch.arange(256, dtype=torch.uint8).repeat(256 * 128, 1).view(torch.float8_e4m3fn)
    scale = torch.arange(256, dtype=torch.uint8)[:, None].repeat(1, 2).view(torch.float8_e8m0fnu)
    found = dequantize_fp8(weight, scale, dtype)[127::128]
    exact = np.array([[e4m3(byte) * e8m0(power) for byte in range(256)] for power in range(256)])
    assert_same_bits(found, exact, dtype)


@pytest.mark.parametrize("dtype", SHAPES)
def test_every_fp4_byte_with_every_scale_is_the_formula_rounded_once(dtype: torch.dtype) -> None:
    packed = torch.arange(256, dtype=torch.uint8).repeat(256, 1).view(torch.int8)
    scale = torch.arange(256, dtype=torch.uint8)[:, None].repeat(1, 16).view(torch.float8_e8m0fnu)
    nibbles = [nibble for byte in range(256) for nibble in (byte & 15, byte >> 4)]  # the low one is the even column
    exact = np.array([[e2m1(code) * e8m0(power) for code in nibbles] for power in range(256)])
    assert_same_bits(dequantize_fp4(packed, scale, dtype), exact, dtype)


def test_ragged_blocks_take_the_scale_of_their_own_block() -> None:
    weight = torch.ones(130, 257).to(torch.float8_e4m3fn)
    scale = torch.arange(127, 133, dtype=torch.uint8).view(2, 3)
    blocks = dequantize_fp8(weight, scale, torch.float32)
    assert blocks[127, [127, 128, 256]].tolist() == [1, 2, 4]
    assert blocks[129, [127, 128, 256]].tolist() == [8, 16, 32]
    packed = torch.full((2, 17), 0x22, dtype=torch.uint8)
    columns = dequantize_fp4(packed, torch.tensor([[127, 128], [129, 130]], dtype=torch.uint8), torch.float32)
    assert columns[:, [0, 31, 32, 33]].tolist() == [[1, 1, 2, 2], [4, 4, 8, 8]]


def test_halfway_weights_go_to_the_even_code() -> None:
    halves = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    row = torch.tensor([[*halves, 6.0, *(-half for half in halves), 0.0]])
    back = dequantize_fp4(*quantize_fp4(row), torch.float32)
    assert back[0, :8].tolist() == [0, 1, 1, 2, 2, 4, 4, 6]
    assert back[0, 8:].tolist() == [0, -1, -1, -2, -2, -4, -4, 0]
    eighths = torch.tensor([[448.0, 1 + 1 / 16, 1 + 3 / 16, -1 - 1 / 16]])
    assert dequantize_fp8(*quantize_fp8(eighths), torch.float32).tolist() == [[448, 1, 1.25, -1]]


SIZES = st.tuples(st.integers(1, 140), st.integers(1, 70), st.integers(0, 2**31), st.integers(-40, 40))


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_quantised_weights_are_near_and_a_second_round_trip_changes_nothing(size: tuple[int, int, int, int]) -> None:
    rows, half, seed, power = size
    weight = torch.randn(rows, 2 * half, generator=torch.Generator().manual_seed(seed)) * 2.0**power
    eight = dequantize_fp8(*quantize_fp8(weight), torch.float32)
    step = quantize_fp8(weight)[1].float().repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, : 2 * half]
    assert bool(((eight - weight).abs() <= torch.maximum(weight.abs() / 16, step * 2**-10)).all())
    assert torch.equal(dequantize_fp8(*quantize_fp8(eight), torch.float32), eight)
    four = dequantize_fp4(*quantize_fp4(weight), torch.float32)
    step = quantize_fp4(weight)[1].float().repeat_interleave(32, 1)[:, : 2 * half]
    assert bool(((four - weight).abs() <= torch.maximum(weight.abs() / 4, step / 4)).all())
    assert torch.equal(dequantize_fp4(*quantize_fp4(four), torch.float32), four)


def test_what_does_not_fit_is_explained() -> None:
    with pytest.raises(ValueError, match=r"shape \[1, 1\], wanted \[2, 1\]"):
        dequantize_fp8(torch.zeros(129, 4, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.uint8), torch.float32)
    with pytest.raises(ValueError, match="raw bytes"):
        dequantize_fp8(torch.zeros(4, 4, dtype=torch.uint8), torch.ones(1, 1), torch.float32)
    with pytest.raises(ValueError, match="even number"):
        quantize_fp4(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="infinite or NaN"):
        quantize_fp8(torch.tensor([[float("nan")]]))
