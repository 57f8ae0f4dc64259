"""The command line of training: what it trains, writes and begins with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model import weights
from model.config import Config
from model.prompt import Tokenizer
from model.training import command
from model.training.heads import inherit_heads
from model.training.lessons import SCHOOL, Lesson
from model.training.supervised import Student
from model.training.trainer import Trainer
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.test_supervised import CONFIG
from tests.tiny import tiny_model

ONE_LESSON = (Lesson("trial", 2, {"shapes": 1.0}, batch_tokens=600),)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small configuration, and a school of one short lesson."""
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copy(DEFAULT_CHECKPOINT / "tokenizer.json", folder)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    monkeypatch.setattr(command, "SCHOOL", ONE_LESSON)
    return folder


def run(base: Path, *more: str) -> None:
    command.main(["--config", str(base), "--state", str(base.parent / "state"), "--threads", "1", *more])


def test_a_training_leaves_a_checkpoint_that_loads_and_can_be_written_again(base: Path) -> None:
    run(base)
    trained = weights.load(base.parent / "state" / "checkpoint").state_dict()
    run(base, "--export", "--checkpoint", str(base.parent / "again"))
    again = weights.load(base.parent / "again")
    assert again.image_id is not None  # the tokenizer came along
    assert all(torch.equal(tensor, trained[name]) for name, tensor in again.state_dict().items())


def test_an_export_draws_the_curves_of_what_was_logged(base: Path) -> None:
    trainer = Trainer(CONFIG, base, ONE_LESSON, base.parent / "state")
    trainer.history = [{"right": 0.5, "loss": 3.0}, {"right": 0.7, "loss": 2.0}]
    trainer.save()
    run(base, "--export")
    with Image.open(base.parent / "state" / "curves.png") as curves:
        assert curves.format == "PNG"


def test_a_new_training_begins_with_another_checkpoint_and_a_resumed_one_does_not(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = base.parent / "parent"
    weights.save(tiny_model(CONFIG), parent, torch.float32)
    shutil.copy(DEFAULT_CHECKPOINT / "tokenizer.json", parent)
    run(base, "--begin-with", str(parent), "--export", "--checkpoint", str(base.parent / "first"))
    assert "gave all but nothing, and no dense heads" in capsys.readouterr().out
    theirs, ours = (weights.load(folder).state_dict() for folder in (parent, base.parent / "first"))
    assert all(torch.allclose(tensor, theirs[name], atol=2e-2, rtol=1e-2) for name, tensor in ours.items())
    run(base, "--begin-with", str(parent), "--checkpoint", str(base.parent / "second"))
    capsys.readouterr()
    run(base, "--begin-with", str(parent), "--export", "--checkpoint", str(base.parent / "third"))
    assert "gave" not in capsys.readouterr().out


def test_what_goes_on_from_an_exported_checkpoint_begins_with_its_dense_heads(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(base, "--checkpoint", str(base.parent / "first"))
    first = Trainer(CONFIG, base, ONE_LESSON, base.parent / "state").student
    run(base, "--state", str(base.parent / "other"), "--export", "--begin-with", str(base.parent / "first"))
    assert "and its dense heads" in capsys.readouterr().out
    student = Student(CONFIG, Tokenizer(base), 7)
    assert inherit_heads(student, base.parent / "other" / "checkpoint")
    for name, tensor in student.patch_head.state_dict().items():
        assert torch.allclose(tensor, first.patch_head.state_dict()[name], atol=1e-2)


def test_the_school_takes_every_suite_and_its_shares_are_of_known_sources() -> None:
    assert [lesson.answers for lesson in SCHOOL] == [False, True, True]
    suites = {source.partition("/")[0] for source in SCHOOL[-1].sources}
    assert suites == {"shapes", "counting", "spatial", "reading", "maze", "path_tracing"}


def test_a_shortened_lesson_has_a_step_at_least() -> None:
    assert [SCHOOL[0].shortened(share).steps for share in (1.0, 0.5, 1e-9)] == [4000, 2000, 1]


def test_a_stage_that_there_is_not_is_refused_with_those_there_are(base: Path) -> None:
    with pytest.raises(ValueError, match=r"no stage 'grpo'.*box_rl"):
        run(base, "--stage", "grpo", "--debug-size")


def test_stages_take_a_base_as_it_is_and_say_what_is_to_be_run_first(base: Path) -> None:
    parent = base.parent / "parent"
    weights.save(tiny_model(CONFIG), parent, torch.float32)
    shutil.copy(DEFAULT_CHECKPOINT / "tokenizer.json", parent)
    with pytest.raises(ValueError, match="run box_sft first"):
        run(base, "--stage", "box_rl", "--debug-size", "--begin-with", str(parent))
    taken = weights.load(base.parent / "state" / "base" / "checkpoint").state_dict()
    assert all(torch.equal(tensor, taken[name]) for name, tensor in weights.load(parent).state_dict().items())


def test_a_blind_model_is_taught_the_same_lessons_with_their_images_greyed_out(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Lesson] = []

    class Recorded(Trainer):
        def __init__(self, config: Config, path: Path, lessons: list[Lesson], *rest: Any) -> None:
            taught.extend(lessons)
            super().__init__(config, path, lessons, *rest)

    monkeypatch.setattr(command, "Trainer", Recorded)
    monkeypatch.setattr(command, "SCHOOL", (replace(ONE_LESSON[0], answers=False), *ONE_LESSON))
    run(base, "--greyed")  # one that only teaches to see has nothing to teach
    assert taught == [replace(lesson, greyed=True) for lesson in ONE_LESSON]
    for other in ("--score", "--stage=base"):
        with pytest.raises(SystemExit):
            run(base, "--greyed", other)
