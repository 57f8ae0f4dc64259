"""Dense targets: what is where, asked of every patch and every image token, so that the model learns to see early.

The heads are dropped after training. Shapes: B images, N patches or cells, V width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tasks.scenes import COLORS, SHAPES, SIZES, Thing

CLASS_SIZES = (len(SHAPES), len(COLORS), len(SIZES))
MOST_PLACES = 32  # rows or columns of the largest grid that is trained on


@dataclass(frozen=True)
class DenseTargets:
    """For each place of a grid: is a thing here, its classes (shape, colour, size), and its box as shares of the image.

    `present` float [B, N], `classes` int64 [B, N, 3], `boxes` float [B, N, 4]; of the places themselves, `centers`
    float [N, 2] (x, y) and `places` int64 [N, 2] (row, column).
    """

    present: Tensor
    classes: Tensor
    boxes: Tensor
    centers: Tensor
    places: Tensor

    def in_order(self, order: Tensor) -> DenseTargets:
        """The same with the places in another order."""
        grid = (self.present[:, order], self.classes[:, order], self.boxes[:, order])
        return DenseTargets(*grid, self.centers[order], self.places[order])


def describe(things: tuple[Thing, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Classes int64 [things, 3] and boxes in pixels float32 [things, 4]."""
    classes = [[SHAPES.index(t.shape), COLORS.index(t.color), SIZES.index(t.size)] for t in things]
    boxes = np.array([t.box for t in things], dtype=np.float32).reshape(-1, 4)
    return np.array(classes, dtype=np.int64).reshape(-1, 3), boxes


def patch_targets(
    classes: list[np.ndarray], boxes: list[np.ndarray], rows: int, columns: int, cell_owns_center: bool
) -> DenseTargets:
    """Targets on a `rows` x `columns` grid; `boxes` are shares 0..1 of the grid's extent.

    A patch belongs to the thing that its centre lies in; with `cell_owns_center`, a (larger) cell to the thing whose
    centre lies in it.
    """
    count = rows * columns
    present = np.zeros((len(boxes), count), dtype=np.float32)
    kinds = np.zeros((len(boxes), count, 3), dtype=np.int64)
    where = np.zeros((len(boxes), count, 4), dtype=np.float32)
    center_y, center_x = np.divmod(np.arange(count), columns)
    center_y, center_x = (center_y + 0.5) / rows, (center_x + 0.5) / columns
    for image, (kind, box) in enumerate(zip(classes, boxes, strict=True)):
        for thing in range(len(box)):
            x1, y1, x2, y2 = box[thing]
            if cell_owns_center:
                row, column = min(int((y1 + y2) / 2 * rows), rows - 1), min(int((x1 + x2) / 2 * columns), columns - 1)
                inside = np.arange(count) == row * columns + column
            else:
                inside = (center_x >= x1) & (center_x <= x2) & (center_y >= y1) & (center_y <= y2)
            present[image, inside], kinds[image, inside], where[image, inside] = 1, kind[thing], box[thing]
    centers = np.stack([center_x, center_y], axis=1).astype(np.float32)
    places = np.stack(np.divmod(np.arange(count), columns), axis=1)
    return DenseTargets(*(torch.from_numpy(array) for array in (present, kinds, where, centers, places)))


class DenseHead(nn.Module):
    """Reads targets off features: 1 for presence, the classes, 4 for the box (relative to the place, or absolute)."""

    def __init__(self, width: int, relative: bool) -> None:
        super().__init__()
        self.relative = relative
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1 + sum(CLASS_SIZES) + 4)
        self.place = None if relative else nn.Linear(width, 2 * MOST_PLACES)

    def forward(self, features_BNV: Tensor, targets: DenseTargets) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its parts for the log (box error as a share of the image's side)."""
        out = self.out(self.norm(features_BNV))
        presence, *kinds, box = out.split([1, *CLASS_SIZES, 4], dim=-1)
        there = targets.present > 0
        loss_there = F.binary_cross_entropy_with_logits(presence[..., 0], targets.present)
        loss_kinds = torch.stack(
            [F.cross_entropy(kind[there], targets.classes[..., i][there]) for i, kind in enumerate(kinds)]
        ).sum()
        wanted = targets.boxes
        if self.relative:
            wanted = (wanted - targets.centers.repeat(1, 2)) * 4  # a large thing is about a third of the image
        error = (box - wanted).abs()[there].mean()
        parts = {"there": loss_there.item(), "kinds": loss_kinds.item()}
        parts["box"] = error.item() / (4 if self.relative else 1)
        loss = 4 * loss_there + loss_kinds + 8 * error
        if self.place is not None:
            # Every place says its row and column, empty ones too: a box is then its place and what the tower saw,
            # added up. As classes, not by distance: rows alternate from token to token, a pattern L1 hardly learns.
            guess = self.place(self.norm(features_BNV)).unflatten(-1, (2, MOST_PLACES))
            wrong = F.cross_entropy(guess.flatten(0, 2), targets.places.repeat(len(features_BNV), 1).flatten())
            loss, parts = loss + 2 * wrong, parts | {"place": wrong.item()}
        return loss, parts
