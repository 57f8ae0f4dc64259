"""Supervised training: lessons in order, resumable at any step.

The loss of one batch is the response's cross-entropy plus three that help the model to look, all dropped afterwards:
dense targets on the vision tower and on the language model's image tokens, guidance (the tokens of a box attend to the
cell that the box is about), and the indexer's (rank entries as attention weighs them).
Shapes: B images, Q questions each, M = B * Q, P prompt tokens, T tail tokens, C cells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..attention import AttentionTrace, LayerState
from ..config import Config
from ..experts import Gate
from ..image import span
from ..prompt import Tokenizer
from ..state import select
from ..vision_language_model import VisionLanguageModel
from .dense import DenseHead
from .initialise import initialise
from .lessons import IGNORE, Batch, Lesson, Tails, batches

DENSE_LAYER = 1  # the language model's image tokens answer the dense questions after this layer
LABEL_LAYERS = (1, 2)
CELL_LAYERS = (3, 4)
GUIDED_HEADS = 2  # the last heads of a label layer read the label, the first ones of a cell layer look at cells
BALANCE_STEP = 1e-3
ALL_ENTRIES = 1 << 20


class Student(nn.Module):
    """The model with the heads that only training needs."""

    def __init__(self, config: Config, tokenizer: Tokenizer, seed: int) -> None:
        super().__init__()
        self.model = VisionLanguageModel(config)
        initialise(self.model, tokenizer.number_ids, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.patch_head = DenseHead(config.vision_dim, relative=True)
            self.cell_head = DenseHead(config.hidden_size, relative=False)
        self.number_ids = torch.tensor(tokenizer.number_ids)
        self.value_of_id = torch.full((config.vocab_size,), -1)
        self.value_of_id[self.number_ids] = torch.arange(len(self.number_ids))
        for module in self.modules():
            if isinstance(module, Gate):
                module.register_forward_hook(_balance)

    def loss(
        self, batch: Batch, lesson: Lesson, step: int = 0, learn_to_see: bool = True
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch and its parts. Without `learn_to_see` the vision tower is left as it is."""
        model, geometry = self.model, batch.geometry
        patches = batch.patches_BN.to(model.image_start.dtype)
        loss, parts = torch.zeros(()), {}
        with torch.set_grad_enabled(learn_to_see):
            features_BNV = model.vision(patches, geometry.patch_rows, geometry.patch_columns)
        if learn_to_see:
            dense, named = self.patch_head(features_BNV, batch.patch_targets)
            loss = lesson.dense * dense
            parts = {f"patch_{name}": value for name, value in named.items()}
        if lesson.questions:
            answering, more = self._answer(batch, lesson, lesson.spread_at(step), features_BNV)
            loss, parts = loss + answering, parts | more
        return loss, parts | {"loss": loss.item()}

    def _answer(
        self, batch: Batch, lesson: Lesson, spread: float, features_BNV: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        model, geometry, images = self.model, batch.geometry, len(batch.patches_BN)
        cells = model.aligner(features_BNV, geometry.patch_rows, geometry.patch_columns)
        order = span(geometry.rows, geometry.columns, 0).order
        prefix_BP = batch.prefix_ids_P.expand(images, -1)
        positions = torch.arange(prefix_BP.shape[1]).expand(images, -1)
        inner: list[Tensor] = []
        embeddings = model.embed_prompt(prefix_BP, cells[:, order])
        _, state = model(embeddings, prefix_BP, positions, model.empty_state(images), inner=inner)
        dense, parts = self.cell_head(inner[DENSE_LAYER].mean(dim=2)[:, batch.slots_C], batch.cell_targets)
        parts = {f"cell_{name}": value for name, value in parts.items()}

        loss = lesson.dense * 0.5 * dense
        share = sum(int((tails.labels_MT != IGNORE).sum()) for tails in batch.tails)
        for tails in batch.tails:
            more, named = self._answer_tails(tails, batch.slots_C, state, prefix_BP.shape[1], lesson, spread)
            weight = int((tails.labels_MT != IGNORE).sum()) / share
            loss = loss + weight * more
            for name, value in named.items():
                parts[name] = float(parts.get(name, 0.0)) + weight * value
        return loss, parts

    def _answer_tails(
        self, tails: Tails, slots_C: Tensor, state: list[LayerState], start: int, lesson: Lesson, spread: float
    ) -> tuple[Tensor, dict[str, float]]:
        model, ids = self.model, tails.ids_MT
        positions = (torch.arange(ids.shape[1]) + start).expand_as(ids)
        trace: list[AttentionTrace] = []
        hidden, _ = model(model.embed_prompt(ids), ids, positions, select(state, tails.images_M), trace=trace)
        learnt = tails.labels_MT != IGNORE
        labels = tails.labels_MT[learnt]
        logits = model.head(hidden[learnt])
        each, off = self._answer_loss(logits, labels, spread)
        look, index = _guidance_loss(trace, tails, slots_C, start), _indexer_loss(trace)
        about = tails.about_MT[learnt]
        with torch.no_grad():
            right = (logits.argmax(-1) == labels).float()
            parts = {"look": look.item(), "index": index.item(), "off": off.item()}
            if bool(about.any()):
                parts |= {"box": each[about].mean().item()}
            parts |= {"text": each[~about].mean().item(), "right": right[~about].mean().item()}
        return each.mean() + 5 * off + lesson.guidance * look + 0.1 * index, parts

    def _answer_loss(self, logits: Tensor, labels: Tensor, spread: float) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each token, with numbers spread over their neighbours; and how far off the numbers are.

        A thousand numbers as a thousand classes see too few examples each; a number's neighbours are nearly right.
        The distance is that of the expected value, as a share of the image's side.
        """
        log_p = logits.log_softmax(-1)
        each = -log_p.gather(1, labels[:, None])[:, 0]
        value = self.value_of_id[labels]
        is_number = value >= 0
        if not bool(is_number.any()):
            return each, logits.new_zeros(())
        log_numbers = log_p[is_number][:, self.number_ids]  # [n, 1000]
        every = torch.arange(len(self.number_ids), device=labels.device)
        near = (-(every - value[is_number, None]).abs() / spread).softmax(-1)
        expected = (log_numbers.softmax(-1) * every).sum(-1)
        off = (expected - value[is_number]).abs().mean() / len(self.number_ids)
        return each.masked_scatter(is_number, -(near * log_numbers).sum(-1)), off


def _guidance_loss(trace: list[AttentionTrace], tails: Tails, slots_C: Tensor, start: int) -> Tensor:
    """How little the guided heads see of what they should, as -log of its share: the later layers' first heads of the
    cells, the earlier layers' last heads of the label.

    Raw keys lie at their positions, since the window still holds the whole prompt and the tail.
    """
    loss = torch.zeros(())
    guided = tails.look_MTC.any(-1)
    for layer in CELL_LAYERS if bool(guided.any()) else ():
        seen_MATC = trace[layer].probabilities_BATK[:, :GUIDED_HEADS][..., slots_C]
        share_MAT = (seen_MATC * tails.look_MTC[:, None]).sum(-1).clamp(min=1e-6)
        loss = loss - share_MAT.log().transpose(1, 2)[guided].mean() / len(CELL_LAYERS)
    for layer in LABEL_LAYERS if bool(tails.about_MT.any()) else ():
        tail = slice(start, start + tails.ids_MT.shape[1])
        seen_MATT = trace[layer].probabilities_BATK[:, -GUIDED_HEADS:, :, tail]
        share_MAT = (seen_MATT * tails.label_MT[:, None, None]).sum(-1).clamp(min=1e-6)
        loss = loss - 0.5 * share_MAT.log().transpose(1, 2)[tails.about_MT].mean() / len(LABEL_LAYERS)
    return loss


def _indexer_loss(trace: list[AttentionTrace]) -> Tensor:
    """Cross-entropy of the indexer's scores against the share of attention that each entry got, heads together."""
    loss = torch.zeros(())
    for seen in trace:
        if seen.index_scores_BTE is None or not seen.index_scores_BTE.shape[2]:
            continue
        weights = seen.probabilities_BATK[..., -seen.index_scores_BTE.shape[2] :].detach().mean(dim=1)
        any_seen = weights.sum(-1) > 1e-4
        target = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
        log_rank = seen.index_scores_BTE.masked_fill(weights == 0, -1e4).log_softmax(-1)
        loss = loss - ((target * log_rank).sum(-1) * any_seen).sum() / any_seen.sum().clamp(min=1)
    return loss


@torch.no_grad()
def _balance(gate: Gate, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    """Nudge the biases towards experts that get too little, for text and image tokens apart (noaux_tc)."""
    if not gate.training:
        return
    image_N = inputs[1] >= gate.config.vocab_size
    for bias, mask in ((gate.bias, ~image_N), (gate.bias_vl, image_N)):
        if bool(mask.any()) and not (gate.hashed and bias is gate.bias):
            load = output[0][mask].flatten().bincount(minlength=len(bias)).float()
            bias.add_(BALANCE_STEP * (load.mean() - load).sign())


class Trainer:
    """Runs lessons in order and saves where it stands; constructed on a folder with a saved state, it goes on there."""

    def __init__(
        self, config: Config, tokenizer_path: str | Path, lessons: Iterable[Lesson], folder: Path, seed: int = 0
    ) -> None:
        self.config, self.tokenizer_path, self.lessons = config, str(tokenizer_path), tuple(lessons)
        self.folder, self.seed = folder, seed
        self.student = Student(config, Tokenizer(tokenizer_path), seed)
        decayed = [p for p in self.student.parameters() if p.requires_grad and p.ndim == 2]
        others = [p for p in self.student.parameters() if p.requires_grad and p.ndim != 2]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.97), fused=True)
        self.lesson, self.step, self.seconds, self.images = 0, 0, 0.0, 0
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
        model_config = self.config if lesson.sparse else replace(self.config, index_topk=ALL_ENTRIES)
        for layer in self.student.model.each_layer():
            layer.attn.config = model_config
        # Every lesson draws from seeds of its own, and a resumed one does not repeat what it saw.
        seed = self.seed + (self.lesson + 1) * 10_000_000 + self.step
        stream = batches(lesson, self.config, self.tokenizer_path, seed)
        self.student.train()
        mean: dict[str, float] = {}
        while self.step < lesson.steps:
            started = time.perf_counter()
            rate = lesson.peak_lr + (lesson.final_lr - lesson.peak_lr) * self.step / lesson.steps
            for group in self.optimizer.param_groups:
                group["lr"] = rate * min(1.0, (self.step + 1) / 50)
            batch = next(stream)
            seeing = lesson.see_every > 0 and self.step % lesson.see_every == 0
            loss, parts = self.student.loss(batch, lesson, self.step, seeing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            self.images += len(batch.patches_BN)
            self.seconds += time.perf_counter() - started
            for name, value in parts.items():
                mean[name] = mean.get(name, value) * 0.95 + value * 0.05
            if self.step % log_every == 0:
                figures = " ".join(f"{name} {value:.4f}" for name, value in mean.items())
                log(f"{lesson.name} {self.step}/{lesson.steps} {self.seconds:.0f}s {self.images} images {figures}")
            if self.step % save_every == 0:
                self.save()

    def save(self) -> None:
        """Write the whole training state, in one safetensors file that replaces the last."""
        tensors = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        names = {id(p): name for name, p in self.student.named_parameters()}
        for parameter, moments in self.optimizer.state.items():
            for kind, value in moments.items():
                tensors[f"optimizer.{kind}.{names[id(parameter)]}"] = value
        stand = {"lesson": self.lesson, "step": self.step, "seconds": self.seconds, "images": self.images}
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
        tensors = load_file(path)
        student = {name[8:]: value for name, value in tensors.items() if name.startswith("student.")}
        self.student.load_state_dict(student)
        for name, parameter in self.student.named_parameters():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.step.{name}" in tensors:
                self.optimizer.state[parameter] = {kind: tensors[f"optimizer.{kind}.{name}"] for kind in kinds}
        self.lesson, self.step = stand["lesson"], stand["step"]
        self.seconds, self.images = stand["seconds"], stand["images"]
