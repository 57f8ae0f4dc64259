"""Rejection fine-tuning: the experts answer many prompts, and their good responses are what the student is taught.

One student learns what both experts can do, from where both began: supervised training on tokens instead of references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from ..config import Config
from ..prompt import Tokenizer
from .batches import Batch, ahead, pooled
from .examples import Example, Material, encode_tokens
from .facts import facts_of
from .lessons import Lesson
from .rollouts import Prompt, Sampler, draw_prompts, for_rejection, read, summary, write
from .trainer import Draw


@dataclass(frozen=True)
class Collection:
    """How much an expert answers: `rollouts` to each of `prompts` from its `sources`, `at_once` prompts at a time."""

    sources: tuple[str, ...]
    prompts: int
    rollouts: int
    max_output_tokens: int
    at_once: int = 64


def collect(
    expert: Path, sampler: Sampler, folder: Path, sizes: Collection, seed: int, log: Callable[[str], None]
) -> None:
    """Write what is good of an expert's responses into `folder`, a file for each portion; those there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = draw_prompts(sizes.sources, sizes.prompts, np.random.default_rng([seed, 1]))
    for first in range(0, len(prompts), sizes.at_once):
        path = folder / f"{first:06d}.jsonl"
        if path.is_file():
            continue
        groups = sampler.groups_of(expert, prompts[first : first + sizes.at_once], sizes.rollouts, seed + first)
        good = for_rejection(groups, seed + first)
        write(path, good)
        kept, correct = sum(len(group.rollouts) for group in good), summary(groups)["correct"]
        log(f"{folder.name} {first + len(groups)}/{len(prompts)} prompts, correct {correct:.4f}, {kept} kept")


def collected(folder: Path) -> list[tuple[Prompt, tuple[int, ...]]]:
    """The prompts and tokens of a folder's files."""
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read(path)]


class Rollouts(IterableDataset[Batch]):
    """An endless stream of batches of the responses collected in folders, each folder as often as the others."""

    def __init__(
        self, folders: Sequence[Path], lesson: Lesson, config: Config, tokenizer_path: str, seed: int
    ) -> None:  # fmt: skip
        self.folders, self.seed = folders, seed
        self.lesson, self.config, self.tokenizer_path = lesson, config, tokenizer_path

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        return pooled(self._examples(rng), self.lesson, self.config, rng)

    def _examples(self, rng: np.random.Generator) -> Iterator[Example]:
        tokenizer = Tokenizer(self.tokenizer_path)
        each = [rows for rows in map(collected, self.folders) if rows]
        while True:
            rows = each[int(rng.integers(len(each)))]
            prompt, ids = rows[int(rng.integers(len(rows)))]
            case = prompt.case()
            made = Material(case.image, case.question, case.response, facts_of(case))
            yield encode_tokens(made, list(ids), self.config, tokenizer)


def draw_of(folders: Sequence[Path]) -> Draw:
    """How a trainer draws its batches from these folders. ValueError when there is no response in them."""
    if not any(map(collected, folders)):
        raise ValueError(f"no response in {', '.join(map(str, folders))} was good; train the experts for longer")

    def draw(lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> Iterator[Batch]:
        return ahead(Rollouts(folders, lesson, config, tokenizer_path, seed))

    return draw
