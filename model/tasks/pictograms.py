"""Pictograms: named silhouettes, kept as one sheet of masks, drawn at any size in any colour.

The drawings are Phosphor Icons (MIT, see data/pictograms); `catalogs/make_pictograms.py` made the sheet. One kind in
five is the test split's own: training and validation draw `TRAINING_KINDS`, test draws those and `HELD_OUT_KINDS`.
What a thing looks like that nobody has seen, training learns from `disguised` ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

_DATA = Path(__file__).parent / "data" / "pictograms"
_TABLE: dict[str, Any] = json.loads((_DATA / "names.json").read_text())
_ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in _TABLE["kinds"]}
_CELLS = {name: i for i, name in enumerate(_ROWS)}

KINDS: tuple[str, ...] = tuple(_ROWS)
TRAINING_KINDS = tuple(name for name, row in _ROWS.items() if not row["held_out"])
HELD_OUT_KINDS = tuple(name for name, row in _ROWS.items() if row["held_out"])
PLURALS: dict[str, str] = {name: row["plural"] for name, row in _ROWS.items()}

_MASKS_KEPT = 8192  # of about 2 KB each
_CHIMERA_PX = 96
_LEAST_SHARE = 0.5  # of that, in width and in height, that a chimera fills

_disguises: ContextVar[Mapping[str, int]] = ContextVar("disguises", default=MappingProxyType({}))


@contextmanager
def disguised(looks: Mapping[str, int]) -> Iterator[None]:
    """Inside, each of these kinds looks like nothing there is: the chimera of the number that it is given."""
    before = _disguises.set(looks)
    try:
        yield
    finally:
        _disguises.reset(before)


def extent(kind: str, side: int) -> tuple[int, int]:
    """Width and height in pixels of a pictogram whose longer side is `side`."""
    looks = _disguises.get()
    width, height = chimera(looks[kind]).size if kind in looks else _ROWS[kind]["size"]
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def mask(kind: str, side: int) -> Image.Image:
    """Coverage (mode "L", 0..255) of a pictogram whose longer side is `side` pixels, cut to its tight extent.

    The image is shared between callers: do not paint on it. ValueError for a kind that there is not.
    """
    if kind not in _ROWS:
        raise ValueError(f"there is no pictogram {kind!r}; see KINDS for the {len(KINDS)} that there are")
    looks = _disguises.get()
    if kind in looks:
        return chimera(looks[kind]).resize(extent(kind, side), Image.Resampling.BICUBIC)
    return _mask(kind, side)


@lru_cache(_MASKS_KEPT)
def _mask(kind: str, side: int) -> Image.Image:
    return _cut(kind).resize(extent(kind, side), Image.Resampling.BICUBIC)


@lru_cache(64)
def chimera(number: int) -> Image.Image:
    """Coverage of a silhouette that no kind has: the upper half of one training kind on the lower half of another, each
    turned by quarters, cut to its tight extent."""
    rng = np.random.default_rng([number, 53])
    while True:
        one, other = (TRAINING_KINDS[i] for i in rng.choice(len(TRAINING_KINDS), size=2, replace=False).tolist())
        upper, lower = (
            _cut(kind).resize((_CHIMERA_PX, _CHIMERA_PX), Image.Resampling.BICUBIC).rotate(90 * int(rng.integers(4)))
            for kind in (one, other)
        )
        middle = _CHIMERA_PX // 2
        upper.paste(lower.crop((0, middle, _CHIMERA_PX, _CHIMERA_PX)), (0, middle))
        ink = upper.getbbox()
        if ink and min(ink[2] - ink[0], ink[3] - ink[1]) >= _LEAST_SHARE * _CHIMERA_PX:
            return upper.crop(ink)


def _cut(kind: str) -> Image.Image:
    """A kind's coverage as the sheet has it."""
    cell, columns = _TABLE["side"], _TABLE["columns"]
    left, top = _CELLS[kind] % columns * cell, _CELLS[kind] // columns * cell
    width, height = _ROWS[kind]["size"]
    return _sheet().crop((left, top, left + width, top + height))


@cache
def _sheet() -> Image.Image:
    with Image.open(_DATA / "sheet.png") as sheet:
        return sheet.convert("L")
