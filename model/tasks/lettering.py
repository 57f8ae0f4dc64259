"""Lettering: text in openly licensed fonts, with its exact box. Some fonts are the test split's alone.

Sizes are cap heights in pixels, since that is what decides whether a digit can be read; fonts of one point size differ
in it by a third. Where the fonts come from, and their licences: `data/fonts/SOURCES.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from model.tasks.matching import Box
from model.tasks.suite import Split

TRAINING_FONTS = (
    "roboto", "open-sans", "nunito", "comic-neue", "courier-prime", "inconsolata", "roboto-slab", "dejavu-sans",
    "aleo", "annie-use-your-telescope", "architects-daughter", "archivo-narrow", "asap-condensed", "azeret-mono",
    "baloo-2", "balsamiq-sans", "bebas-neue", "cabin", "caveat", "chivo-mono", "crimson-pro", "delius", "dm-mono",
    "exo-2", "fira-mono", "fjalla-one", "gloria-hallelujah", "grandstander", "itim", "jetbrains-mono", "kalam",
    "khand", "league-gothic", "lexend", "libre-baskerville", "mali", "montserrat", "noto-serif", "outfit",
    "overpass-mono", "poppins", "roboto-condensed", "roboto-mono", "rokkitt", "rubik", "shadows-into-light",
    "sriracha", "teko", "titillium-web", "work-sans", "zilla-slab",
)  # fmt: skip
HELD_OUT_FONTS = ("bitter", "oswald", "patrick-hand", "space-mono")

_FOLDER = Path(__file__).parent / "data" / "fonts"
_MEASURED_AT = 200  # points, at which a cap height is measured
_RUNS_KEPT = 8192  # a run is a mask of about 1 KB
_GLYPHS_KEPT = 16384
_BEARING_PX = 1  # spare room beside a glyph, for each pixel of the cap height

RGB = tuple[int, int, int]


def fonts(split: Split) -> tuple[str, ...]:
    """The fonts of a split's texts; test's are its own."""
    return HELD_OUT_FONTS if split == "test" else TRAINING_FONTS


@lru_cache(_RUNS_KEPT)
def run(text: str, font: str, cap_px: float) -> Image.Image:
    """The coverage of a line of text (mode L), cut to its ink; shared, so not to be painted on.

    `cap_px` is the height of a capital in pixels. ValueError for a font there is not, a text without ink or with a
    character outside printable ASCII and € £ ¥.
    """
    strange = [c for c in text if not (" " <= c <= "~" or c in "€£¥")]
    if strange or not text.strip():
        raise ValueError(f"a text needs ink, in printable ASCII and € £ ¥; got {text!r}")
    glyphs = [_glyph(c, font, cap_px) for c in text]
    width = 2 * _BEARING_PX * math.ceil(cap_px) + sum(glyph.advance for glyph in glyphs)
    mask = Image.new("L", (width, glyphs[0].mask.height))
    x = 0
    for glyph in glyphs:
        mask.paste(255, (x, 0), glyph.mask)
        x += glyph.advance
    ink = mask.getbbox()
    assert ink is not None, (text, font, cap_px)
    return mask.crop(ink)


def extent(text: str, font: str, cap_px: float) -> tuple[int, int]:
    """Width and height in pixels of a text's ink."""
    return run(text, font, cap_px).size


def widest(texts: Iterable[str], font: str, cap_px: float) -> int:
    """The width in pixels that each of the texts fits into."""
    return max(extent(text, font, cap_px)[0] for text in texts)


def write(image: Image.Image, text: str, x: int, y: int, font: str, cap_px: float, ink: RGB | int) -> Box:
    """Write a text with the corner of its ink at (x, y); returns the box of the ink in pixels."""
    mask = run(text, font, cap_px)
    image.paste(ink, (x, y), mask)
    return (float(x), float(y), float(x + mask.width), float(y + mask.height))


@dataclass(frozen=True)
class _Glyph:
    """A character's coverage on a full line, with room for what hangs over at its left, and its advance in pixels."""

    mask: Image.Image
    advance: int


@lru_cache(_GLYPHS_KEPT)
def _glyph(character: str, font: str, cap_px: float) -> _Glyph:
    pen = _at_points(font, cap_px / _cap_share(font))
    above, below = pen.getmetrics()
    spare = math.ceil(cap_px) * _BEARING_PX
    mask = Image.new("L", (math.ceil(pen.getlength(character)) + 2 * spare, above + below + spare))
    ImageDraw.Draw(mask).text((spare, 0), character, font=pen, fill=255)
    return _Glyph(mask, round(pen.getlength(character)))


@cache
def _cap_share(font: str) -> float:
    """A capital's height as a share of the point size."""
    _, top, _, bottom = _at_points(font, _MEASURED_AT).getbbox("H")
    return (bottom - top) / _MEASURED_AT


def _at_points(font: str, points: float) -> ImageFont.FreeTypeFont:
    if font not in TRAINING_FONTS + HELD_OUT_FONTS:
        raise ValueError(f"there is no font {font!r}; choose from {', '.join(TRAINING_FONTS + HELD_OUT_FONTS)}")
    # The basic layout gives the same advances whether or not the machine has a shaping library.
    return ImageFont.truetype(_FOLDER / f"{font}.ttf", points, layout_engine=ImageFont.Layout.BASIC)
