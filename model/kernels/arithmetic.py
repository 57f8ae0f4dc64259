"""What the other kernels are made of: stored numbers, exp, RMSNorm, rotary positions, SwiGLU.

Arrays of activations and cache entries hold fp32, or bf16 as the uint16 that numba can read: `wide` makes an fp32
number of either, `stored` one of an array's own kind. All arithmetic is in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

# Sums may be taken in any order; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz"}

ONE, ZERO = np.float32(1), np.float32(0)
_LOG2_E, _HALF = np.float32(1.4426950408889634), np.float32(0.5)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST, _HIGHEST = np.float32(-87.3), np.float32(88.3)  # beyond them exp leaves the normal fp32 numbers
# exp(r) on |r| <= ln(2) / 2 as 1 + r + r^2 (c0 + c1 r + ...): the Taylor coefficients, bent to spread the error.
_C0, _C1, _C2 = np.float32(5.0000001201e-1), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
_C3, _C4, _C5 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)


def kernel(function: Callable[..., Any]) -> Any:
    """Compiled at its first call, kept on disk, run without the GIL."""
    return njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")(function)


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(typingctx: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def wide(number):
    """A stored number as fp32; only for kernels."""
    raise NotImplementedError


def stored(number, array):
    """An fp32 number as the elements of `array` are stored, rounded to the nearest; only for kernels."""
    raise NotImplementedError


@overload(wide)
def _wide(number):
    if number == types.uint16:
        return lambda number: float_of_bits(np.int32(number) << np.int32(16))
    return lambda number: number


@overload(stored)
def _stored(number, array):
    def narrow(number, array):
        bits = bits_of_float(number)  # to the nearest, halves to the even one
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return narrow if array.dtype == types.uint16 else lambda number, array: number


@njit(nogil=True, cache=True, error_model="numpy")
def exp(x):
    """e^x within 2 units in the last place; a polynomial, so that loops over it become vector instructions."""
    x = min(max(x, _LOWEST), _HIGHEST)
    n = np.floor(x * _LOG2_E + _HALF)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    tail = ((((_C5 * r + _C4) * r + _C3) * r + _C2) * r + _C1) * r + _C0
    return (tail * r * r + r + ONE) * float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))


@njit(nogil=True, cache=True, error_model="numpy")
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@kernel
def rms_norm(x, at, weight, eps, out):
    """RMSNorm of the columns of x [N, ..] from `at` on, as many as `weight` has: out [N, W]."""
    width = weight.shape[0]
    for i in range(x.shape[0]):
        square = ZERO
        for c in range(width):
            number = wide(x[i, at + c])
            square += number * number
        factor = ONE / np.sqrt(square / np.float32(width) + eps)
        for c in range(width):
            out[i, c] = stored(wide(x[i, at + c]) * factor * weight[c], out)


@kernel
def rotate(x, at, heads, width, cos, sin):
    """Turn the last 2r channels of each head in the columns from `at` on, in place; cos and sin [N, r]."""
    pairs = cos.shape[1]
    for i in range(x.shape[0]):
        for a in range(heads):
            first = at + (a + 1) * width - 2 * pairs
            for r in range(pairs):
                even, odd = wide(x[i, first + 2 * r]), wide(x[i, first + 2 * r + 1])
                x[i, first + 2 * r] = stored(even * cos[i, r] - odd * sin[i, r], x)
                x[i, first + 2 * r + 1] = stored(even * sin[i, r] + odd * cos[i, r], x)


@kernel
def normalise_heads(x, heads, width, eps):
    """Divide each head in the first columns of x [N, ..] by its root mean square, in place."""
    for i in range(x.shape[0]):
        for a in range(heads):
            square = ZERO
            for d in range(a * width, (a + 1) * width):
                number = wide(x[i, d])
                square += number * number
            factor = ONE / np.sqrt(square / np.float32(width) + eps)
            for d in range(a * width, (a + 1) * width):
                x[i, d] = stored(wide(x[i, d]) * factor, x)


@kernel
def rotate_halves(x, at, heads, width, cos, sin):
    """Turn each head's first half against its second, in place; cos and sin [N, width / 2]."""
    half = width // 2
    for i in range(x.shape[0]):
        for a in range(heads):
            low = at + a * width
            for r in range(half):
                first, second = wide(x[i, low + r]), wide(x[i, low + half + r])
                x[i, low + r] = stored(first * cos[i, r] - second * sin[i, r], x)
                x[i, low + half + r] = stored(second * cos[i, r] + first * sin[i, r], x)


@kernel
def swiglu(both, limit, out):
    """silu(min(gate, limit)) * clamp(up): both [N, 2I] holds gate, then up; out [N, I]."""
    width = out.shape[1]
    for i in range(out.shape[0]):
        for c in range(width):
            gate = min(wide(both[i, c]), limit)
            up = min(max(wide(both[i, width + c]), -limit), limit)
            out[i, c] = stored(gate * sigmoid(gate) * up, out)
