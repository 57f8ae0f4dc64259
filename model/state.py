"""Copies of what sequences keep between steps: forks, and choices of rows."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .attention import LayerState
from .compression import CompressorState

State = TypeVar("State", LayerState, CompressorState)


def fork(state: list[LayerState], times: int) -> list[LayerState]:
    """Each sequence of `state` `times` times over, copies side by side: [B, ...] -> [B * times, ...]."""
    batch = state[0].window_BWD.shape[0]
    return select(state, torch.arange(batch, device=state[0].window_BWD.device).repeat_interleave(times))


def select(state: list[LayerState], rows: Tensor) -> list[LayerState]:
    """Copies of the sequences that `rows` names, any number of times each: [B, ...] -> [len(rows), ...]."""
    return [_select(layer, rows) for layer in state]


def _select(state: State, rows: Tensor) -> State:
    changed: dict[str, Any] = {}
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value[rows]
        elif value is not None:
            changed[field.name] = _select(value, rows)
    return replace(state, **changed)
