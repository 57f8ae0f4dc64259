"""What a sequence keeps between steps: forks of it, and the bytes it takes."""

from __future__ import annotations

from dataclasses import fields, replace

from typing import TypeVar

from torch import Tensor

from .attention import LayerState
from .compression import CompressorState

State = TypeVar("State", LayerState, CompressorState)


def fork(state: list[LayerState], times: int) -> list[LayerState]:
    """Each sequence of `state` `times` times over, copies side by side: [B, ...] -> [B * times, ...]."""
    return [_repeat(layer, times) for layer in state]


def _repeat(state: State, times: int) -> State:
    changed = {}
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value.repeat_interleave(times, dim=0)
        elif value is not None:
            changed[field.name] = _repeat(value, times)
    return replace(state, **changed)
