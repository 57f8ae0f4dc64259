"""Lessons: what is drawn and asked, in which order, and the batches made of it.

Shapes: B images of one geometry, Q questions an image, N patches, P prompt tokens up to and with the image span,
T tokens of a question and its response.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..config import Config
from ..image import Geometry, TokenType, plan, span, to_patches
from ..prompt import Tokenizer
from ..tasks import shapes
from ..tasks.scenes import draw
from .dense import DenseTargets, describe, patch_targets

IGNORE = -100  # label of a token that is not learnt


@dataclass(frozen=True)
class Lesson:
    """One stretch of training. `canvases` are sizes (width, height) in pixels to draw at; each batch takes one."""

    name: str
    steps: int
    batch: int
    count: tuple[int, int]
    questions: int = 0  # 0: the vision tower alone, on dense targets
    kinds: tuple[shapes.Kind, ...] = shapes.KINDS
    canvases: tuple[tuple[int, int], ...] = ((168, 168),)
    present_only: bool = False
    guidance: float = 1.0  # weight of the loss that shows the answer's tokens where to look
    dense: float = 1.0
    see_every: int = 1  # steps between those that train the vision tower too; 0: never, to spare its backward pass
    peak_lr: float = 1e-3
    final_lr: float = 1e-3
    spread: tuple[float, float] = (3.0, 3.0)  # of a number over its neighbours, of 0..999: at the start, at the end
    sparse: bool = True  # the indexer drops entries as in use; before it has learnt to rank, let all be seen

    def spread_at(self, step: int) -> float:
        """How soft the numbers' targets are at a step: soft ones are learnt sooner, hard ones more exactly."""
        first, last = self.spread
        return first + (last - first) * step / self.steps

    def shortened(self, share: float) -> Lesson:
        """The same lesson with a share of its steps, at least one."""
        return replace(self, steps=max(round(self.steps * share), 1))


ASKING: tuple[shapes.Kind, ...] = ("count", "locate", "exists")  # the kinds of question that name a label
PHOTO_SHAPES = ((168, 168), (168, 168), (252, 252), (320, 240), (240, 320), (300, 200), (200, 300), (320, 180))

# The default checkpoint's school. The tower learns to see on dense targets alone; then the language model to look at
# what a label names, on squares; last both, on all shapes of image, with the indexer dropping entries.
COUNTING = (
    Lesson("see", 1000, 32, (1, 6), peak_lr=2e-3, final_lr=1e-3),
    Lesson("label", 400, 16, (2, 5), 2, ASKING, dense=2.0, guidance=2.0, see_every=0, sparse=False),
    Lesson(
        "shapes", 11_000, 16, (1, 6), 2, canvases=PHOTO_SHAPES, dense=2.0, see_every=4, final_lr=1e-5, spread=(3.0, 0.6)
    ),
)


@dataclass(frozen=True)
class Tails:
    """M questions with their responses, of similar length, padded at the end."""

    images_M: Tensor  # which image of the batch each is about
    ids_MT: Tensor
    labels_MT: Tensor  # the next token where it belongs to the response, IGNORE elsewhere
    look_MTC: Tensor  # bool: the cells, of all the span's, that a token should attend to; none where it is free
    label_MT: Tensor  # bool: the tokens of the reference's label
    about_MT: Tensor  # bool: tokens that speak of one of the label's things, so should read the label


@dataclass(frozen=True)
class Batch:
    geometry: Geometry
    patches_BN: Tensor  # [B, N, 3, P, P]
    patch_targets: DenseTargets
    cell_targets: DenseTargets  # cells in the order of the span's IMAGE slots
    prefix_ids_P: Tensor
    slots_C: Tensor  # prompt positions of the IMAGE slots
    tails: tuple[Tails, ...]  # questions and responses, the shorter half and the longer half, to spare padding


