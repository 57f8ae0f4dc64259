"""Pixels -> patches; the resize policy; the image span; and the way back from a model's numbers to pixels.

Shapes: N patches, P = vision_patch_size. Sources: reference sections 3 (policy) and 4 (span).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from .config import Config

GREY = (127, 127, 127)
RESERVED_TOKENS = 3  # of vision_max_n_token, kept back for the alignment pads before a span


class TokenType(IntEnum):
    """What a position of an image span is. Order and values are the reference's."""

    START = 0
    PAD = 1
    IMAGE = 2
    NEWLINE = 3
    END = 4


class Span(NamedTuple):
    """One image in the prompt: its token types in order, and for each IMAGE slot the aligner row (row-major)."""

    types: list[int]
    order: list[int]


@dataclass(frozen=True)
class Geometry:
    """What the resize policy makes of one image. Sizes in pixels, grids in patches and in image tokens."""

    width: int
    height: int
    canvas_width: int
    canvas_height: int
    patch_rows: int
    patch_columns: int
    rows: int
    columns: int
    # Where the image lies on the canvas (the rest is grey): left, top, width, height in canvas pixels.
    content: tuple[int, int, int, int]

    @property
    def num_patches(self) -> int:
        return self.patch_rows * self.patch_columns

    @property
    def num_image_tokens(self) -> int:
        return self.rows * self.columns


