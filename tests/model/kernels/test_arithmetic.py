"""Numbers as the kernels keep them: bf16 in uint16 is torch's bf16, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.kernels.arithmetic import kernel, stored, wide


@kernel
def _store(numbers: Any, out: Any) -> None:
    for i in range(numbers.shape[0]):
        out[i] = stored(numbers[i], out)


@kernel
def _widen(numbers: Any, out: Any) -> None:
    for i in range(numbers.shape[0]):
        out[i] = wide(numbers[i])


def test_every_bf16_number_is_read_as_torch_reads_it() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(1 << 16, np.float32)
    _widen(bits, out)
    wanted = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    assert np.array_equal(out, wanted, equal_nan=True)


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_fp32_is_rounded_to_bf16_as_torch_rounds_it(numbers: list[float]) -> None:
    given = np.array(numbers, np.float32)
    out = np.empty(len(given), np.uint16)
    _store(given, out)
    assert np.array_equal(out, torch.from_numpy(given).bfloat16().view(torch.uint16).numpy())


def test_halves_go_to_the_even_neighbour() -> None:
    halves = (np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16) + 0x8000
    out = np.empty(len(halves), np.uint16)
    _store(halves.view(np.float32), out)
    assert np.array_equal(out, torch.from_numpy(halves.view(np.float32)).bfloat16().view(torch.uint16).numpy())
    assert not (out & 1).any()


def test_fp32_is_kept_as_it_is() -> None:
    given, out = np.array([1.1, -0.0, 3e38], np.float32), np.empty(3, np.float32)
    _store(given, out)
    assert np.array_equal(out, given)
