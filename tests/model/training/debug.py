"""A model small enough to train in a test, and hand-made rollouts for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from model.prompt import Tokenizer
from model.training.rewards import reward_of
from model.training.rollouts import Group, Prompt, Rollout, write_checkpoint
from model.training.supervised import Student
from tests.conftest import DEFAULT_CHECKPOINT
from tests.tiny import TINY

# Five layers, since the guided ones are counted from the default checkpoint's.
CONFIG = replace(TINY, num_hidden_layers=5, compress_ratios=(0, 0, 4, 16, 0), sliding_window=80)
TOKENIZER = Tokenizer(DEFAULT_CHECKPOINT)
CPU = torch.device("cpu")


def checkpoint(folder: Path, seed: int = 0) -> Path:
    """A checkpoint that has learnt nothing."""
    write_checkpoint(Student(CONFIG, TOKENIZER, seed).model, DEFAULT_CHECKPOINT, folder)
    return folder


def group(prompt: Prompt, *texts: str) -> Group:
    """Rollouts with these texts, each ended by EOS; an empty one stands for the reference."""
    case = prompt.case()
    full = [text or case.response for text in texts]
    rollouts = [Rollout((*TOKENIZER.encode(t), TOKENIZER.eos_id), t, reward_of(case, t)) for t in full]
    return Group(prompt, case, tuple(rollouts))