def _num_tokens(rows: int, columns: int) -> int:
    """Length of a span of `rows` x `columns` image tokens, without the alignment pads before START."""
    even_rows = rows + rows % 2
    return even_rows * (columns + 1) + 2 + 2 * (even_rows // 2 * (columns + 1) % 2)


def _fit(height: float, width: float, budget: int, cell: int, patch: int) -> tuple[int, int]:
    """The largest (height, width) in pixels, near the aspect asked for, whose span should take `budget` tokens."""
    aspect = height / width
    columns = math.sqrt((budget - 2) / aspect + 0.25) - 0.5
    rows = columns * aspect
    if columns < 1:
        return (budget - 2) // 2 // 2 * 2 * cell, cell
    if rows < 2:
        return 2 * cell, ((budget - 2) // 2 - 1) * cell
    scale = min(cell * math.floor(columns) / width, cell * (math.floor(rows) // 2 * 2) / height)
    return math.floor(height * scale / patch) * patch, math.floor(width * scale / patch) * patch


def _contain(width: int, height: int, canvas_width: int, canvas_height: int) -> tuple[int, int, int, int]:
    """Where `ImageOps.pad` puts an image on its canvas: left, top, width, height (same rounding as Pillow)."""
    new_width, new_height = canvas_width, canvas_height
    if width / height > canvas_width / canvas_height:
        new_height = round(height / width * canvas_width)
    elif width / height < canvas_width / canvas_height:
        new_width = round(width / height * canvas_height)
    return round((canvas_width - new_width) * 0.5), round((canvas_height - new_height) * 0.5), new_width, new_height


def plan(width: int, height: int, config: Config) -> Geometry:
    """The geometry of an image of `width` x `height` pixels, from its header alone (reference section 3)."""
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has nothing to look at")
    patch, ratio = config.vision_patch_size, config.vision_downsample_ratio
    cell, budget = patch * ratio, config.vision_max_n_token - RESERVED_TOKENS
    sized_width, sized_height = min(width, config.vision_max_wh_ratio * height), height
    if sized_width * sized_height < config.vision_min_pixels:
        factor = math.sqrt(config.vision_min_pixels / (sized_width * sized_height))
        sized_width, sized_height = max(int(sized_width * factor), 1), max(int(sized_height * factor), 1)

    def grid(canvas_height: int, canvas_width: int) -> tuple[int, int]:
        return math.ceil(canvas_height // patch / ratio), math.ceil(canvas_width // patch / ratio)

    canvas_height, canvas_width = math.ceil(sized_height / patch) * patch, math.ceil(sized_width / patch) * patch
    attempt = budget
    while _num_tokens(*grid(canvas_height, canvas_width)) > budget:
        canvas_height, canvas_width = _fit(sized_height, sized_width, attempt, cell, patch)
        attempt -= 1
    rows, columns = grid(canvas_height, canvas_width)
    squash = width >= config.vision_max_wh_ratio * height
    content = (0, 0, canvas_width, canvas_height)
    return Geometry(
        width,
        height,
        canvas_width,
        canvas_height,
        canvas_height // patch,
        canvas_width // patch,
        rows,
        columns,
        content if squash else _contain(width, height, canvas_width, canvas_height),
    )


def to_canvas(image: Image.Image, geometry: Geometry) -> Image.Image:
    """The image on the canvas that the ViT sees: resized (bicubic) and padded with grey, or squashed when very wide."""
    image = image.convert("RGB")
    size = (geometry.canvas_width, geometry.canvas_height)
    if geometry.content == (0, 0, *size):
        return image.resize(size, Image.Resampling.BICUBIC)
    return ImageOps.pad(image, size, Image.Resampling.BICUBIC, GREY)


def to_patches(image: Image.Image, geometry: Geometry, config: Config) -> torch.Tensor:
    """Patches of an RGB image, bf16 [N, 3, P, P] in -1..1, row-major over the patch grid, channels first."""
    patch = config.vision_patch_size
    pixels = np.asarray(to_canvas(image, geometry), dtype=np.float32)
    values_HWC = (torch.from_numpy(pixels) / 255 - 0.5) / 0.5
    # [rows, P, columns, P, 3] -> [rows, columns, 3, P, P] -> [N, 3, P, P]
    grid = values_HWC.view(geometry.patch_rows, patch, geometry.patch_columns, patch, 3)
    return grid.permute(0, 2, 4, 1, 3).reshape(-1, 3, patch, patch).to(torch.bfloat16)


def span(rows: int, columns: int, start: int) -> Span:
    """The image span of a `rows` x `columns` grid whose placeholder stands at position `start` (reference section 4).

    Rows are read in pairs, column by column, so that a CSA window of four tokens is a 2 x 2 block of the grid:

    >>> span(2, 3, 5).types  # PAD PAD START | I I I I | I I NEWLINE NEWLINE | END
    [1, 1, 0, 2, 2, 2, 2, 2, 2, 3, 3, 4]
    >>> span(2, 3, 5).order
    [0, 3, 1, 4, 2, 5]
    """
    types = [int(TokenType.PAD)] * (3 - start % 4) + [int(TokenType.START)]
    order: list[int] = []
    even_rows = rows + rows % 2
    for top in range(0, even_rows, 2):
        for column in range(columns + 1):
            for row in (top, top + 1):
                if row >= rows:
                    types.append(int(TokenType.PAD))
                elif column == columns:
                    types.append(int(TokenType.NEWLINE))
                else:
                    types.append(int(TokenType.IMAGE))
                    order.append(row * columns + column)
    if even_rows // 2 * (columns + 1) % 2:
        types += [int(TokenType.PAD)] * 2
    return Span([*types, int(TokenType.END)], order)


def to_pixels(frame: tuple[int, ...], geometry: Geometry, config: Config) -> tuple[float, ...]:
    """Pixels of the image as given, from a primitive's integers 0..999 (x, y alternating; boxes and points alike).

    On the canvas frame the grey padding is taken off again; numbers that point into it are clamped to the edge.
    """
    left, top, content_width, content_height = geometry.content
    pixels = []
    for axis, value in enumerate(frame):
        offset, content, canvas, size = (
            (left, content_width, geometry.canvas_width, geometry.width)
            if axis % 2 == 0
            else (top, content_height, geometry.canvas_height, geometry.height)
        )
        share = value / 999
        if config.primitive_frame == "canvas":
            share = (share * canvas - offset) / content
        pixels.append(min(max(share, 0.0), 1.0) * size)
    return tuple(pixels)


def to_frame(pixels: tuple[float, ...], geometry: Geometry, config: Config) -> tuple[int, ...]:
    """The integers 0..999 that stand for pixels of the image as given: the inverse of `to_pixels`."""
    left, top, content_width, content_height = geometry.content
    frame = []
    for axis, value in enumerate(pixels):
        offset, content, canvas, size = (
            (left, content_width, geometry.canvas_width, geometry.width)
            if axis % 2 == 0
            else (top, content_height, geometry.canvas_height, geometry.height)
        )
        share = value / size
        if config.primitive_frame == "canvas":
            share = (share * content + offset) / canvas
        frame.append(min(max(round(share * 999), 0), 999))
    return tuple(frame)
