from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from model.tasks import lettering
from model.tasks.lettering import HELD_OUT_FONTS, TRAINING_FONTS, extent, fonts, run, widest, write
from model.tasks.suite import SPLITS

ALL_FONTS = TRAINING_FONTS + HELD_OUT_FONTS
FOLDER = Path(lettering.__file__).parent / "data" / "fonts"
TEXTS = st.text(st.sampled_from("".join(map(chr, range(33, 127))) + "€£¥"), min_size=1, max_size=8)


def test_test_has_its_fonts_to_itself() -> None:
    assert set(fonts("test")).isdisjoint(fonts("train")) and set(fonts("test")).isdisjoint(fonts("validation"))
    assert len(ALL_FONTS) >= 8 and all(len(fonts(split)) >= 3 for split in SPLITS)


def test_every_font_has_a_file_a_licence_and_a_source() -> None:
    sources = (FOLDER / "SOURCES.md").read_text()
    assert {path.stem for path in FOLDER.glob("*.ttf")} == set(ALL_FONTS)
    for font in ALL_FONTS:
        row = next(line for line in sources.splitlines() if f"`{font}.ttf`" in line)
        licence = row.split("|")[4].strip(" `")
        assert (FOLDER / licence).stat().st_size > 1000
        assert row.split("|")[5].strip() == ("test" if font in HELD_OUT_FONTS else "training, validation")
        if licence == "OFL.txt":
            assert f"{font}.ttf: Copyright" in (FOLDER / licence).read_text()


def test_the_fonts_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 700_000


def test_an_installed_package_brings_the_fonts() -> None:
    root = Path(__file__).parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["model"]
    shipped = {path for pattern in patterns for path in (root / "model").glob(pattern)}
    assert set(FOLDER.iterdir()) <= shipped


@pytest.mark.parametrize("font", ALL_FONTS)
def test_every_digit_and_sign_has_a_shape_of_its_own(font: str) -> None:
    shapes = {run(c, font, 12).tobytes() + bytes(extent(c, font, 12)) for c in "0123456789$€£¥"}
    assert len(shapes) == 14


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, font=st.sampled_from(ALL_FONTS), cap=st.integers(6, 30))
def test_the_box_of_a_text_is_exactly_its_ink(text: str, font: str, cap: int) -> None:
    image = Image.new("L", (600, 120))
    box = write(image, text, 20, 30, font, cap, 255)
    assert image.getbbox() == box
    assert box[:2] == (20, 30) and (box[2] - 20, box[3] - 30) == extent(text, font, cap)


@pytest.mark.parametrize("font", ALL_FONTS)
@pytest.mark.parametrize("cap", [7, 12, 20])
def test_capitals_are_as_tall_as_asked(font: str, cap: int) -> None:
    assert abs(extent("H", font, cap)[1] - cap) <= 1


@pytest.mark.parametrize("font", ALL_FONTS)
@pytest.mark.parametrize("cap", [7, 12, 20])
def test_a_text_is_set_as_wide_as_its_font_sets_it(font: str, cap: int) -> None:
    """Against Pillow's own setting of the whole line, but for the rounding of advances to whole pixels."""
    capital = ImageFont.truetype(FOLDER / f"{font}.ttf", 200).getbbox("H")
    points = cap * 200 / (capital[3] - capital[1])
    left, _, right, _ = ImageFont.truetype(FOLDER / f"{font}.ttf", points).getbbox("$46.28 mango")
    assert extent("$46.28 mango", font, cap)[0] == pytest.approx(right - left, rel=0.12)


@pytest.mark.parametrize("font", ALL_FONTS)
def test_a_price_on_twelve_pixels_tells_all_its_digits_apart(font: str) -> None:
    prices = [np.asarray(run(f"{digit}.{digit}{digit}", font, 12).resize((48, 16)), dtype=float) for digit in range(10)]
    for i, a in enumerate(prices):
        for b in prices[:i]:
            assert np.abs(a - b).mean() > 8  # levels of 255


def test_widest_is_the_width_that_all_fit_into() -> None:
    assert widest(["1.11", "8.88", "i"], "roboto", 12) == extent("8.88", "roboto", 12)[0]


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        run("naïve", "roboto", 12)
    with pytest.raises(ValueError, match="needs ink"):
        run("  ", "roboto", 12)
    with pytest.raises(ValueError, match="there is no font 'helvetica'"):
        run("a", "helvetica", 12)


def test_the_files_hold_no_glyph_beyond_the_alphabet() -> None:
    for font in ALL_FONTS:
        pen = ImageFont.truetype(FOLDER / f"{font}.ttf", 20)
        missing = pen.getmask("\uffff").getbbox()
        assert pen.getmask("ß").getbbox() == missing
