"""Training in several processes at once (`torchrun`): each draws its own batches, and all take the same steps."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join() -> None:
    """Meet the other processes, when `torchrun` started this one among several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")


def number() -> int:
    """Which of the processes this is; 0 writes and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes train together, this one included."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def average(module: nn.Module, buffers: Iterable[Tensor]) -> None:
    """Replace gradients and `buffers` by their means over all processes; as one message.

    A parameter that got no gradient here but did elsewhere counts as zero here; its gradient then appears.
    """
    if count() == 1:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    held = [*(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters), *buffers]
    message = torch.cat([has, *(tensor.flatten() for tensor in held)])
    dist.all_reduce(message)
    message /= count()
    any_has = message[: len(parameters)] > 0
    means = message[len(parameters) :].split([tensor.numel() for tensor in held])
    for tensor, mean in zip(held, means, strict=True):
        tensor.copy_(mean.view_as(tensor))
    for parameter, gradient, given in zip(parameters, held, any_has.tolist(), strict=False):
        parameter.grad = gradient if given else None
