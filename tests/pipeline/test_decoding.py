"""Headers and pixels: every format and orientation, every mode, and every way to be broken."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.decoding import ImageError, check, decode
from tests.pipeline.pictures import STORED, THING, broken_pictures, encoded, found_box, picture, turned

ANY = 10**9
BOX = (10, 8, 30, 24)


def near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int], by: int = 3) -> bool:
    seen = np.asarray(image)[place[1], place[0]].astype(int)
    return bool(np.abs(seen - colour).max() <= by)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_comes_out_as_the_same_rgb_picture(format: str) -> None:
    data = encoded(picture(), format)
    header, image = check(data, ANY, ANY), decode(data)
    assert (header.width, header.height, header.notes) == (60, 40, ())
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert np.abs(np.subtract(found_box(image), BOX)).max() <= 1


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_exif_orientation_is_undone_and_the_header_already_counts_upright(format: str, orientation: int) -> None:
    data = turned(picture(), orientation, format)
    header, image = check(data, ANY, ANY), decode(data)
    assert (header.width, header.height) == image.size == (60, 40)
    assert np.abs(np.subtract(found_box(image), BOX)).max() <= 1


def test_an_orientation_behind_the_pixels_of_a_png_is_seen() -> None:
    plain = encoded(picture().transpose(Image.Transpose.ROTATE_90))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    end = plain.index(b"IEND") - 4
    data = plain[:end] + chunk + plain[end:]
    header, image = check(data, ANY, ANY), decode(data)
    assert (header.width, header.height) == image.size == (60, 40)
    assert found_box(image) == BOX


def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    assert (check(data, ANY, ANY).width, decode(data).size) == (60, (60, 40))


def test_transparency_is_laid_on_white() -> None:
    image = picture().convert("RGBA")
    image.paste((200, 0, 0, 0), (40, 0, 60, 40))
    data = encoded(image)
    assert check(data, ANY, ANY).notes == ("transparency laid on white",)
    assert near(decode(data), (50, 20), (255, 255, 255)) and near(decode(data), (20, 16), THING)


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    ground = image.getpixel((0, 0))
    assert isinstance(ground, int)
    decoded = decode(encoded(image, transparency=ground))
    assert near(decoded, (0, 0), (255, 255, 255)) and near(decoded, (20, 16), THING, by=8)


@pytest.mark.parametrize(("mode", "format"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF"), ("LAB", "TIFF")])
def test_other_colour_spaces_are_converted(mode: str, format: str) -> None:
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (255, 128, 128)])
        assert near(decode(encoded(image, format)), (4, 4), (255, 255, 255), by=6)
    else:
        assert near(decode(encoded(picture().convert(mode), format)), (20, 16), THING, by=24)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    decoded = np.asarray(decode(encoded(Image.fromarray(values))))[..., 0]
    assert np.abs(decoded.astype(float) - values / 257).max() <= 1


@pytest.mark.parametrize(("top", "kind"), [(1.0, "float32"), (255.0, "float32"), (65535.0, "int32"), (9e6, "int32")])
def test_deep_tiffs_keep_their_shades_apart(top: float, kind: str) -> None:
    values = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(kind)
    decoded = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert np.abs(decoded.astype(float) - values / top * 255).max() <= 1


@pytest.mark.parametrize(
    ("format", "what"), [("GIF", "frames"), ("WEBP", "frames"), ("PNG", "frames"), ("TIFF", "pages")]
)
def test_the_first_of_several_frames_is_taken_and_noted(format: str, what: str) -> None:
    second = Image.new("RGB", (60, 40), "white")
    data = encoded(picture(), format, save_all=True, append_images=[second])
    assert check(data, ANY, ANY).notes == (f"first of several {what}",)
    assert np.abs(np.subtract(found_box(decode(data)), BOX)).max() <= 1


@pytest.mark.parametrize("name", [name for name, (_, stage, _) in broken_pictures().items() if stage != "fetch"])
def test_a_broken_picture_says_where_and_how(name: str) -> None:
    data, stage, kind = broken_pictures()[name]
    with pytest.raises(ImageError) as caught:
        check(data, ANY, 1_000_000)
        decode(data)
    assert (caught.value.stage, caught.value.kind) == (stage, kind), caught.value.message


def test_any_cut_of_a_picture_decodes_or_is_an_image_error() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(picture(), format)
        outcomes = set()
        for length in range(0, len(data), max(1, len(data) // 40)):
            try:
                check(data[:length], ANY, ANY)
                decode(data[:length])
                outcomes.add("decoded")
            except ImageError as error:
                outcomes.add(error.kind)
        assert "decoded" not in outcomes or len(outcomes) > 1, (format, outcomes)


def test_the_limit_of_pixels_holds_before_any_is_decoded() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)))  # 900 million pixels in 110 kB
    with pytest.raises(ImageError, match="30000 x 30000 pixels; max_image_pixels allows 1,000"):
        check(bomb, ANY, 1_000)


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (encoded(picture().convert("CMYK"), "JPEG"), ("CMYK converted to RGB",)),
        (encoded(Image.fromarray(np.zeros((8, 8), np.uint16))), ("deep colours scaled to 8 bits",)),
        (encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), ("deep colours scaled to 8 bits",)),
        (encoded(picture().convert("P"), "GIF"), ()),
        (encoded(picture().convert("1"), "TIFF"), ()),
    ],
)
def test_what_decoding_changes_is_noted(data: bytes, notes: tuple[str, ...]) -> None:
    assert check(data, ANY, ANY).notes == notes


def test_sixteen_bit_colour_is_noted() -> None:
    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    assert check(data, ANY, ANY).notes == ("deep colours scaled to 8 bits",)
    assert decode(data).size == (4, 4)


@pytest.mark.parametrize(("size", "kind"), [((5001, 5), "extreme_aspect"), ((7000, 7000), "bomb")])
def test_sizes_that_nobody_looks_at_are_refused(size: tuple[int, int], kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        check(encoded(Image.new("1", size)), ANY, ANY)
    assert (caught.value.stage, caught.value.kind) == ("check", kind)
    assert check(encoded(Image.new("1", (5000, 5))), ANY, ANY).width == 5000


def test_a_plain_picture_may_be_packed_as_well_as_it_can() -> None:
    plain = encoded(Image.new("RGB", (6000, 4000)))
    assert 900 * len(plain) < 6000 * 4000 * 3 and check(plain, ANY, ANY).width == 6000


def test_values_that_are_no_numbers_count_as_nought() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 1.0]], np.float32)
    decoded = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert decoded.tolist() == [[0, 0], [0, 255]]
