"""Supervised training: each part of the loss asks for what it says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from model.prompt import Tokenizer
from model.training import supervised, whole
from model.training.batches import Batch, collate
from model.training.examples import IGNORE, NOWHERE, encode, material
from model.training.lessons import Lesson
from model.training.supervised import (
    ANSWER_WEIGHT,
    CELL_LAYERS,
    GUIDED_HEADS,
    LABEL_LAYERS,
    WAY_LAYER,
    Student,
    guidance_loss,
    said,
)
from tests.conftest import DEFAULT_CHECKPOINT
from tests.tiny import TINY

TOKENIZER = Tokenizer(DEFAULT_CHECKPOINT)
# Five layers, since the guided ones are counted from the default checkpoint's.
CONFIG = replace(
    TINY, vocab_size=TOKENIZER.vocab_size, num_hidden_layers=5, compress_ratios=(0, 0, 16, 4, 0), sliding_window=48,
    index_topk=12, vision_max_n_token=88,
)  # fmt: skip
LESSON = Lesson("trial", 12, {"counting/easy": 1.0}, spread=(3.0, 0.5))
EXACT = whole.How()


def batch_of(source: str = "counting/easy") -> Batch:
    drawn = [encode(material(source, seed), CONFIG, TOKENIZER) for seed in range(40)]
    grids = [(example.geometry.rows, example.geometry.columns) for example in drawn]
    common = max(set(grids), key=grids.count)
    return collate([e for e, grid in zip(drawn, grids, strict=True) if grid == common][:4], CONFIG)


def looked_at(batch: Batch) -> list[whole.Seen]:
    """Weights of nothing, to be filled by hand."""
    count, length = batch.ids_BT.shape
    ratios = CONFIG.compress_ratios
    entries = [length // ratio if ratio else 0 for ratio in ratios]
    return [whole.Seen(torch.zeros(count, 4, length, length + each), None, torch.zeros(2, 4)) for each in entries]


def fill(looked: list[whole.Seen], batch: Batch, entry: bool) -> None:
    """The guided heads see the cell, raw or as an entry of CSA, and the label's tokens."""
    length = batch.ids_BT.shape[1]
    for row, token in (batch.look_BT >= 0).nonzero().tolist():
        at = int(batch.slots_C[batch.look_BT[row, token]])
        for layer in CELL_LAYERS:
            csa = CONFIG.compress_ratios[layer] == 4
            looked[layer].weights_BATK[row, :GUIDED_HEADS, token, length + at // 4 if entry and csa else at] = 1.0
    for row, token in batch.about_BT.nonzero().tolist():
        label = batch.label_BT[row, : token + 1].nonzero()[-1, 0]
        for layer in LABEL_LAYERS:
            looked[layer].weights_BATK[row, -GUIDED_HEADS:, token, label] = 1.0


@pytest.mark.parametrize("entry", [False, True])
def test_guidance_costs_nothing_where_the_cell_and_the_label_are_seen(entry: bool) -> None:
    batch = batch_of()
    looked = looked_at(batch)
    blank = float(guidance_loss(looked, batch, CONFIG))
    fill(looked, batch, entry)
    assert abs(float(guidance_loss(looked, batch, CONFIG))) < 1e-5 < 10 < blank


def test_before_a_step_is_chosen_the_way_layer_looks_at_where_it_starts() -> None:
    batch = batch_of("maze/easy")
    looked = looked_at(batch)
    fill(looked, batch, entry=False)
    length = batch.ids_BT.shape[1]
    seen = torch.arange(length) - batch.slots_C[batch.from_BT.clamp(min=0)] < CONFIG.sliding_window
    told = (batch.from_BT != NOWHERE) & seen
    assert bool(told.any()) and float(guidance_loss(looked, batch, CONFIG)) > 1
    for row, token in told.nonzero().tolist():
        at = int(batch.slots_C[batch.from_BT[row, token]])
        looked[WAY_LAYER].weights_BATK[row, :GUIDED_HEADS, token, at] = 1.0
    assert abs(float(guidance_loss(looked, batch, CONFIG))) < 1e-5


def test_guidance_asks_for_the_own_label_and_not_an_earlier_one() -> None:
    batch = batch_of()
    looked = looked_at(batch)
    fill(looked, batch, entry=False)
    for layer in LABEL_LAYERS:
        looked[layer].weights_BATK.zero_()
    for row in range(len(batch.ids_BT)):
        label = batch.label_BT[row].nonzero()[:, 0]
        if len(label):
            for layer in LABEL_LAYERS:
                looked[layer].weights_BATK[row, -GUIDED_HEADS:, :, label[0]] = 1.0  # always the first
    last = batch.about_BT & ((batch.label_BT & ~batch.label_BT.roll(1, 1)).cumsum(1) > 1)
    assert bool(last.any()) and float(guidance_loss(looked, batch, CONFIG)) > 0.5


def test_a_cell_that_the_window_has_left_is_asked_of_the_compressed_layer_alone() -> None:
    batch = batch_of()
    looked = looked_at(batch)
    length = batch.ids_BT.shape[1]
    fill(looked, batch, entry=True)
    token = torch.arange(length)
    gone = (batch.look_BT != NOWHERE) & (token - batch.slots_C[batch.look_BT.clamp(min=0)] >= CONFIG.sliding_window)
    assert bool(gone.any())
    for row, at in gone.nonzero().tolist():
        looked[4].weights_BATK[row, :, at] = 0.0  # the last layer has no way to see it
    assert abs(float(guidance_loss(looked, batch, CONFIG))) < 1e-5
    for row, at in gone.nonzero().tolist():
        looked[3].weights_BATK[row, :, at] = 0.0
    assert float(guidance_loss(looked, batch, CONFIG)) > 0.1


def test_coordinates_start_soft_and_end_hard_and_other_numbers_are_always_hard() -> None:
    assert [LESSON.spread_at(step) for step in (0, 6, 12)] == [3.0, 1.75, 0.5]
    student = Student(CONFIG, TOKENIZER, seed=0)
    labels = torch.tensor([TOKENIZER.number_ids[500]])

    def cost_of(number: int, spread: float, coordinate: bool = True) -> float:
        logits = torch.zeros(1, CONFIG.vocab_size)
        logits[0, TOKENIZER.number_ids[number]] = 12.0
        return float(student._token_loss(logits, labels, torch.tensor([coordinate]), spread)[0][0])

    # A near miss is worse than a hit, better than a far one, and forgiven less when hard.
    for spread in (3.0, 0.5):
        assert cost_of(500, spread) < cost_of(501, spread) < cost_of(520, spread)
    assert cost_of(501, 0.5) - cost_of(500, 0.5) > cost_of(501, 3.0) - cost_of(500, 3.0)
    assert cost_of(501, 3.0, coordinate=False) == cost_of(520, 3.0, coordinate=False) > cost_of(501, 3.0)


def test_the_vision_tower_learns_only_when_it_is_to() -> None:
    student, batch = Student(CONFIG, TOKENIZER, seed=0), batch_of()
    for learn in (False, True):
        student.zero_grad(set_to_none=True)
        loss, parts = student.loss(batch, LESSON, EXACT, learn_to_see=learn)
        loss.backward()
        grown = [p.grad is not None for p in student.model.vision.parameters()]
        assert any(grown) == learn and ("patch_there" in parts) == learn
        assert student.model.head.weight.grad is not None


def test_a_lesson_without_answers_teaches_the_tower_alone() -> None:
    student, batch = Student(CONFIG, TOKENIZER, seed=0), batch_of("maze/easy")
    loss, parts = student.loss(batch, replace(LESSON, answers=False), EXACT)
    loss.backward()
    assert student.model.head.weight.grad is None and {"patch_middle", "patch_passage"} <= set(parts)


def test_an_answer_weighs_more_than_a_word_of_thinking() -> None:
    student, batch = Student(CONFIG, TOKENIZER, seed=0).eval(), batch_of()
    strength = {}
    for part in ("answer", "thinking"):
        answered = (batch.ids_BT == TOKENIZER.end_think_id).cumsum(dim=1) > 0
        wanted = batch.labels_BT.masked_fill(answered if part == "thinking" else ~answered, IGNORE)
        student.zero_grad(set_to_none=True)
        only = replace(LESSON, dense=0.0, guidance=0.0)
        with_one = replace(batch, labels_BT=wanted, coordinate_BT=torch.zeros_like(batch.coordinate_BT))
        strength[part] = student.loss(with_one, only, EXACT)[0].item()
    words = replace(batch, coordinate_BT=torch.zeros_like(batch.coordinate_BT))
    both = student.loss(words, replace(LESSON, dense=0.0, guidance=0.0), EXACT)[0].item()
    answered = (batch.ids_BT == TOKENIZER.end_think_id).cumsum(dim=1) > 0
    learnt = batch.labels_BT != IGNORE
    weight = ANSWER_WEIGHT * int((learnt & answered).sum()), int((learnt & ~answered).sum())
    mixed = (weight[0] * strength["answer"] + weight[1] * strength["thinking"]) / sum(weight)
    assert ANSWER_WEIGHT > 1 and abs(both - mixed) < 0.05 * mixed


def test_labels_are_told_from_the_rest_of_the_thinking_and_from_the_answer() -> None:
    batch = batch_of()
    answers_BT, naming_BT = said(batch, TOKENIZER.end_think_id)
    learnt = batch.labels_BT != IGNORE
    for row in range(len(batch.ids_BT)):
        text = TOKENIZER.decode(batch.labels_BT[row][learnt[row]].tolist())
        thinking, answer = text.split("</think>")
        labels = re.findall("<｜ref｜>(.*?)<｜/ref｜>", thinking)
        assert labels
        assert TOKENIZER.decode(batch.labels_BT[row][learnt[row] & naming_BT[row]].tolist()) == "".join(labels)
        assert TOKENIZER.decode(batch.labels_BT[row][learnt[row] & answers_BT[row]].tolist()) == answer


def test_a_label_weighs_more_than_a_coordinate(monkeypatch: pytest.MonkeyPatch) -> None:
    student, batch = Student(CONFIG, TOKENIZER, seed=0).eval(), batch_of()
    only = replace(LESSON, dense=0.0, guidance=0.0)
    naming_BT = said(batch, TOKENIZER.end_think_id)[1]
    torch.nn.init.zeros_(student.model.head.weight)
    gradients = {}
    for weight in (1.0, 3.0):
        monkeypatch.setattr(supervised, "LABEL_WEIGHT", weight)
        student.zero_grad(set_to_none=True)
        student.loss(batch, only, EXACT)[0].backward()
        assert student.model.head.weight.grad is not None
        names = batch.labels_BT[naming_BT & (batch.labels_BT != IGNORE)].unique()
        gradients[weight] = float(student.model.head.weight.grad[names].norm())
    assert gradients[3.0] > 1.3 * gradients[1.0]


def test_words_for_where_a_way_goes_on_weigh_more_than_they_do_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    student, batch = Student(CONFIG, TOKENIZER, seed=0).eval(), batch_of("maze/easy")
    only = replace(LESSON, dense=0.0, guidance=0.0)
    directions = [token for word in (" right", " left", " up", " down") for token in TOKENIZER.encode(word)]
    torch.nn.init.zeros_(student.model.head.weight)

    def strength(of: Batch, weight: float) -> float:
        monkeypatch.setattr(supervised, "WAY_WEIGHT", weight)
        student.zero_grad(set_to_none=True)
        student.loss(of, only, EXACT)[0].backward()
        assert student.model.head.weight.grad is not None
        return float(student.model.head.weight.grad[directions].norm())

    assert strength(batch, 4.0) > 1.5 * strength(batch, 1.0)
    nowhere = replace(batch, from_BT=torch.full_like(batch.from_BT, NOWHERE))
    assert strength(nowhere, 4.0) == pytest.approx(strength(nowhere, 1.0), rel=0.01)  # experts' biases move


def test_experts_that_get_too_little_are_preferred_from_then_on() -> None:
    student = Student(CONFIG, TOKENIZER, seed=0)
    gate = next(iter(student.model.each_layer())).ffn.gate
    other = list(student.model.each_layer())[1].ffn.gate
    load = torch.tensor([[9, 1, 1, 1], [0, 0, 0, 8]])
    seen = [whole.Seen(torch.zeros(0), None, load) for _ in range(5)]
    student._balance(seen)
    assert gate.hashed and not bool(gate.bias.any())  # text goes by its hash there
    assert (gate.bias_vl > 0).tolist() == [True, True, True, False]
    assert (other.bias > 0).tolist() == [False, True, True, True]
