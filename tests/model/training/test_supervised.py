"""Training: batches say what the scene says, guidance points at it, and a stopped training goes on where it stood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.prompt import Tokenizer
from model.tasks import shapes
from model.training.lessons import IGNORE, Batch, Lesson, make_batch
from model.training.supervised import Student, Trainer
from tests.conftest import DEFAULT_CHECKPOINT
from tests.tiny import TINY

# Five layers, since the guided ones are counted from the default checkpoint's.
CONFIG = replace(TINY, num_hidden_layers=5, compress_ratios=(0, 0, 4, 16, 0), sliding_window=80)
LESSON = Lesson(
    "trial", 12, 4, (2, 4), questions=2, present_only=True, canvases=((168, 168), (320, 240)), spread=(3.0, 0.5)
)
TOKENIZER = Tokenizer(DEFAULT_CHECKPOINT)


def batch_number(seed: int, lesson: Lesson = LESSON) -> Batch:
    return make_batch(lesson, CONFIG, TOKENIZER, shapes.scene_rng(seed, "train"))


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_teaches_whole_responses_and_nothing_of_the_questions(seed: int) -> None:
    for tails in batch_number(seed).tails:
        for ids, labels in zip(tails.ids_MT, tails.labels_MT, strict=True):
            learnt = (labels != IGNORE).nonzero()[:, 0]
            text = TOKENIZER.decode(labels[learnt].tolist())
            assert text.startswith("<｜ref｜>") and text.endswith("<｜end▁of▁sentence｜>")
            assert torch.equal(ids[learnt[1:]], labels[learnt[:-1]])  # each token is fed after it was predicted
            assert TOKENIZER.decode(ids[: learnt[0] + 1].tolist()).endswith("<think>")


@pytest.mark.parametrize("seed", range(4))
def test_a_token_of_a_box_looks_at_the_cell_where_that_box_has_its_centre(seed: int) -> None:
    batch = batch_number(seed)
    found = 0
    for tails in batch.tails:
        numbers = [TOKENIZER.number_ids.index(i) if i in TOKENIZER.number_ids else -1 for i in range(CONFIG.vocab_size)]
        for row in range(len(tails.ids_MT)):
            opening = ((tails.ids_MT[row] == TOKENIZER.piece_id("[[")).nonzero()[:, 0]).tolist()
            for at in opening:
                box = [numbers[int(tails.labels_MT[row, at + 2 * k])] / 999 for k in range(4)]
                (slot,) = tails.look_MTC[row, at].nonzero()[:, 0].tolist()
                x, y = batch.cell_targets.centers[slot].tolist()
                geometry = batch.geometry
                assert abs((box[0] + box[2]) / 2 - x) <= 0.6 / geometry.columns + 0.1
                assert abs((box[1] + box[3]) / 2 - y) <= 0.6 / geometry.rows + 0.1
                found += 1
    assert found


def test_the_loss_falls_and_a_resumed_training_equals_one_that_never_stopped(tmp_path: Path) -> None:
    lines: list[str] = []
    through = Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path / "through")
    through.run(log=lines.append, save_every=6, log_every=1)
    losses = [float(line.split("loss ")[1]) for line in lines]
    assert losses[-1] < losses[0]

    half = Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path / "half")
    with pytest.raises(KeyboardInterrupt):
        half.run(log=_interrupt_at(8), save_every=6, log_every=1)
    resumed = Trainer(CONFIG, DEFAULT_CHECKPOINT, [LESSON], tmp_path / "half")
    assert (resumed.lesson, resumed.step) == (0, 6)
    resumed.run(log=lambda line: None, save_every=6)
    for name, value in through.student.model.state_dict().items():
        assert torch.allclose(value, resumed.student.model.state_dict()[name], atol=1e-5), name


def _interrupt_at(step: int) -> Callable[[str], None]:
    def log(line: str) -> None:
        if f" {step}/" in line:
            raise KeyboardInterrupt

    return log


def test_streams_do_not_start_alike() -> None:
    student = Student(CONFIG, TOKENIZER, seed=0)
    batch = batch_number(0)
    inner: list[torch.Tensor] = []
    ids = batch.tails[0].ids_MT
    with torch.no_grad():
        model = student.model
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        model(model.embed_prompt(ids), ids, positions, model.empty_state(len(ids)), inner=inner)
    assert (inner[-1][:, :, 0] - inner[-1][:, :, 1]).abs().max() > 1e-2


def test_numbers_start_soft_and_end_hard() -> None:
    assert [LESSON.spread_at(step) for step in (0, 6, 12)] == [3.0, 1.75, 0.5]
    student = Student(CONFIG, TOKENIZER, seed=0)
    labels = torch.tensor([TOKENIZER.number_ids[500]])

    def cost_of(number: int, spread: float) -> float:
        logits = torch.zeros(1, CONFIG.vocab_size)
        logits[0, TOKENIZER.number_ids[number]] = 12.0
        return float(student._answer_loss(logits, labels, spread)[0][0])

    # A near miss is worse than a hit, better than a far one, and forgiven less when hard.
    for spread in (3.0, 0.5):
        assert cost_of(500, spread) < cost_of(501, spread) < cost_of(520, spread)
    assert cost_of(501, 0.5) - cost_of(500, 0.5) > cost_of(501, 3.0) - cost_of(500, 3.0)


def test_a_step_is_taught_with_its_own_softness() -> None:
    student, batch = Student(CONFIG, TOKENIZER, seed=0).eval(), batch_number(0)  # eval: the gates stay as they are
    with torch.no_grad():
        losses = [float(student.loss(batch, LESSON, step)[0]) for step in (0, 0, 12)]
    assert losses[0] == losses[1] != losses[2]
