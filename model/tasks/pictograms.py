"""Pictograms: named silhouettes, kept as one sheet of masks, drawn at any size in any colour.

The drawings are Phosphor Icons (MIT, see data/pictograms); `catalogs/make_pictograms.py` made the sheet. One kind in
five is the test split's own: training and validation draw `TRAINING_KINDS`, test draws those and `HELD_OUT_KINDS`.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

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


def extent(kind: str, side: int) -> tuple[int, int]:
    """Width and height in pixels of a pictogram whose longer side is `side`."""
    width, height = _ROWS[kind]["size"]
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@lru_cache(_MASKS_KEPT)
def mask(kind: str, side: int) -> Image.Image:
    """Coverage (mode "L", 0..255) of a pictogram whose longer side is `side` pixels, cut to its tight extent.

    The image is shared between callers: do not paint on it. ValueError for a kind that there is not.
    """
    if kind not in _ROWS:
        raise ValueError(f"there is no pictogram {kind!r}; see KINDS for the {len(KINDS)} that there are")
    cell, columns = _TABLE["side"], _TABLE["columns"]
    left, top = _CELLS[kind] % columns * cell, _CELLS[kind] // columns * cell
    width, height = _ROWS[kind]["size"]
    cut = _sheet().crop((left, top, left + width, top + height))
    return cut.resize(extent(kind, side), Image.Resampling.BICUBIC)


@cache
def _sheet() -> Image.Image:
    with Image.open(_DATA / "sheet.png") as sheet:
        return sheet.convert("L")
