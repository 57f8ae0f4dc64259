"""Several processes that train together: the same gradients everywhere, one writer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors import safe_open
from torch import nn

from model.config import Config
from model.training import peers
from model.training.batches import Batch
from model.training.lessons import Lesson
from model.training.trainer import Trainer
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.test_supervised import CONFIG

ROOT = Path(__file__).resolve().parents[3]


def _learner(rank: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/meeting", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    layers = {name: nn.Linear(2, 1, bias=False) for name in ("both", "second", "neither")}
    bias = torch.full((3,), float(rank))
    loss = (layers["both"].weight * (rank + 1)).sum()
    if rank == 1:
        loss = loss + (layers["second"].weight * 4).sum()
    loss.backward()
    peers.average(nn.ModuleDict(layers), [bias])
    gradients = {name: layer.weight.grad for name, layer in layers.items()}
    torch.save((gradients, bias, peers.number(), peers.count()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_gradients_and_balances_are_the_means_over_all_processes(tmp_path: Path) -> None:
    mp.spawn(_learner, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        gradients, bias, number, count = torch.load(tmp_path / f"{rank}.pt")
        assert (number, count) == (rank, 2)
        assert gradients["both"].tolist() == [[1.5, 1.5]]
        assert gradients["second"].tolist() == [[2.0, 2.0]], "a process without a gradient counts as zero"
        assert gradients["neither"] is None
        assert bias.tolist() == [0.5] * 3


def test_alone_nothing_is_averaged() -> None:
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    bias = torch.ones(2)
    peers.average(layer, [bias])
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[1.0, 1.0]]
    assert bias.tolist() == [1.0, 1.0] and (peers.number(), peers.count()) == (0, 1)


def test_no_process_draws_what_another_or_another_lesson_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def draw(lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> Iterator[Batch]:
        seeds.append(seed)
        return iter(())

    nothing = [Lesson(name, 0, {"shapes": 1.0}) for name in ("first", "second", "third")]
    for process in range(3):
        monkeypatch.setattr(peers, "number", lambda process=process: process)
        Trainer(CONFIG, DEFAULT_CHECKPOINT, nothing, tmp_path / str(process), draw=draw).run()
    assert len(seeds) == 9 == len(set(seeds))


@pytest.mark.slow
def test_two_processes_train_together_and_the_first_writes(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "jobs/train.py",
        "--state", str(tmp_path / "state"), "--share", "0.00001", "--threads", "1",
    ]  # fmt: skip
    alone = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("images in") == 1
    with safe_open(tmp_path / "state" / "state.safetensors", "pt") as state:
        assert '"lesson": 3' in state.metadata()["stand"]
    assert (tmp_path / "state" / "checkpoint" / "model.safetensors").is_file()
