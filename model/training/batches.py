"""Batches: examples of one grid and of similar length, padded to one rectangle.

Shapes: B examples, N patches of the whole grid (three by three a cell), T tokens, C cells.
"""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..config import Config
from ..image import TokenType, span
from ..prompt import Tokenizer
from ..tasks.blindness import greyed
from .examples import IGNORE, NOWHERE, Example, encode, material
from .lessons import Lesson
from .targets import DenseTargets

LENGTH_STEP = 32  # tokens are padded to a multiple, so that few shapes occur
_POOL = 3  # batches' worth of examples of one grid, from which the most alike in length are taken


@dataclass(frozen=True)
class Batch:
    """`seen_BN`: the patches that the images have; the others fill the grid. `slots_C`: where the IMAGE slots stand.
    `extents_B2`: rows and columns of patches that each image has."""

    rows: int
    columns: int
    patches_BN: Tensor
    seen_BN: Tensor
    ids_BT: Tensor
    labels_BT: Tensor
    coordinate_BT: Tensor
    look_BT: Tensor
    from_BT: Tensor
    label_BT: Tensor
    about_BT: Tensor
    slots_C: Tensor
    extents_B2: Tensor
    patch_targets: DenseTargets
    cell_targets: DenseTargets

    @property
    def order(self) -> Tensor:
        """Which cell of the grid, row by row, each slot shows."""
        return torch.tensor(span(self.rows, self.columns, 0).order)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(_moved(getattr(self, field.name), device) for field in fields(self)))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, DenseTargets):
        return DenseTargets(*(getattr(value, field.name).to(device) for field in fields(value)))
    return value.to(device) if isinstance(value, Tensor) else value


def collate(examples: list[Example], config: Config) -> Batch:
    """The batch of examples whose images have one grid of cells."""
    grid = examples[0].geometry.rows, examples[0].geometry.columns
    ratio = config.vision_downsample_ratio
    patches, seen = [], []
    for example in examples:
        geometry = example.geometry
        assert (geometry.rows, geometry.columns) == grid, (grid, geometry)
        spare = (0, grid[1] * ratio - geometry.patch_columns, 0, grid[0] * ratio - geometry.patch_rows)
        square = example.patches.flatten(1).T.unflatten(1, (geometry.patch_rows, geometry.patch_columns))
        patches.append(torch.nn.functional.pad(square, spare).flatten(1).T)
        there = torch.ones(geometry.patch_rows, geometry.patch_columns, dtype=torch.bool)
        seen.append(torch.nn.functional.pad(there, spare).flatten())
    longest = max(len(example.ids_T) for example in examples)
    length = -(-longest // LENGTH_STEP) * LENGTH_STEP

    def pad(column: str, fill: int | bool) -> Tensor:
        rows = [getattr(example, column) for example in examples]
        return torch.stack([torch.nn.functional.pad(row, (0, length - len(row)), value=fill) for row in rows])

    ids = pad("ids_T", 2)
    return Batch(
        *grid,
        torch.stack(patches),
        torch.stack(seen),
        ids,
        pad("labels_T", IGNORE),
        pad("coordinate_T", False),
        pad("look_T", NOWHERE),
        pad("from_T", NOWHERE),
        pad("label_T", False),
        pad("about_T", False),
        (ids[0] == config.vocab_size + TokenType.IMAGE).nonzero()[:, 0],
        torch.tensor([(each.geometry.patch_rows, each.geometry.patch_columns) for each in examples]),
        DenseTargets.stack([example.patch_targets for example in examples]),
        DenseTargets.stack([example.cell_targets for example in examples]),
    )


def cost(example: Example) -> int:
    """About what an example costs in a batch, in tokens."""
    length = -(-len(example.ids_T) // LENGTH_STEP) * LENGTH_STEP
    return length + 5 * example.geometry.rows * example.geometry.columns


class Stream(IterableDataset[Batch]):
    """An endless stream of batches of one lesson, deterministic in `seed`."""

    def __init__(self, lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> None:
        self.lesson, self.config, self.tokenizer_path, self.seed = lesson, config, tokenizer_path, seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        return pooled(self._examples(rng), self.lesson, self.config, rng)

    def _examples(self, rng: np.random.Generator) -> Iterator[Example]:
        tokenizer = Tokenizer(self.tokenizer_path)
        names = list(self.lesson.sources)
        shares = np.array(list(self.lesson.sources.values()), dtype=np.float64)
        while True:
            source = names[int(rng.choice(len(names), p=shares / shares.sum()))]
            made = material(source, int(rng.integers(1 << 40)))
            if self.lesson.greyed:
                made = replace(made, image=greyed(made.image), facts=None)
            yield encode(made, self.config, tokenizer)


def pooled(examples: Iterable[Example], lesson: Lesson, config: Config, rng: np.random.Generator) -> Iterator[Batch]:
    """Batches of endless examples: as soon as there are enough of a grid, those most alike in length."""
    pools: dict[tuple[int, int], list[Example]] = defaultdict(list)
    for example in examples:
        if len(example.ids_T) > lesson.longest:
            continue
        pool = pools[example.geometry.rows, example.geometry.columns]
        pool.append(example)
        if sum(map(cost, pool)) >= _POOL * lesson.batch_tokens:
            yield collate(_alike(pool, lesson.batch_tokens, rng), config)


def _alike(pool: list[Example], batch_tokens: int, rng: np.random.Generator) -> list[Example]:
    """Takes a batch's worth of neighbours in cost out of a pool: as many as fit, one at least."""
    pool.sort(key=cost)
    first = int(rng.integers(len(pool)))
    taken = [pool.pop(first)]
    while pool:
        at = min(first, len(pool) - 1)
        if (len(taken) + 1) * max(cost(taken[-1]), cost(pool[at])) > batch_tokens:
            break
        taken.append(pool.pop(at))
    return taken


def batches(lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> Iterator[Batch]:
    """Batches of a lesson, drawn ahead."""
    return ahead(Stream(lesson, config, tokenizer_path, seed))


def ahead(stream: IterableDataset[Batch]) -> Iterator[Batch]:
    """A stream's batches, drawn in a process of their own, a few ahead of need.

    That process is no fork of this one: it would hold gigabytes of a training's memory, page by page as they change.
    """
    context = multiprocessing.get_context("spawn")
    return iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4, multiprocessing_context=context))
