"""Answers drawn on their picture: boxes, points and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# Colour-blind safe (Okabe and Ito), dark enough to carry white letters.
_COLOURS = ("#d55e00", "#0072b2", "#007a5a", "#a0407c", "#8a6d00")


def draw(picture: Image.Image, primitives: Iterable[Mapping[str, Any]]) -> Image.Image:
    """A copy of the picture (RGB, upright) with the answer row's valid primitives drawn; one colour for each label."""
    picture = picture.copy()
    canvas = ImageDraw.Draw(picture)
    unit = max(2, round(min(picture.size) / 200))  # of line widths, in pixels
    font = ImageFont.load_default(max(10, unit * 6))
    colours: dict[str, str] = {}
    for found in primitives:
        if not found["valid"]:
            continue
        label = found["label"] or ""
        colour = colours.setdefault(label, _COLOURS[len(colours) % len(_COLOURS)])
        x1, y1 = found["x1"], found["y1"]
        if found["kind"] == "point":
            r = 2 * unit
            canvas.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), colour, "white", max(1, unit // 2))
        else:
            canvas.rectangle((x1, y1, found["x2"], found["y2"]), outline=colour, width=unit)
        if label:
            _write(canvas, picture.size, (x1, y1), label, colour, font)
    return picture


def _write(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    label: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """The label on a plate of its colour, above the corner, or wherever the picture has room for it."""
    _, _, width, height = canvas.textbbox((0, 0), label, font)
    left = min(max(corner[0], 0), max(size[0] - width - 4, 0))
    top = corner[1] - height - 4 if corner[1] >= height + 4 else corner[1]
    canvas.rectangle((left, top, left + width + 4, top + height + 4), fill=colour)
    canvas.text((left + 2, top + 2), label, "white", font)
