"""Rejection fine-tuning: the experts answer many prompts, and their good responses are what the student is taught.

One student learns what both experts can do, from where both began: supervised training on tokens instead of references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from ..config import Config
from ..prompt import Tokenizer
from .batches import Batch, pooled
from .examples import Example, Material, encode_tokens
from .facts import facts_of
from .grpo import summary
from .lessons import Lesson
from .rollouts import Group, Sampler, draw_prompts, for_rejection, read, write


@dataclass(frozen=True)
class Collection:
    """How much an expert answers: `rollouts` to each of `prompts` from its `sources`, `at_once` prompts at a time."""

    sources: tuple[str, ...]
    prompts: int
    rollouts: int
    max_output_tokens: int
    at_once: int = 64


def collect(
    expert: Path, sampler: Sampler, path: Path, sizes: Collection, seed: int, log: Callable[[str], None]
) -> None:
    """Write what is good of an expert's responses to `path`; nothing to do when the file is there."""
    if path.is_file():
        return
    prompts = draw_prompts(sizes.sources, sizes.prompts, np.random.default_rng([seed, 1]))
    good: list[Group] = []
    for first in range(0, len(prompts), sizes.at_once):
        groups = sampler.groups_of(expert, prompts[first : first + sizes.at_once], sizes.rollouts, seed + first)
        good += for_rejection(groups, seed + first)
        kept = sum(len(group.rollouts) for group in good)
        log(f"{expert.parent.name}: {first + len(groups)}/{len(prompts)} prompts, {kept} responses kept, "
            f"correct {summary(groups)['correct']:.4f}")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, good)


class Rollouts(IterableDataset[Batch]):
    """An endless stream of batches of the responses in files, each file as often as the others."""

    def __init__(
        self, paths: Sequence[Path], lesson: Lesson, config: Config, tokenizer_path: str, seed: int
    ) -> None:
        self.paths, self.lesson, self.config, self.tokenizer_path, self.seed = paths, lesson, config, tokenizer_path, seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        return pooled(self._examples(rng), self.lesson, self.config, rng)

    def _examples(self, rng: np.random.Generator) -> Iterator[Example]:
        tokenizer = Tokenizer(self.tokenizer_path)
        files = [rows for rows in map(read, self.paths) if rows]
        while True:
            rows = files[int(rng.integers(len(files)))]
            prompt, ids = rows[int(rng.integers(len(rows)))]
            case = prompt.case()
            made = Material(case.image, case.question, case.response, facts_of(case))
            yield encode_tokens(made, list(ids), self.config, tokenizer)


def draw_of(paths: Sequence[Path]) -> Callable[[Lesson, Config, str, int], Iterator[Batch]]:
    """How a trainer draws its batches from these files. ValueError when there is no response in them."""
    if not any(read(path) for path in paths):
        raise ValueError(f"no response in {', '.join(map(str, paths))} was good; train the experts for longer")

    def draw(lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> Iterator[Batch]:
        stream = Rollouts(paths, lesson, config, tokenizer_path, seed)
        return iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4))

    return draw
