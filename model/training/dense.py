"""Dense heads: what is where, asked of every patch and every image token, so that the model learns to see early.

The heads are dropped after training. Shapes: B images, N places (patches of the tower, or cells of the language model),
V width, n things.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .facts import CHARACTERS, DIRECTIONS, MOST_EXITS, UNKNOWN
from .targets import CLASSES, DenseTargets

_Add = Callable[..., None]  # a part of the loss: its name, weight, how wrong it is, what one is in the log
# Print is small, and slow to be learnt.
_CLASS_WEIGHTS = {"noun": 1.0, "color": 1.0, "size": 1.0, "print": 1.5, "print_right": 1.5}
MOST_PLACES = 32  # rows or columns of the largest grid of cells that is trained on
MOST_PATCHES = 3 * MOST_PLACES


class DenseHead(nn.Module):
    """Reads targets off features. `relative`: boxes and ends of lines from the place's middle, else absolute, and then
    each place is asked for its row and column too, and for how many rows and columns of patches the image fills."""

    def __init__(self, width: int, relative: bool) -> None:
        super().__init__()
        self.relative = relative
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1 + 4 + 3 + 1)
        self.kinds = nn.Linear(width, sum(CLASSES))
        self.degree = nn.Linear(width, 1 + MOST_EXITS)
        self.exits = nn.Linear(width, DIRECTIONS)
        self.rays = nn.Linear(width, DIRECTIONS) if relative else None
        self.lines = nn.Linear(width, 3 + 4)
        self.place = None if relative else nn.Linear(width, 2 * MOST_PLACES)
        self.extent = None if relative else nn.Linear(width, 2 * MOST_PATCHES)

    def forward(
        self, features_BNV: Tensor, targets: DenseTargets, rows: int, columns: int, order: Tensor | None = None,
        extents_B2: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """The loss, and its parts for the log (errors of boxes and of lines' ends as shares of the image's side).
        `order`: of the places; `extents_B2`: rows and columns of patches."""
        features_BNV = self.norm(features_BNV)
        presence, box, middle, passage = self.out(features_BNV).split([1, 4, 3, 1], dim=-1)
        device = features_BNV.device
        place_y = torch.arange(rows, device=device).repeat_interleave(columns)
        place_x = torch.arange(columns, device=device).repeat(rows)
        places = torch.stack([place_y, place_x], dim=1)
        places = places if order is None else places[order]
        loss, parts = presence.new_zeros(()), dict[str, float]()

        def add(name: str, weight: float, wrong: Tensor, unit: float = 1.0) -> None:
            nonlocal loss
            loss, parts[name] = loss + weight * wrong, wrong.item() / unit

        # Boxes and ends from the place's middle are four times as large: a large thing is about a third of the image.
        unit = 4.0 if self.relative else 1.0
        middles_N4 = ((places + 0.5) / torch.tensor([rows, columns], device=device)).flip(1).repeat(1, 2)
        shift = middles_N4 if self.relative else middles_N4.new_zeros(())
        asked = targets.present >= 0
        if bool(asked.any()):
            add("there", 4, F.binary_cross_entropy_with_logits(presence[..., 0][asked], targets.present[asked]))
        there = targets.present > 0
        if bool(there.any()):
            kinds = self.kinds(features_BNV[there]).split(CLASSES, dim=-1)
            for (name, weight), guess, wanted in zip(
                _CLASS_WEIGHTS.items(), kinds, targets.classes[there].T, strict=True
            ):
                if bool((known := wanted != UNKNOWN).any()):
                    # Print differs from patch to patch; of the rest a small thing is worth as much as a large one.
                    share = None if name.startswith("print") else targets.share[there][known]
                    add(name, weight, _mean(F.cross_entropy(guess[known], wanted[known], reduction="none"), share))
            off = (box - (targets.boxes - shift) * unit).abs()[there].mean(-1)
            add("box", 8, _mean(off, targets.share[there]), unit)
        self._ask_of_mazes(features_BNV, middle, passage[..., 0], targets, add)
        self._ask_of_lines(features_BNV, (targets.leads - shift) * unit, unit, targets, add)
        if self.place is not None:
            # Every place says its row and column, empty ones too: a box is then its place and what the tower saw,
            # added up. As classes, not by distance: rows alternate from token to token, a pattern L1 hardly learns.
            guess = self.place(features_BNV).unflatten(-1, (2, MOST_PLACES))
            add("place", 2, F.cross_entropy(guess.flatten(0, 2), places.repeat(len(features_BNV), 1).flatten()))
        if self.extent is not None and extents_B2 is not None:
            # A coordinate is a share of the image, whose last cells may be filled in part: to say one, a token has to
            # know how far the image goes.
            guess = self.extent(features_BNV).unflatten(-1, (2, MOST_PATCHES))
            wanted = extents_B2[:, None].expand(-1, guess.shape[1], -1)
            add("extent", 1, F.cross_entropy(guess.flatten(0, 2), wanted.flatten()))
        return loss, parts

    def _ask_of_mazes(
        self, features_BNV: Tensor, middle: Tensor, passage_BN: Tensor, targets: DenseTargets, add: _Add
    ) -> None:
        if bool((asked := targets.middle[..., 0] >= 0).any()):
            wanted, guess = targets.middle[asked], middle[asked]
            add("middle", 1, F.binary_cross_entropy_with_logits(guess[:, 0], wanted[:, 0]))
            off = ((guess[:, 1:] - wanted[:, 1:]).abs().sum(-1) * wanted[:, 0]).sum()
            add("off_middle", 1, off / wanted[:, 0].sum().clamp(min=1))
        if bool((asked := targets.exits[..., 0] >= 0).any()):
            add("degree", 1, F.cross_entropy(self.degree(features_BNV[asked]), targets.degree[asked]))
            guess = self.exits(features_BNV[asked])
            add("exits", 4, F.binary_cross_entropy_with_logits(guess, targets.exits[asked]))
        if self.rays is not None and bool((asked := targets.rays[..., 0] >= 0).any()):
            add("rays", 8, (self.rays(features_BNV[asked]) - targets.rays[asked]).abs().mean())
        if bool((asked := targets.passage >= 0).any()):
            add("passage", 2, F.binary_cross_entropy_with_logits(passage_BN[asked], targets.passage[asked]))

    def _ask_of_lines(
        self, features_BNV: Tensor, leads_BN4: Tensor, unit: float, targets: DenseTargets, add: _Add
    ) -> None:
        if not bool((asked := targets.stroke[..., 0] >= 0).any()):
            return
        stroke, leads = self.lines(features_BNV).split([3, 4], dim=-1)
        add("stroke", 2, F.binary_cross_entropy_with_logits(stroke[..., 0][asked], targets.stroke[..., 0][asked]))
        if bool((alone := targets.stroke[..., 1:].abs().sum(-1) > 0).any()):
            add("angle", 1, (stroke[alone] - targets.stroke[alone])[:, 1:].square().sum(-1).mean())
        if bool((known := targets.leads.amax(-1) > -0.5).any()):
            add("leads", 4, (leads - leads_BN4).abs()[known].mean(), unit)


class DetailHead(nn.Module):
    """Reads off a cell what each of its `ratio` x `ratio` patches shows: a thing's name, colour and box, two characters
    of a price, a maze's passage, the middle of a maze's cell and the ways out of that one, a line.

    A cell's own targets are too coarse for these; the language model can only read out what its tokens still say.
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, ratio * ratio * (2 * len(CHARACTERS) + 1))
        self.things = nn.Linear(width, ratio * ratio * (sum(CLASSES[:2]) + 4))
        self.strokes = nn.Linear(width, ratio * ratio)
        self.exits = nn.Linear(width, ratio * ratio * (1 + DIRECTIONS))
        self.degree = nn.Linear(width, ratio * ratio * (1 + MOST_EXITS))

    def forward(
        self, cells_BCV: Tensor, targets: DenseTargets, rows: int, columns: int, order: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its parts. `targets` are of the patches; `rows`, `columns`, `order` are of the cells."""

        def by_cell(patches_BN: Tensor) -> Tensor:
            # [B, N] -> [B, rows, r, columns, r] -> [B, rows, columns, r, r] -> [B, C, r * r], in the cells' order
            grid = patches_BN.unflatten(1, (rows, self.ratio, columns, self.ratio)).transpose(2, 3)
            return grid.flatten(3).flatten(1, 2)[:, order]

        cells_BCV = self.norm(cells_BCV)
        guess = self.out(cells_BCV).unflatten(-1, (self.ratio**2, -1))
        loss, parts = guess.new_zeros(()), dict[str, float]()
        if bool((there := by_cell(targets.present) > 0).any()):
            # Several things share a cell where they are small; of their boxes it is asked for each one's own.
            thing = self.things(cells_BCV).unflatten(-1, (self.ratio**2, -1))[there]
            noun, color, box = thing.split([*CLASSES[:2], 4], dim=-1)
            share = by_cell(targets.share)[there]
            for kind, (name, guessed) in enumerate({"thing": noun, "thing_color": color}.items()):
                wanted = by_cell(targets.classes[..., kind])[there]
                if bool((known := wanted != UNKNOWN).any()):
                    wrong = _mean(F.cross_entropy(guessed[known], wanted[known], reduction="none"), share[known])
                    loss, parts = loss + wrong, parts | {name: wrong.item()}
            boxes = torch.stack([by_cell(targets.boxes[..., edge]) for edge in range(4)], dim=-1)[there]
            wrong = _mean((box - boxes).abs().mean(-1), share)
            loss, parts = loss + 8 * wrong, parts | {"thing_box": wrong.item()}
        characters = torch.stack([by_cell(targets.classes[..., side]) for side in (3, 4)], dim=-1)  # [B, C, r * r, 2]
        passage = by_cell(targets.passage)
        if bool((known := characters != UNKNOWN).any()):
            wrong = F.cross_entropy(guess[..., :-1].unflatten(-1, (2, -1))[known], characters[known])
            loss, parts = loss + wrong, parts | {"print": wrong.item()}
        if bool((passage >= 0).any()):
            asked = passage >= 0
            wrong = F.binary_cross_entropy_with_logits(guess[..., -1][asked], passage[asked])
            loss, parts = loss + 2 * wrong, parts | {"way": wrong.item()}
        middle = by_cell(targets.middle[..., 0])
        if bool((asked := middle >= 0).any()):
            is_middle, exits = self.exits(cells_BCV).unflatten(-1, (self.ratio**2, -1)).split([1, DIRECTIONS], dim=-1)
            wrong = F.binary_cross_entropy_with_logits(is_middle[..., 0][asked], middle[asked])
            loss, parts = loss + wrong, parts | {"centre": wrong.item()}
            # Two middles may share a cell, whose own answer knows one of them.
            there = middle > 0
            ways = torch.stack([by_cell(targets.exits[..., way]) for way in range(DIRECTIONS)], dim=-1)
            wrong = F.binary_cross_entropy_with_logits(exits[there], ways[there])
            loss, parts = loss + 4 * wrong, parts | {"leaves": wrong.item()}
            guess_degree = self.degree(cells_BCV).unflatten(-1, (self.ratio**2, -1))[there]
            wrong = F.cross_entropy(guess_degree, by_cell(targets.degree)[there])
            loss, parts = loss + wrong, parts | {"ways": wrong.item()}
        stroke = by_cell(targets.stroke[..., 0])
        if bool((stroke >= 0).any()):
            asked = stroke >= 0
            wrong = F.binary_cross_entropy_with_logits(self.strokes(cells_BCV)[asked], stroke[asked])
            loss, parts = loss + 2 * wrong, parts | {"stroke": wrong.item()}
        return loss, parts


def _mean(wrong: Tensor, share: Tensor | None) -> Tensor:
    """The mean over places, or over things where `share` says what each place is of its own."""
    return wrong.mean() if share is None else (wrong * share).sum() / share.sum()
