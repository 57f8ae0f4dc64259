"""Entries in FP8: the same values from torch and from the kernels, and what is kept stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.entries import BLOCK, EntryFormat
from model.kernels.entries import pack, round_rows, unpack

RELEASED = EntryFormat(512, 64, torch.bfloat16, fp8=True)
SHAPES = ((64, 32), (32, 0), (512, 64), (16, 8), (130, 0))


def entries(seed: int, width: int, count: int = 40) -> torch.Tensor:
    """Of many magnitudes, with zeros, whole rows of them, and numbers at the edges of codes and scales."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randint(-14, 9, (count, 1), generator=generator).float().exp2()
    drawn = torch.randn(count, width, generator=generator) * size
    drawn[torch.rand(count, width, generator=generator) < 0.1] = 0
    drawn[0] = 0
    drawn[1] = 448 * 2.0 ** float(size[1].log2())
    drawn[2, 0] = 1.7500001 * 2.0**8  # a little more than the largest code: the next scale
    return drawn


def by_kernels(format: EntryFormat, rows: torch.Tensor) -> np.ndarray:
    kept, back = np.zeros((len(rows), format.cells), np.uint8), np.zeros(rows.shape, np.float32)
    for number, row in enumerate(rows.numpy()):
        pack(row, kept[number])
        unpack(kept[number], back[number])
    assert (format.unpack(torch.from_numpy(kept)).numpy() == back).all()
    return back


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SHAPES))
def test_torch_and_the_kernels_keep_the_same_values(seed: int, shape: tuple[int, int]) -> None:
    format = EntryFormat(*shape, torch.float32, fp8=True)
    rows = entries(seed, format.width)
    kept = format.rounded(rows)
    assert (by_kernels(format, rows) == kept.numpy()).all()
    in_place = rows.numpy().copy()
    round_rows(in_place, format.cells)
    assert (in_place == kept.numpy()).all()
    assert (format.rounded(kept) == kept).all(), "what was kept once changes when it is kept again"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SHAPES))
def test_a_code_is_off_by_a_sixteenth_or_a_step_of_its_block_and_the_rotary_part_by_bf16s_rounding(
    seed: int, shape: tuple[int, int]
) -> None:
    format = EntryFormat(*shape, torch.float32, fp8=True)
    rows = entries(seed, format.width)
    off = (format.rounded(rows) - rows).abs()
    for begin in range(0, format.plain, BLOCK):
        block = slice(begin, min(begin + BLOCK, format.plain))
        largest = rows[:, block].abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
        assert (off[:, block] <= torch.maximum(rows[:, block].abs() / 16, largest / 224 * 2**-10)).all()
    assert (off[:, format.plain :] <= rows[:, format.plain :].abs() * 2.0**-8).all()


def test_the_scale_is_the_least_power_of_two_that_holds_the_block() -> None:
    format = EntryFormat(64, 0, torch.float32, fp8=True)
    for largest, exponent in ((448.0, 0), (449.0, 1), (896.0, 1), (224.0, -1), (225.0, 0), (0.0, -22)):
        row = torch.zeros(64)
        row[3] = -largest
        assert int(format.pack(row)[-1]) - 127 == exponent, largest


def test_the_released_entry_takes_its_bytes_without_the_pad() -> None:
    assert RELEASED.entry_bytes == 448 + 2 * 64 + 7  # 584 with one byte of padding: reference section 8
    assert EntryFormat(512, 64, torch.bfloat16).entry_bytes == 1024
    assert RELEASED.rounded(torch.randn(3, 512).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_entries_that_are_not_packed_are_left_alone(dtype: torch.dtype) -> None:
    format, rows = EntryFormat(64, 32, dtype), torch.randn(5, 64).to(dtype)
    assert format.pack(rows) is rows and format.unpack(rows) is rows and format.rounded(rows) is rows
