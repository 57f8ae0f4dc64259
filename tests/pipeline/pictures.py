"""Pictures for the tests: a known rectangle on a plain ground, in every format, orientation and state of repair."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

GROUND, THING = (40, 90, 160), (250, 220, 30)
# What a camera stores for each EXIF orientation, so that undoing it gives the upright picture back.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture(width: int = 60, height: int = 40, box: tuple[int, int, int, int] = (10, 8, 30, 24)) -> Image.Image:
    """A yellow rectangle on blue. The box is half open: x2 and y2 are the first pixels outside."""
    image = Image.new("RGB", (width, height), GROUND)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), THING)
    return image


def found_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Where the rectangle is: the half-open box of the pixels nearer to its colour than to the ground or to grey."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    is_thing = np.abs(pixels - THING).sum(axis=2) < 200
    rows, columns = np.flatnonzero(is_thing.any(axis=1)), np.flatnonzero(is_thing.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned(upright: Image.Image, orientation: int, format: str) -> bytes:
    """The upright picture as a camera held askew stores it, with the EXIF orientation that says how."""
    method = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {} if format in ("PNG", "TIFF") else {"quality": 95}
    return encoded(upright if method is None else upright.transpose(method), format, exif=exif, **quality)


def broken_pictures() -> dict[str, tuple[bytes, str, str]]:
    """Twelve ways to be broken: name -> (bytes, stage, kind), under limits of 100,000 bytes and 1,000,000 pixels."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    png, jpeg, webp = encoded(noise), encoded(noise, "JPEG"), encoded(noise, "WEBP")
    middle = png.index(b"IDAT") + 2000
    return {
        "empty.jpg": (b"", "check", "empty"),
        "text.jpg": (b"this is not a picture\n" * 20, "check", "not_an_image"),
        "page.png": (b"<!DOCTYPE html><title>404 Not Found</title>", "check", "not_an_image"),
        "zeros.bmp": (bytes(4096), "check", "not_an_image"),
        "targa.tga": (encoded(noise, "TGA"), "check", "unsupported_format"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "decode", "truncated"),
        "cut.png": (png[: len(png) // 2], "decode", "truncated"),
        "cut.webp": (webp[: len(webp) // 2], "check", "corrupt"),
        "headless.png": (png[:20], "check", "corrupt"),
        "flipped.png": (png[:middle] + bytes(200) + png[middle + 200 :], "decode", "corrupt"),
        "heavy.png": (png + bytes(100_000), "fetch", "too_many_bytes"),
        "bomb.png": (encoded(Image.new("1", (4000, 4000))), "check", "too_many_pixels"),
    }
