"""Entries as the cache keeps them: rows of activations, or packed in FP8 as rows of bytes (`model/entries.py`).

`move` copies between an activation and what is kept, whichever of the two kinds that is; the others read rows where
they lie when they are activations, and unpack them first when they are bytes.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from ..entries import BLOCK, LEAST
from .arithmetic import ZERO, bits_of_float, float_of_bits, kernel, stored, wide

_LEAST = np.float32(LEAST)
_SUBNORMAL, _STEPS = np.float32(2.0**-6), np.float32(2.0**9)  # E4M3's smallest normal number; below it steps of 2^-9
_CODE = np.arange(256)
_MAGNITUDE = np.where(
    _CODE & 0x78, (8 + (_CODE & 7)) * 2.0 ** ((_CODE >> 3 & 15) - 10), (_CODE & 7) * 2.0**-9
)  # fmt: skip
_VALUES = np.where(_CODE & 0x80, -_MAGNITUDE, _MAGNITUDE).astype(
    np.float32
)  # of all codes; 0x7F, NaN, is never written


@kernel
def _plain_of(width, cells):
    """How many channels of an entry of `width` are codes when it is kept in `cells` bytes."""
    blocks = 1
    while (2 * width + blocks - cells + BLOCK - 1) // BLOCK != blocks:
        blocks += 1
    return 2 * width + blocks - cells


@kernel
def _code_of(number):
    """An fp32 number of at most 448 as E4M3, to the nearest, halves to the even code."""
    bits = bits_of_float(abs(number))
    code = ((bits + np.uint32(0x7FFFF) + ((bits >> np.uint32(20)) & np.uint32(1))) >> np.uint32(20)) - np.uint32(960)
    if abs(number) < _SUBNORMAL:
        code = np.uint32(np.rint(abs(number) * _STEPS))
    return np.uint8(code | np.uint32(0x80 if number < ZERO else 0))


@kernel
def pack(row, kept):
    """An entry [D] of activations to a row of bytes."""
    width = row.shape[0]
    plain = _plain_of(width, kept.shape[0])
    scales = plain + 2 * (width - plain)
    for begin in range(0, plain, BLOCK):
        end = min(begin + BLOCK, plain)
        largest = _LEAST
        for d in range(begin, end):
            largest = max(largest, abs(wide(row[d])))
        bits = bits_of_float(largest)  # 448 is 1.75 * 2^8
        exponent = np.int32(bits >> np.uint32(23)) - np.int32(127 + 8)
        if bits & np.uint32(0x7FFFFF) > np.uint32(0x600000):
            exponent += np.int32(1)
        kept[scales + begin // BLOCK] = exponent + 127
        shrink = float_of_bits((np.int32(127) - exponent) << np.int32(23))
        for d in range(begin, end):
            kept[d] = _code_of(wide(row[d]) * shrink)
    for d in range(plain, width):
        bits = bits_of_float(wide(row[d]))
        half = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        at = plain + 2 * (d - plain)
        kept[at], kept[at + 1] = half & np.uint32(255), half >> np.uint32(8)


@kernel
def unpack(kept, row):
    """A row of bytes to an entry [D] of activations."""
    width = row.shape[0]
    plain = _plain_of(width, kept.shape[0])
    scales = plain + 2 * (width - plain)
    for begin in range(0, plain, BLOCK):
        scale = float_of_bits(np.int32(kept[scales + begin // BLOCK]) << np.int32(23))
        for d in range(begin, min(begin + BLOCK, plain)):
            row[d] = stored(_VALUES[kept[d]] * scale, row)
    for d in range(plain, width):
        at = plain + 2 * (d - plain)
        bits = (np.int32(kept[at]) | np.int32(kept[at + 1]) << np.int32(8)) << np.int32(16)
        row[d] = stored(float_of_bits(bits), row)


@kernel
def round_rows(rows, cells):
    """Leave of each entry of rows [N, D] what is left when it is kept in `cells` bytes, in place."""
    kept = np.empty(cells, np.uint8)
    for i in range(rows.shape[0]):
        pack(rows[i], kept)
        unpack(kept, rows[i])


def move(source, target):
    """Copy one entry, packed or unpacked as the two arrays ask; only for kernels."""
    raise NotImplementedError


def move_rows(source, begin, end, target, at):
    """Rows begin..end of source to those of target from `at` on; returns the place after them. Only for kernels."""
    raise NotImplementedError


def readable(kept, begin, end, room, at):
    """Rows begin..end of `kept` as activations: an array and the place of the first, in `room` from `at` on when they
    had to be unpacked; only for kernels."""
    raise NotImplementedError


def read_again(kept, begin, room, at):
    """What `readable` gave of `kept` from row `begin` on; only for kernels."""
    raise NotImplementedError


def opened(kept, room):
    """One entry as activations, in `room` when it had to be unpacked; only for kernels."""
    raise NotImplementedError


@kernel
def _copy(source, target):
    for d in range(target.shape[0]):  # over two rows, which are contiguous: it becomes a plain copy
        target[d] = source[d]


@overload(move)
def _move(source, target):
    if source.dtype == target.dtype:
        return lambda source, target: _copy(source, target)
    if source.dtype == types.uint8:
        return lambda source, target: unpack(source, target)
    if target.dtype == types.uint8:
        return lambda source, target: pack(source, target)

    def convert(source, target):
        for d in range(target.shape[0]):
            target[d] = stored(wide(source[d]), target)

    return convert


@overload(move_rows)
def _move_rows(source, begin, end, target, at):
    def one_by_one(source, begin, end, target, at):
        for number in range(begin, end):
            unpack(source[number], target[at + number - begin])
        return at + end - begin

    def at_once(source, begin, end, target, at):
        width = source.shape[1]
        _copy(source.reshape(-1)[begin * width :], target.reshape(-1)[at * width : (at + end - begin) * width])
        return at + end - begin

    return one_by_one if source.dtype == types.uint8 else at_once


@overload(readable)
def _readable(kept, begin, end, room, at):
    def unpacked(kept, begin, end, room, at):
        for number in range(begin, end):
            unpack(kept[number], room[at + number - begin])
        return room, at

    return unpacked if kept.dtype == types.uint8 else lambda kept, begin, end, room, at: (kept, begin)


@overload(read_again)
def _read_again(kept, begin, room, at):
    if kept.dtype == types.uint8:
        return lambda kept, begin, room, at: (room, at)
    return lambda kept, begin, room, at: (kept, begin)


@overload(opened)
def _opened(kept, room):
    def unpacked(kept, room):
        unpack(kept, room)
        return room

    return unpacked if kept.dtype == types.uint8 else lambda kept, room: kept
