"""Supervised training: the loss of a batch.

It is the response's cross-entropy plus three losses that help the model to look, all dropped afterwards: dense targets
on the vision tower and on the language model's image tokens, guidance (a token that is about a place attends to its
cell), and the indexer's (rank entries as attention weighs them).
Shapes: B examples, T tokens, C cells, L learnt tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import CSA_RATIO
from ..config import Config
from ..prompt import Tokenizer
from ..tasks.maze_tracing import CLOSED, DEAD_END, DIRECTIONS, FORK, GOAL, WAY
from ..vision_language_model import VisionLanguageModel
from . import whole
from .batches import Batch
from .dense import DenseHead, DetailHead
from .examples import IGNORE, NOWHERE
from .initialise import initialise
from .lessons import Lesson

DENSE_LAYER = 1  # the language model's image tokens answer the dense questions after this layer
LABEL_LAYERS = (1, 2)
WAY_LAYER = 2
CELL_LAYERS = (3, 4)
GUIDED_HEADS = 2  # the last heads of a label layer read the label, the first ones of the others look at cells
BALANCE_STEP = 1e-3
ANSWER_WEIGHT = 3.0  # of a token after </think>: what the thinking is for
LABEL_WEIGHT = 3.0  # of a token of a label: what is seen there, among many more coordinates of where
WAY_WEIGHT = 4.0  # of a token that says whether a way turns, ends, or where it goes on


class Student(nn.Module):
    """The model with the heads that only training needs."""

    number_ids: Tensor
    value_of_id: Tensor
    is_way: Tensor

    def __init__(self, config: Config, tokenizer: Tokenizer, seed: int) -> None:
        super().__init__()
        self.model = VisionLanguageModel(config)
        initialise(self.model, tokenizer.number_ids, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.patch_head = DenseHead(config.vision_dim, relative=True)
            self.cell_head = DenseHead(config.hidden_size, relative=False)
            self.detail_head = DetailHead(config.hidden_size, config.vision_downsample_ratio)
        number_ids = torch.tensor(tokenizer.number_ids)
        value_of_id = torch.full((config.vocab_size,), -1)
        value_of_id[number_ids] = torch.arange(len(number_ids))
        self.register_buffer("number_ids", number_ids, persistent=False)
        is_way = torch.zeros(config.vocab_size, dtype=torch.bool)
        words = [WAY, FORK, DEAD_END, GOAL, *(f" {each}" for each in (CLOSED, *DIRECTIONS)), "]]", "],[", *"0123456789"]
        is_way[[token for word in words for token in tokenizer.encode(word)]] = True
        self.register_buffer("value_of_id", value_of_id, persistent=False)
        self.register_buffer("is_way", is_way, persistent=False)
        self.end_think_id = tokenizer.end_think_id

    def loss(
        self, batch: Batch, lesson: Lesson, how: whole.How, step: int = 0, learn_to_see: bool = True
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch and its parts. Without `learn_to_see` the vision tower is left as it is."""
        model, ratio = self.model, self.model.aligner.ratio
        rows, columns = batch.rows * ratio, batch.columns * ratio
        loss, parts = torch.zeros(()), {}
        with torch.set_grad_enabled(learn_to_see):
            features_BNV = whole.see(model.vision, batch.patches_BN.float(), batch.seen_BN, rows, columns, how)
        if learn_to_see:
            dense, named = self.patch_head(features_BNV, batch.patch_targets, rows, columns)
            loss = lesson.dense * dense
            parts = {f"patch_{name}": value for name, value in named.items()}
        if lesson.answers:
            answering, more = self._answer(batch, lesson, how, step, features_BNV)
            loss, parts = loss + answering, parts | more
        return loss, parts | {"loss": loss.item()}

    def _answer(
        self, batch: Batch, lesson: Lesson, how: whole.How, step: int, features_BNV: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        model = self.model
        cells = whole.align(model.aligner, features_BNV, batch.rows, batch.columns, how)
        embeddings = model.embed_prompt(batch.ids_BT, cells[:, batch.order])
        hidden, looked, after = whole.forward(model, embeddings, batch.ids_BT, how)
        self._balance(looked)
        inner = after[DENSE_LAYER].mean(dim=2)[:, batch.slots_C]
        grid = batch.rows, batch.columns
        dense, parts = self.cell_head(inner, batch.cell_targets, *grid, batch.order, batch.extents_B2)
        detail, more = self.detail_head(inner, batch.patch_targets, *grid, batch.order)
        dense, parts = dense + detail, {f"cell_{name}": value for name, value in (parts | more).items()}

        learnt = batch.labels_BT != IGNORE
        labels_L, coordinate_L = batch.labels_BT[learnt], batch.coordinate_BT[learnt]
        logits = whole.linear(hidden[learnt], model.head.weight, how.product_type)
        each_L, off = self._token_loss(logits, labels_L, coordinate_L, lesson.spread_at(step))
        answers_L, naming_L = (each_BT[learnt] for each_BT in said(batch, self.end_think_id))
        ways_L = self.is_way[labels_L] & (batch.from_BT[learnt] != NOWHERE) & ~coordinate_L
        weight_L = torch.where(naming_L, LABEL_WEIGHT, torch.where(ways_L, WAY_WEIGHT, 1.0))
        weight_L = torch.where(answers_L, ANSWER_WEIGHT, weight_L)
        look, index = guidance_loss(looked, batch, model.config), indexer_loss(looked)
        with torch.no_grad():
            right_L = (logits.argmax(-1) == labels_L).float()
            words = ~coordinate_L & ~answers_L
            parts |= {"look": look.item(), "index": index.item(), "off": off.item()}
            parts |= {"coordinate": each_L[coordinate_L].mean().item(), "text": each_L[words].mean().item()}
            parts |= {"right": right_L[words].mean().item(), "answer": right_L[answers_L].mean().item()}
            parts |= {"named": right_L[naming_L].mean().item(), "ways": right_L[ways_L & ~answers_L].mean().item()}
        answered = (each_L * weight_L).sum() / weight_L.sum()
        loss = answered + 5 * off + lesson.guidance * look + 0.1 * index + lesson.dense * 0.5 * dense
        return loss, parts

    def _token_loss(
        self, logits: Tensor, labels_L: Tensor, coordinate_L: Tensor, spread: float
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each token, with coordinates spread over their neighbours; and how far off those are.

        A thousand numbers as a thousand classes see too few examples each; a number's neighbours are nearly right.
        The distance is that of the expected value, as a share of the image's side.
        """
        each_L = F.cross_entropy(logits, labels_L, reduction="none")
        if not bool(coordinate_L.any()):
            return each_L, logits.new_zeros(())
        numbers = logits[coordinate_L]
        value = self.value_of_id[labels_L[coordinate_L]]
        log_numbers = numbers[:, self.number_ids] - numbers.logsumexp(-1, keepdim=True)  # [n, 1000]
        every = torch.arange(len(self.number_ids), device=logits.device)
        near = (-(every - value[:, None]).abs() / spread).softmax(-1)
        expected = (log_numbers.softmax(-1) * every).sum(-1)
        off = (expected - value).abs().mean() / len(self.number_ids)
        return each_L.masked_scatter(coordinate_L, -(near * log_numbers).sum(-1)), off

    def balances(self) -> list[Tensor]:
        """The biases that even out the experts' loads, which no gradient moves."""
        return [bias for layer in self.model.each_layer() for bias in (layer.ffn.gate.bias, layer.ffn.gate.bias_vl)]

    @torch.no_grad()
    def _balance(self, looked: list[whole.Seen]) -> None:
        """Nudge the biases towards experts that get too little, for text and image tokens apart (noaux_tc)."""
        for layer, seen in zip(self.model.each_layer(), looked, strict=True):
            gate = layer.ffn.gate
            for bias, load in zip((gate.bias, gate.bias_vl), seen.load_2X.float(), strict=True):
                if not (gate.hashed and bias is gate.bias):
                    bias.add_(BALANCE_STEP * (load.mean() - load).sign())


def said(batch: Batch, end_think_id: int) -> tuple[Tensor, Tensor]:
    """Of which tokens [B, T] the next one belongs to the answer, and to a reference's label."""
    answers_BT = (batch.ids_BT == end_think_id).cumsum(dim=1) > 0
    return answers_BT, F.pad(batch.label_BT[:, 1:], (0, 1))


def guidance_loss(looked: list[whole.Seen], batch: Batch, config: Config) -> Tensor:
    """How little the guided heads see of what they should, as -log of its share: the last layers' first heads of the
    cell that is told, the way layer's of the cell that a way has come to, before the next is chosen, and the earlier
    layers' last heads of the label. What the window has left is not asked for."""
    loss = torch.zeros((), device=batch.ids_BT.device)
    for layer in CELL_LAYERS:
        loss = loss + _blindness(looked[layer], batch, batch.look_BT, config.compress_ratios[layer], config) / 2
    loss = loss + 0.5 * _blindness(looked[WAY_LAYER], batch, batch.from_BT, config.compress_ratios[WAY_LAYER], config)
    if bool(batch.about_BT.any()):
        begins = batch.label_BT & ~batch.label_BT.roll(1, dims=1)
        number_BT = begins.cumsum(dim=1)  # which label a token belongs to, or comes after
        own_BTT = batch.label_BT[:, None] & (number_BT[:, None] == number_BT[..., None])
        for layer in LABEL_LAYERS:
            weights = looked[layer].weights_BATK[:, -GUIDED_HEADS:, :, : batch.ids_BT.shape[1]]
            share_BAT = (weights * own_BTT[:, None]).sum(-1).clamp(min=1e-6)
            loss = loss - 0.5 * share_BAT.log().transpose(1, 2)[batch.about_BT].mean() / len(LABEL_LAYERS)
    return loss


def _blindness(seen: whole.Seen, batch: Batch, slots_BT: Tensor, ratio: int, config: Config) -> Tensor:
    """-log of the share that a layer's first heads give to a cell, raw or in an entry; of the tokens that have one."""
    length, asked = batch.ids_BT.shape[1], slots_BT >= 0
    weights = seen.weights_BATK[:, :GUIDED_HEADS]
    cell_BT = batch.slots_C[slots_BT.clamp(min=0)]  # the position of its IMAGE token
    places = [cell_BT]
    if ratio == CSA_RATIO:
        entry = length + cell_BT // CSA_RATIO  # the entry of its own window, and the next, which overlaps it
        places += [entry, (entry + 1).clamp(max=weights.shape[-1] - 1)]
    else:
        asked = asked & (torch.arange(length, device=cell_BT.device) - cell_BT < config.sliding_window)
    if not bool(asked.any()):
        return weights.new_zeros(())
    index = torch.stack(places, dim=-1)[:, None].expand(-1, GUIDED_HEADS, -1, -1)
    share_BAT = weights.gather(3, index).sum(-1).clamp(min=1e-6)
    return -share_BAT.log().transpose(1, 2)[asked].mean()


def indexer_loss(looked: list[whole.Seen]) -> Tensor:
    """Cross-entropy of the indexer's scores against the share of attention that each entry got, heads together."""
    loss = torch.zeros(())
    for seen in looked:
        if seen.scores_BTE is None:
            continue
        weights = seen.weights_BATK[..., -seen.scores_BTE.shape[2] :].detach().mean(dim=1)
        any_seen = weights.sum(-1) > 1e-4
        target = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
        log_rank = seen.scores_BTE.masked_fill(weights == 0, -1e4).log_softmax(-1)
        loss = loss - ((target * log_rank).sum(-1) * any_seen).sum() / any_seen.sum().clamp(min=1)
    return loss
