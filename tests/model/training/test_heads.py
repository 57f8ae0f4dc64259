"""The dense heads of a training go with its checkpoint, and only to those who ask the same questions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model import weights
from model.training import heads
from model.training.heads import HEADS, inherit_heads, save_heads
from model.training.supervised import Student
from tests.model.training.debug import CONFIG, TOKENIZER, checkpoint


def test_heads_are_taken_over_in_bf16_and_the_model_is_not(tmp_path: Path) -> None:
    parent, child = Student(CONFIG, TOKENIZER, 1), Student(CONFIG, TOKENIZER, 2)
    before = {name: tensor.clone() for name, tensor in child.model.state_dict().items()}
    save_heads(parent, tmp_path)
    assert inherit_heads(child, tmp_path)
    for part in ("patch_head", "cell_head", "detail_head"):
        theirs = getattr(parent, part).state_dict()
        for name, tensor in getattr(child, part).state_dict().items():
            assert torch.equal(tensor, theirs[name].bfloat16().float()), (part, name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in child.model.state_dict().items())


def test_a_checkpoint_with_heads_beside_it_loads_as_before(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    save_heads(Student(CONFIG, TOKENIZER, 1), folder)
    assert (folder / HEADS).is_file()
    weights.load(folder)


def test_heads_of_other_classes_or_shapes_or_none_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = Student(CONFIG, TOKENIZER, 1)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert not inherit_heads(student, tmp_path)
    monkeypatch.setattr(heads, "_MEANING", "another")
    save_heads(Student(CONFIG, TOKENIZER, 2), tmp_path / "classes")
    monkeypatch.undo()
    assert not inherit_heads(student, tmp_path / "classes")
    wider = Student(CONFIG, TOKENIZER, 2)
    wider.patch_head.exits = torch.nn.Linear(CONFIG.vision_dim, 3)
    save_heads(wider, tmp_path / "shapes")
    assert not inherit_heads(student, tmp_path / "shapes")
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
