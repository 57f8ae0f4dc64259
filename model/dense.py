"""The slow, obvious runner: sequences of equal length and place as one rectangle, through the model's own forward.

It is what runs on a GPU and in bf16, and what the packed runner is tested against.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from .cache import Cache
from .runner import Feed, Picture
from .vision_language_model import VisionLanguageModel

ONE_BY_ONE = 8  # text feeds up to this long are run token by token, wherever each sequence stands


class DenseRunner:
    def __init__(self, model: VisionLanguageModel, cache: Cache) -> None:
        self.model, self.cache = model, cache

    @torch.inference_mode()
    def run(self, feeds: Sequence[Feed]) -> Tensor:
        self._see([feed.picture for feed in feeds if feed.picture is not None])
        logits: dict[int, Tensor] = {}
        short = [number for number, feed in enumerate(feeds) if feed.picture is None and len(feed.ids) <= ONE_BY_ONE]
        for step in range(max((len(feeds[number].ids) for number in short), default=0)):
            members = [number for number in short if len(feeds[number].ids) > step]
            self._pass([feeds[number] for number in members], members, slice(step, step + 1), logits)
        rectangles: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for number in sorted(set(range(len(feeds))) - set(short)):
            feed = feeds[number]
            cells = 0 if feed.picture is None else feed.picture.geometry.rows
            rectangles[feed.sequence.length, len(feed.ids), cells].append(number)
        for members in rectangles.values():
            self._pass([feeds[number] for number in members], members, slice(None), logits)
        wanted = [logits[number] for number, feed in enumerate(feeds) if feed.wanted]
        device = self.model.embed.weight.device
        return torch.stack(wanted) if wanted else torch.zeros(0, self.model.config.vocab_size, device=device)

    def close(self) -> None:
        pass

    def _pass(self, feeds: list[Feed], numbers: list[int], part: slice, logits: dict[int, Tensor]) -> None:
        """One forward of B feeds' `part`, of T tokens each; the logits after it by the feeds' numbers."""
        device = self.model.embed.weight.device
        ids_BT = torch.tensor([feed.ids[part] for feed in feeds], device=device)
        sequences = [feed.sequence for feed in feeds]
        starts = torch.tensor([sequence.length for sequence in sequences], device=device)
        positions_BT = starts[:, None] + torch.arange(ids_BT.shape[1], device=device)
        seen = [
            feed.picture.features for feed in feeds if feed.picture is not None and feed.picture.features is not None
        ]
        embeddings = self.model.embed_prompt(ids_BT, torch.stack(seen) if seen else None)
        hidden, state = self.model(embeddings, ids_BT, positions_BT, self.cache.gather(sequences))
        self.cache.append(sequences, state, ids_BT.shape[1])
        logits.update(zip(numbers, self.model.head(hidden[:, -1]).float(), strict=True))

    def _see(self, pictures: list[Picture]) -> None:
        """The features of those not seen yet, images of one grid together."""
        grids: dict[tuple[int, int], dict[int, Picture]] = defaultdict(dict)
        for picture in pictures:
            if picture.features is None:
                grids[picture.geometry.patch_rows, picture.geometry.patch_columns][id(picture)] = picture
        for alike in grids.values():
            patches = torch.stack([picture.patches for picture in alike.values()]).to(self.model.embed.weight.device)
            geometry = next(iter(alike.values())).geometry
            for picture, features in zip(alike.values(), self.model.see(patches, geometry), strict=True):
                picture.features = features