class Lectures(IterableDataset[Batch]):
    """An endless stream of batches of one lesson, deterministic in `seed`."""

    def __init__(self, lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> None:
        self.lesson, self.config, self.tokenizer_path, self.seed = lesson, config, tokenizer_path, seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        tokenizer = Tokenizer(self.tokenizer_path)
        number = self.seed
        while True:
            rng = shapes.scene_rng(number, "train")
            yield make_batch(self.lesson, self.config, tokenizer, rng)
            number += 1


def batches(lesson: Lesson, config: Config, tokenizer_path: str, seed: int) -> Iterator[Batch]:
    """Batches drawn in a process of their own, a few ahead of need."""
    lectures = Lectures(lesson, config, tokenizer_path, seed)
    return iter(DataLoader(lectures, batch_size=None, num_workers=1, prefetch_factor=4))


def make_batch(lesson: Lesson, config: Config, tokenizer: Tokenizer, rng: np.random.Generator) -> Batch:
    """Draw one batch and pose its questions."""
    width, height = lesson.canvases[int(rng.integers(len(lesson.canvases)))]
    geometry = plan(width, height, config)
    scenes = [draw(rng, width=width, height=height, count=lesson.count) for _ in range(lesson.batch)]
    patches = torch.stack([to_patches(scene.image, geometry, config) for scene in scenes])
    described = [describe(scene.things) for scene in scenes]
    classes = [kinds for kinds, _ in described]
    left, top, content_width, content_height = geometry.content
    scale = np.array([content_width / width, content_height / height] * 2, dtype=np.float32)
    pixels = [boxes * scale + np.array([left, top] * 2, dtype=np.float32) for _, boxes in described]  # of the canvas

    patch = config.vision_patch_size
    cell = patch * config.vision_downsample_ratio
    patch_extent = np.array([geometry.patch_columns, geometry.patch_rows] * 2, dtype=np.float32) * patch
    cell_extent = np.array([geometry.columns, geometry.rows] * 2, dtype=np.float32) * cell
    on_patches = patch_targets(
        classes, [boxes / patch_extent for boxes in pixels], geometry.patch_rows, geometry.patch_columns, False
    )
    on_cells = patch_targets(classes, [boxes / cell_extent for boxes in pixels], geometry.rows, geometry.columns, True)

    prefix, _ = tokenizer.encode_question("")
    layout = span(geometry.rows, geometry.columns, len(prefix) - 1)
    prefix_ids = prefix[:-1] + [config.vocab_size + kind for kind in layout.types]
    slots = [at for at, token in enumerate(prefix_ids) if token == config.vocab_size + TokenType.IMAGE]
    slot_of_cell = {row: index for index, row in enumerate(layout.order)}
    rows: list[_Row] = []
    for image, (scene, boxes) in enumerate(zip(scenes, pixels, strict=True)):
        cells = [
            min(int((y1 + y2) / 2 // cell), geometry.rows - 1) * geometry.columns
            + min(int((x1 + x2) / 2 // cell), geometry.columns - 1)
            for x1, y1, x2, y2 in boxes
        ]
        for _ in range(lesson.questions):
            case = shapes.pose(scene, rng, lesson.kinds, present_only=lesson.present_only)
            rows.append(_encode(case, tokenizer, image, [slot_of_cell[at] for at in cells]))
    order = torch.tensor(layout.order)
    in_slots = on_cells.in_order(order)
    rows.sort(key=lambda row: len(row.ids))
    halves = [half for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if half]
    tails = tuple(_stack(half, len(slots)) for half in halves)
    return Batch(geometry, patches, on_patches, in_slots, torch.tensor(prefix_ids), torch.tensor(slots), tails)


class _Row(NamedTuple):
    image: int
    ids: list[int]
    labels: list[int]
    look: list[set[int]]  # slots
    is_label: list[bool]
    is_about: list[bool]


def _encode(case: shapes.Case, tokenizer: Tokenizer, image: int, slots: list[int]) -> _Row:
    """One case as a row; `slots` has the IMAGE slot of each of the scene's things.

    Where to look: a token about an item looks at that thing's cell, a word of the label at everything it fits.
    """
    _, question = tokenizer.encode_question(case.question)
    response = [*tokenizer.encode(shapes.response(case)), tokenizer.eos_id]
    opening, between = tokenizer.piece_id("[["), tokenizer.piece_id("],[")
    about = {tokenizer.box_id, opening, between, *tokenizer.number_ids}
    look: list[set[int]] = [set() for _ in response]  # of the token that is read, so one before the one it predicts
    is_label, is_about = [False] * len(response), [False] * len(response)
    in_label = in_box = False
    item = 0
    for at, token in enumerate(response):
        if token == tokenizer.end_ref_id:
            in_label = False
            look[at - 1] = {slots[target] for target in case.targets}  # the whole label is known at its last word
        elif in_label:
            is_label[at] = True
            look[at] = _fitting(tokenizer.decode([token]).strip(), case, slots)
        in_label = in_label or token == tokenizer.ref_id
        in_box = (in_box or token == tokenizer.box_id) and token != tokenizer.end_box_id
        item += token == between
        if in_box and token in about:
            look[at - 1], is_about[at - 1] = {slots[case.targets[item]]}, True
    before = len(question) - 1  # the last token of the question predicts the first of the response
    ids, free = question + response, [False] * len(question)
    labels = [IGNORE] * before + response
    looks: list[set[int]] = [set() for _ in question] + look
    return _Row(image, ids[:-1], labels, looks[:-1], (free + is_label)[:-1], (free + is_about)[:-1])


def _fitting(word: str, case: shapes.Case, slots: list[int]) -> set[int]:
    """Slots of the things that one word of a label fits."""
    pairs = zip(slots, case.things, strict=True)
    return {slot for slot, thing in pairs if word in (thing.shape, thing.color, thing.size, "thing")}


def _stack(rows: list[_Row], num_slots: int) -> Tails:
    longest = max(len(row.ids) for row in rows)

    def pad(column: list[list[int]] | list[list[bool]], fill: int | bool) -> Tensor:
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in column])

    look = torch.zeros(len(rows), longest, num_slots, dtype=torch.bool)
    for number, row in enumerate(rows):
        for at, slots in enumerate(row.look):
            look[number, at, list(slots)] = True
    return Tails(
        torch.tensor([row.image for row in rows]),
        pad([row.ids for row in rows], 0),
        pad([row.labels for row in rows], IGNORE),
        look,
        pad([row.is_label for row in rows], False),
        pad([row.is_about for row in rows], False),
    )
