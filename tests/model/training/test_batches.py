"""Batches: examples of one grid side by side, filled up with what nobody sees."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from model.config import Config
from model.prompt import Tokenizer
from model.training.batches import LENGTH_STEP, Stream, _alike, batches, collate, cost
from model.training.examples import IGNORE, Example, encode, material
from model.training.lessons import Lesson
from tests.conftest import DEFAULT_CHECKPOINT

CONFIG = Config.from_file(DEFAULT_CHECKPOINT)
TOKENIZER = Tokenizer(DEFAULT_CHECKPOINT)
LESSON = Lesson("trial", 4, {"shapes": 1.0, "spatial/easy": 1.0}, batch_tokens=1500, longest=150)


def examples_of_one_grid() -> list[Example]:
    drawn = [encode(material("counting/medium", seed), CONFIG, TOKENIZER) for seed in range(60)]
    grids = [(example.geometry.rows, example.geometry.columns) for example in drawn]
    shapes = set(zip(grids, ((each.geometry.patch_rows, each.geometry.patch_columns) for each in drawn), strict=True))
    common = max((grid for grid, _ in shapes), key=[grid for grid, _ in shapes].count)  # filled in the most ways
    return [example for example, grid in zip(drawn, grids, strict=True) if grid == common]


def test_a_batch_holds_every_patch_at_its_place_and_says_which_are_there() -> None:
    examples = examples_of_one_grid()
    assert len({example.patches.shape for example in examples}) > 1  # grids of patches that fill the cells unevenly
    batch = collate(examples, CONFIG)
    for row, example in enumerate(examples):
        geometry = example.geometry
        grid = batch.patches_BN[row].unflatten(0, (batch.rows * 3, batch.columns * 3))
        there = batch.seen_BN[row].unflatten(0, (batch.rows * 3, batch.columns * 3))
        assert int(there.sum()) == len(example.patches)
        assert bool(there[: geometry.patch_rows, : geometry.patch_columns].all())
        inside = grid[: geometry.patch_rows, : geometry.patch_columns].flatten(0, 1)
        assert torch.equal(inside, example.patches.flatten(1))


def test_padding_teaches_nothing() -> None:
    examples = examples_of_one_grid()
    batch = collate(examples, CONFIG)
    assert batch.ids_BT.shape[1] % LENGTH_STEP == 0
    for row, example in enumerate(examples):
        length = len(example.ids_T)
        assert torch.equal(batch.ids_BT[row, :length], example.ids_T)
        assert bool((batch.labels_BT[row, length:] == IGNORE).all()) and not bool(batch.about_BT[row, length:].any())


def test_a_greyed_out_lesson_asks_the_same_and_shows_nothing() -> None:
    seen, blind = (
        next(iter(Stream(replace(LESSON, greyed=greyed), CONFIG, str(DEFAULT_CHECKPOINT), 5)))
        for greyed in (False, True)
    )
    assert torch.equal(seen.ids_BT, blind.ids_BT) and torch.equal(seen.labels_BT, blind.labels_BT)
    assert torch.equal(seen.seen_BN, blind.seen_BN) and not torch.equal(seen.patches_BN, blind.patches_BN)
    assert blind.patches_BN[blind.seen_BN].unique().numel() == 1
    assert bool((blind.patch_targets.present == -1).all()) and bool((seen.patch_targets.present >= 0).any())


def test_examples_alike_in_length_are_taken_and_the_others_stay() -> None:
    pool = examples_of_one_grid()
    before = len(pool)
    taken = _alike(pool, 1500, np.random.default_rng(0))
    assert len(taken) + len(pool) == before and taken
    assert len(taken) * max(map(cost, taken)) <= 1500 or len(taken) == 1


def test_a_stream_is_the_same_for_a_seed_and_keeps_to_its_limits() -> None:
    streams = [iter(Stream(LESSON, CONFIG, str(DEFAULT_CHECKPOINT), seed)) for seed in (1, 1, 2)]
    batches = [[next(stream) for _ in range(2)] for stream in streams]
    assert all(torch.equal(a.ids_BT, b.ids_BT) for a, b in zip(batches[0], batches[1], strict=True))
    assert not torch.equal(batches[0][0].patches_BN, batches[2][0].patches_BN)
    for batch in (*batches[0], *batches[2]):
        assert batch.ids_BT.shape[1] <= 160 and len(batch.ids_BT) > 1


def test_the_process_that_draws_does_not_hold_what_the_training_holds() -> None:
    held = np.ones(400 << 20, np.uint8)  # every page is written, and so is this process's own
    stream = batches(LESSON, CONFIG, str(DEFAULT_CHECKPOINT), seed=1)
    assert next(stream).rows > 0
    status = Path(f"/proc/{stream._workers[0].pid}/status").read_text()  # type: ignore[attr-defined]
    anonymous = int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]
    own = int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]
    assert anonymous < own - (held.nbytes >> 1), (anonymous, own)
