"""The language model with eyes: image features take the places of an image span's tokens.

Shapes: B sequences, T tokens, H hidden, C image tokens (grid cells) of one image, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from .config import Config
from .image import Geometry, TokenType, plan, span, to_patches
from .language_model import LanguageModel
from .vision import Aligner, VisionTransformer


class VisionLanguageModel(LanguageModel):
    """The whole model. Its parameters carry exactly the names of an official checkpoint."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.image_id: int | None = None  # the tokenizer's image placeholder, which `load` looks up
        self.skipped_draft_tensors = 0  # of the checkpoint's draft layers, which `load` passes by
        self.vision = VisionTransformer(config)
        self.aligner = Aligner(config)
        self.image_start = nn.Parameter(torch.zeros(config.hidden_size))
        self.image_pad = nn.Parameter(torch.zeros(config.hidden_size))
        self.image_newline = nn.Parameter(torch.zeros(config.hidden_size))
        self.image_end = nn.Parameter(torch.zeros(config.hidden_size))

    def see(self, patches: Tensor, geometry: Geometry) -> Tensor:
        """Image features [B, C, H] in the order of the span's IMAGE slots, from patches [B, N, 3, P, P] of one grid."""
        patches = patches.to(self.image_start.dtype)
        features = self.vision(patches, geometry.patch_rows, geometry.patch_columns)
        cells = self.aligner(features, geometry.patch_rows, geometry.patch_columns)
        return cells[:, span(geometry.rows, geometry.columns, 0).order]

    def embed_prompt(self, ids_BT: Tensor, features: Tensor | None = None) -> Tensor:
        """Embeddings [B, T, H] of expanded ids; `features` [B, C, H] fills the IMAGE slots in order."""
        text = self.embed(ids_BT.clamp(max=self.config.vocab_size - 1))
        if features is None:
            return text
        types_BT = ids_BT - self.config.vocab_size
        blank = torch.zeros_like(self.image_pad)
        marks = torch.stack([self.image_start, self.image_pad, blank, self.image_newline, self.image_end])
        merged = torch.where((types_BT >= 0)[..., None], marks[types_BT.clamp(min=0)], text)
        return merged.masked_scatter((types_BT == TokenType.IMAGE)[..., None], features.to(merged.dtype))

    def expand(self, ids: Sequence[int], geometries: Sequence[Geometry], image_id: int | None) -> list[int]:
        """Ids with each image placeholder replaced by its span, as vocab_size + TokenType (reference section 4)."""
        found = 0 if image_id is None else ids.count(image_id)
        if found != len(geometries):
            given = len(geometries)
            raise ValueError(f"the prompt has {found} image placeholders for {given} images; give one image for each")
        expanded: list[int] = []
        images = iter(geometries)
        for token_id in ids:
            if token_id == image_id:
                geometry = next(images)
                types = span(geometry.rows, geometry.columns, len(expanded)).types
                expanded += [self.config.vocab_size + kind for kind in types]
            else:
                expanded.append(token_id)
        return expanded

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int], images: Sequence[Image.Image]) -> Tensor:
        """Logits [positions, V] of a whole prompt in one uncached pass, in the weights' type.

        The tokenizer's image placeholder, `image_id`, stands in `token_ids` for each of `images`; the positions are
        those of the expanded prompt. ValueError when their numbers differ, for an id outside the vocabulary, or for
        images when the checkpoint had no tokenizer to say which id stands for them.
        """
        ids = [int(token_id) for token_id in token_ids]
        self._check_prompt(ids, images)
        geometries = [plan(*image.size, self.config) for image in images]
        expanded = self.expand(ids, geometries, self.image_id)
        device = self.image_start.device
        features = [
            self.see(to_patches(image, geometry, self.config)[None].to(device), geometry)[0]
            for image, geometry in zip(images, geometries, strict=True)
        ]
        ids_BT = torch.tensor([expanded], device=device)
        embeddings = self.embed_prompt(ids_BT, torch.cat(features)[None] if features else None)
        positions = torch.arange(ids_BT.shape[1], device=device)[None]
        hidden, _ = self(embeddings, ids_BT, positions, self.empty_state(1))
        return self.head(hidden)[0]

    def _check_prompt(self, ids: list[int], images: Sequence[Image.Image]) -> None:
        vocab = self.config.vocab_size
        if not ids:
            raise ValueError("the prompt has no tokens; begin it with the tokenizer's BOS")
        outside = [token_id for token_id in ids if not 0 <= token_id < vocab]
        if outside:
            raise ValueError(f"token id {outside[0]} is outside the vocabulary of {vocab}; use this model's tokenizer")
        if images and self.image_id is None:
            raise ValueError(
                "no id stands for an image: the checkpoint came without a tokenizer.json with an image placeholder; "
                "put it there and load again"
            )
