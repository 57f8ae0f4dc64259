"""Runs lessons in order, resumable at any step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..config import Config
from ..prompt import Tokenizer
from . import peers, whole
from .batches import Batch, batches
from .lessons import Lesson
from .supervised import Student

Draw = Callable[[Lesson, Config, str, int], Iterator[Batch]]  # of a lesson, with a seed

_WARM_UP = 50  # steps
_MOMENTS = (("momentum_buffer",), ("step", "exp_avg", "exp_avg_sq"))  # of Muon, of AdamW
_OUTER = ("model.embed.", "model.head.", "patch_head.", "cell_head.", "detail_head.")


def optimizers_of(student: Student) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices inside; AdamW for embeddings, heads, gates and all that is not a matrix.

    Muon's steps are scaled to AdamW's, so that one rate serves both.
    """
    named = {name: p for name, p in student.named_parameters() if p.requires_grad}
    inner = {n: p for n, p in named.items() if p.ndim == 2 and min(p.shape) >= 32 and not n.startswith(_OUTER)}
    matrices = [p for n, p in named.items() if p.ndim == 2 and n not in inner]
    others = [p for p in named.values() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    muon = torch.optim.Muon(inner.values(), lr=1e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.97), fused=True)


class Trainer:
    """Runs lessons in order and saves where it stands; constructed on a folder with a saved state, it goes on there."""

    def __init__(
        self, config: Config, tokenizer_path: str | Path, lessons: Iterable[Lesson], folder: Path, seed: int = 0,
        how: whole.How | None = None, *, device: torch.device | None = None, draw: Draw = batches,
    ) -> None:  # fmt: skip
        self.config, self.tokenizer_path, self.lessons = config, str(tokenizer_path), tuple(lessons)
        self.folder, self.seed, self.how = folder, seed, how or whole.How()
        self.device, self.draw = device or torch.device("cpu"), draw
        self.student = Student(config, Tokenizer(tokenizer_path), seed).to(self.device)
        self.optimizers = optimizers_of(self.student)
        self.lesson, self.step, self.seconds, self.images = 0, 0, 0.0, 0
        self.history: list[dict[str, float]] = []  # running means, each time that they were logged
        self._load()

    def run(self, log: Callable[[str], None] = print, save_every: int = 200, log_every: int = 20) -> None:
        """Train to the end of the last lesson."""
        for number in range(self.lesson, len(self.lessons)):
            self.lesson = number
            self._teach(self.lessons[number], log, save_every, log_every)
            self.step = 0
            self.lesson = number + 1
            self.save()

    def _teach(self, lesson: Lesson, log: Callable[[str], None], save_every: int, log_every: int) -> None:
        how = whole.How(self.how.product_type, self.how.compiled, lesson.sparse)
        # Every lesson and process draws from seeds of its own, and a resumed one does not repeat what it saw.
        seed = self.seed + (self.lesson + 1) * 10_000_000 + self.step + peers.number() * 1_000_000_000
        stream = self.draw(lesson, self.config, self.tokenizer_path, seed)
        self.student.train()
        mean: dict[str, float] = {}
        while self.step < lesson.steps:
            started = time.perf_counter()
            rate = lesson.peak_lr + (lesson.final_lr - lesson.peak_lr) * self.step / lesson.steps
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = rate * min(1.0, (self.step + 1) / _WARM_UP)
            batch = next(stream).to(self.device)
            seeing = not lesson.answers or self.step % lesson.see_every == 0
            loss, parts = self.student.loss(batch, lesson, how, self.step, seeing)
            self.student.zero_grad(set_to_none=True)
            loss.backward()
            peers.average(self.student, self.student.balances())
            nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            self.images += len(batch.patches_BN) * peers.count()  # about: others draw batches of other sizes
            self.seconds += time.perf_counter() - started
            for name, value in parts.items():
                if not math.isfinite(value):  # a mean over nothing: no coordinate in the batch
                    continue
                mean[name] = mean.get(name, value) * 0.95 + value * 0.05
            if self.step % log_every == 0 and peers.number() == 0:
                figures = " ".join(f"{name} {value:.4f}" for name, value in mean.items())
                self.history.append(dict(mean))
                log(f"{lesson.name} {self.step}/{lesson.steps} {self.seconds:.0f}s {self.images} images {figures}")
            if self.step % save_every == 0:
                self.save()

    def save(self) -> None:
        """Write the whole training state, in one safetensors file that replaces the last."""
        if peers.number() != 0:
            return
        tensors = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        names = {id(p): name for name, p in self.student.named_parameters()}
        for parameter, moments in (item for optimizer in self.optimizers for item in optimizer.state.items()):
            for kind, value in moments.items():
                tensors[f"optimizer.{kind}.{names[id(parameter)]}"] = value
        stand: dict[str, Any] = {
            "lesson": self.lesson, "step": self.step, "seconds": self.seconds, "images": self.images,
            "history": self.history,
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "state.partial"
        copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        save_file(copies, partial, {"stand": json.dumps(stand)})
        partial.replace(self.folder / "state.safetensors")

    def _load(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.is_file():
            return
        with safe_open(path, "pt") as file:
            stand = json.loads(file.metadata()["stand"])
        tensors = load_file(path, str(self.device))
        student = {name[8:]: value for name, value in tensors.items() if name.startswith("student.")}
        self.student.load_state_dict(student)
        names = {id(p): name for name, p in self.student.named_parameters()}
        for optimizer, kinds in zip(self.optimizers, _MOMENTS, strict=True):
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                name = names[id(parameter)]
                if all(f"optimizer.{kind}.{name}" in tensors for kind in kinds):
                    optimizer.state[parameter] = {kind: tensors[f"optimizer.{kind}.{name}"] for kind in kinds}
        self.lesson, self.step = stand["lesson"], stand["step"]
        self.seconds, self.images = stand["seconds"], stand["images"]
        self.history = stand.get("history", [])
