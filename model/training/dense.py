"""Dense targets: what is where, asked of every patch and every image token, so that the model learns to see early.

The heads are dropped after training. Shapes: B images, N places (patches of the tower, or cells of the language model),
V width, n things.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tasks.scenes import COLORS, SIZES
from .facts import CHARACTERS, NOUNS, UNKNOWN, Facts

CLASSES = (len(NOUNS), len(COLORS), len(SIZES), len(CHARACTERS))
_CLASS_WEIGHTS = {"noun": 1.0, "color": 1.0, "size": 1.0, "print": 3.0}  # print is small, and slow to be learnt
MOST_PLACES = 32  # rows or columns of the largest grid of cells that is trained on
MOST_PATCHES = 3 * MOST_PLACES


@dataclass(frozen=True)
class DenseTargets:
    """What each place of a grid is asked, of one image [N, ..] or of several [B, N, ..].

    `present` float: is a thing here (-1: not asked); `classes` int64 [.., 4]: noun, colour, size, and the character of
    a price that is printed here (`UNKNOWN`: not asked);
    `boxes` float [.., 4]: its box, as shares of the grid's extent. Of mazes: `middle` float [.., 3]: is the middle of
    a maze's cell here (-1: not asked), and how far from the place's own middle, in places; `passage` float: is what
    lies here open (1), closed (0), or not asked (-1).
    """

    present: Tensor
    classes: Tensor
    boxes: Tensor
    middle: Tensor
    passage: Tensor

    @staticmethod
    def stack(images: list[DenseTargets]) -> DenseTargets:
        """Those of several images of one grid."""
        columns = ([getattr(image, field.name) for image in images] for field in fields(DenseTargets))
        return DenseTargets(*(torch.stack(column) for column in columns))

    def in_order(self, order: Tensor) -> DenseTargets:
        """The places of one image in another order."""
        return DenseTargets(*(getattr(self, field.name)[order] for field in fields(self)))


def targets_of(
    facts: Facts | None, scale: tuple[float, float], rows: int, columns: int, owns_centre: bool
) -> DenseTargets:
    """Targets on a `rows` x `columns` grid; `scale`: what a pixel is, as a share of the grid's extent (x, y).

    A patch belongs to the thing that its centre lies in; with `owns_centre`, a (larger) cell to the thing whose centre
    lies in it. Of two things the later has it. Without facts nothing is asked.
    """
    count = rows * columns
    present, passage = np.full(count, -1 if facts is None else 0, np.float32), np.full(count, -1, np.float32)
    facts = facts or Facts()
    classes, boxes = np.full((count, len(CLASSES)), UNKNOWN, np.int64), np.zeros((count, 4), np.float32)
    middle = np.full((count, 3), -1 if not facts.middles else 0, np.float32)
    centre_y, centre_x = np.divmod(np.arange(count), columns)
    centre_y, centre_x = (centre_y + 0.5) / rows, (centre_x + 0.5) / columns

    def at(x: float, y: float) -> tuple[int, float, float]:
        """The place of a point, and how far from its middle it is."""
        column, row = min(int(x * scale[0] * columns), columns - 1), min(int(y * scale[1] * rows), rows - 1)
        return row * columns + column, x * scale[0] * columns - column - 0.5, y * scale[1] * rows - row - 0.5

    for fact in facts.things:
        box = np.array(fact.box, np.float32) * (scale * 2)
        if owns_centre:
            inside: np.ndarray | int = at((fact.box[0] + fact.box[2]) / 2, (fact.box[1] + fact.box[3]) / 2)[0]
        else:
            inside = (centre_x >= box[0]) & (centre_x <= box[2]) & (centre_y >= box[1]) & (centre_y <= box[3])
        present[inside], boxes[inside] = 1, box
        classes[inside, :3] = (fact.noun, fact.color, fact.size)
        if fact.print and not owns_centre:
            ends, characters = zip(*fact.print, strict=True)
            share = (centre_x[inside] - box[0]) / (box[2] - box[0])
            classes[inside, 3] = np.array([*characters, UNKNOWN])[np.searchsorted(ends, share)]
    for x, y in facts.middles:
        place, dx, dy = at(x, y)
        middle[place] = (1, dx, dy)
    for x, y, is_open in facts.passages:
        passage[at(x, y)[0]] = is_open
    return DenseTargets(*(torch.from_numpy(array) for array in (present, classes, boxes, middle, passage)))


class DenseHead(nn.Module):
    """Reads targets off features. `relative`: boxes from the place's middle, else absolute, and then each place is
    asked for its row and column too, and for how many rows and columns of patches the image fills."""

    def __init__(self, width: int, relative: bool) -> None:
        super().__init__()
        self.relative = relative
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1 + 4 + 3 + 1)
        self.kinds = nn.Linear(width, sum(CLASSES))
        self.place = None if relative else nn.Linear(width, 2 * MOST_PLACES)
        self.extent = None if relative else nn.Linear(width, 2 * MOST_PATCHES)

    def forward(
        self, features_BNV: Tensor, targets: DenseTargets, rows: int, columns: int, order: Tensor | None = None,
        extents_B2: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """The loss, and its parts for the log (box error as a share of the image's side). `order`: of the places;
        `extents_B2`: rows and columns of patches."""
        features_BNV = self.norm(features_BNV)
        presence, box, middle, passage = self.out(features_BNV).split([1, 4, 3, 1], dim=-1)
        device = features_BNV.device
        place_y = torch.arange(rows, device=device).repeat_interleave(columns)
        place_x = torch.arange(columns, device=device).repeat(rows)
        places = torch.stack([place_y, place_x], dim=1)
        places = places if order is None else places[order]
        loss, parts = presence.new_zeros(()), {}
        asked_presence = targets.present >= 0
        if bool(asked_presence.any()):
            guess = presence[..., 0][asked_presence]
            wrong = F.binary_cross_entropy_with_logits(guess, targets.present[asked_presence])
            loss, parts = 4 * wrong, {"there": wrong.item()}
        there = targets.present > 0
        if bool(there.any()):
            kinds = self.kinds(features_BNV[there]).split(CLASSES, dim=-1)
            asked = targets.classes[there]
            for (name, weight), guess, wanted in zip(_CLASS_WEIGHTS.items(), kinds, asked.T, strict=True):
                known = wanted != UNKNOWN
                if bool(known.any()):
                    wrong = F.cross_entropy(guess[known], wanted[known])
                    loss, parts = loss + weight * wrong, parts | {name: wrong.item()}
            due = targets.boxes
            if self.relative:
                extent = torch.tensor([rows, columns], device=device)
                centres = ((places + 0.5) / extent).flip(1).repeat(1, 2)
                due = (due - centres) * 4  # a large thing is about a third of the image
            error = (box - due).abs()[there].mean()
            loss, parts = loss + 8 * error, parts | {"box": error.item() / (4 if self.relative else 1)}
        asked_middle = targets.middle[..., 0] >= 0
        if bool(asked_middle.any()):
            wanted = targets.middle[asked_middle]
            guess = middle[asked_middle]
            wrong = F.binary_cross_entropy_with_logits(guess[:, 0], wanted[:, 0])
            off = ((guess[:, 1:] - wanted[:, 1:]).abs().sum(-1) * wanted[:, 0]).sum() / wanted[:, 0].sum().clamp(min=1)
            loss, parts = loss + wrong + off, parts | {"middle": wrong.item(), "off_middle": off.item()}
        asked_passage = targets.passage >= 0
        if bool(asked_passage.any()):
            wrong = F.binary_cross_entropy_with_logits(passage[..., 0][asked_passage], targets.passage[asked_passage])
            loss, parts = loss + 2 * wrong, parts | {"passage": wrong.item()}
        if self.place is not None:
            # Every place says its row and column, empty ones too: a box is then its place and what the tower saw,
            # added up. As classes, not by distance: rows alternate from token to token, a pattern L1 hardly learns.
            guess = self.place(features_BNV).unflatten(-1, (2, MOST_PLACES))
            wrong = F.cross_entropy(guess.flatten(0, 2), places.repeat(len(features_BNV), 1).flatten())
            loss, parts = loss + 2 * wrong, parts | {"place": wrong.item()}
        if self.extent is not None and extents_B2 is not None:
            # A coordinate is a share of the image, whose last cells may be filled in part: to say one, a token has to
            # know how far the image goes.
            guess = self.extent(features_BNV).unflatten(-1, (2, MOST_PATCHES))
            wanted = extents_B2[:, None].expand(-1, guess.shape[1], -1)
            wrong = F.cross_entropy(guess.flatten(0, 2), wanted.flatten())
            loss, parts = loss + wrong, parts | {"extent": wrong.item()}
        return loss, parts


class DetailHead(nn.Module):
    """Reads off a cell what each of its `ratio` x `ratio` patches shows: the character of a price, a maze's passage.

    A cell's own targets are too coarse for these; the language model can only read out what its tokens still say.
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, ratio * ratio * (len(CHARACTERS) + 1))

    def forward(
        self, cells_BCV: Tensor, targets: DenseTargets, rows: int, columns: int, order: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its parts. `targets` are of the patches; `rows`, `columns`, `order` are of the cells."""

        def by_cell(patches_BN: Tensor) -> Tensor:
            # [B, N] -> [B, rows, r, columns, r] -> [B, rows, columns, r, r] -> [B, C, r * r], in the cells' order
            grid = patches_BN.unflatten(1, (rows, self.ratio, columns, self.ratio)).transpose(2, 3)
            return grid.flatten(3).flatten(1, 2)[:, order]

        guess = self.out(self.norm(cells_BCV)).unflatten(-1, (self.ratio**2, -1))
        loss, parts = guess.new_zeros(()), dict[str, float]()
        character, passage = by_cell(targets.classes[..., 3]), by_cell(targets.passage)
        if bool((character != UNKNOWN).any()):
            known = character != UNKNOWN
            wrong = F.cross_entropy(guess[..., :-1][known], character[known])
            loss, parts = loss + wrong, parts | {"print": wrong.item()}
        if bool((passage >= 0).any()):
            asked = passage >= 0
            wrong = F.binary_cross_entropy_with_logits(guess[..., -1][asked], passage[asked])
            loss, parts = loss + 2 * wrong, parts | {"way": wrong.item()}
        return loss, parts
