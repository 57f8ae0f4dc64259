"""Encoded image bytes: what their header says, and their pixels as RGB.

What is done to pictures that are not plain RGB, here and nowhere else:

| case | what the engine sees |
|---|---|
| EXIF orientation | the picture turned upright; all pixel coordinates are of the upright picture |
| transparency | the picture laid on white |
| palette, grey, CMYK, YCbCr, Lab | converted to RGB; colour profiles are not applied |
| 16 bits a channel | scaled to 8, not clipped |
| 32-bit integers, floats | scaled from 0..1 (floats), 0..255 or 0..65535 if they lie there, else from their own range |
| several frames or pages | the first one |

What is refused before a pixel is decoded: other formats, more bytes or pixels than the settings allow, one side more
than 1,000 times the other, and more than 40 million pixels that took less than a 5,000th of their size in the file:
nobody's photograph or page, but what a bomb is made of. Plain pictures of a sensible size may be packed as they like.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from .redaction import redacted

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
WHITE = (255, 255, 255)
_ORIENTATION = 0x0112  # the EXIF tag
_BITS_PER_SAMPLE = 0x0102  # of TIFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)
MAX_ASPECT = 1000
BOMB_PIXELS, BOMB_RATIO = 40_000_000, 5_000
_STRIP_PIXELS = 1 << 20  # of deep pictures, scaled so many at a time
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")

# `check` holds every image against our own limit before a pixel is decoded; Pillow's would come before that.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_MEMORY = 4 << 20  # of the text in one PNG, unpacked
Image.init()  # all plugins, once, not from many threads at their first image


@dataclass(frozen=True)
class Header:
    """An image's size in pixels, upright, and what decoding will do to it beyond plain conversion."""

    width: int
    height: int
    notes: tuple[str, ...]


class ImageError(Exception):
    """Why an image can't be answered. stage: fetch | check | decode; `kind` is one of a few words, for counting."""

    def __init__(self, stage: str, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(redacted(message))
        self.stage = stage
        self.kind = kind
        self.message = redacted(message)
        self.attempts = attempts

    def as_row(self) -> dict[str, Any]:
        return {"stage": self.stage, "kind": self.kind, "message": self.message, "attempts": self.attempts}


def check(data: bytes, max_bytes: int, max_pixels: int) -> Header:
    """What an image's header says, without decoding it. ImageError, stage check, when that is not acceptable."""
    if not data:
        raise ImageError("check", "empty", "the image has 0 bytes")
    if len(data) > max_bytes:
        raise too_many_bytes(len(data), max_bytes)
    try:
        with _open(data) as image:
            width, height = image.size
            _refuse_unfit_size(width, height, len(data), max_pixels)
            if _orientation(image, data) in _QUARTER_TURNS:
                width, height = height, width
            return Header(width, height, _notes(image, data))
    except UnidentifiedImageError:
        kind, what = ("unsupported_format", "an image, but of none") if _other_image(data) else ("not_an_image", "none")
        raise ImageError("check", kind, f"the bytes are {what} of {', '.join(FORMATS)}: {data[:16]!r}…") from None
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("check", "out_of_memory", "the header asks for more memory than the image may take") from None
    except Exception as error:  # Pillow's plugins raise whatever a broken header makes them stumble over
        raise ImageError("check", "corrupt", f"the header can't be read: {_said(error)}") from None


def decode(data: bytes) -> Image.Image:
    """The picture as RGB, upright, as the table above says. ImageError, stage decode, when its data is broken."""
    try:
        with _open(data) as image:
            turn = _UPRIGHT.get(_orientation(image, data))
            image.load()
            picture = _to_rgb(image)
            return picture if turn is None else picture.transpose(turn)
    except MemoryError:
        raise ImageError("decode", "out_of_memory", "the image needs more memory than its size explains") from None
    except Exception as error:  # as in `check`
        kind = "truncated" if "truncated" in str(error) else "corrupt"
        raise ImageError("decode", kind, f"the image can't be decoded: {_said(error)}") from None


def too_many_bytes(size: int, max_bytes: int) -> ImageError:
    return ImageError("check", "too_many_bytes", f"{size:,} bytes; max_image_bytes allows {max_bytes:,}")


def _refuse_unfit_size(width: int, height: int, num_bytes: int, max_pixels: int) -> None:
    size = f"{width} x {height} pixels"
    if width * height > max_pixels:
        raise ImageError("check", "too_many_pixels", f"{size}; max_image_pixels allows {max_pixels:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("check", "extreme_aspect", f"{size}: one side is more than {MAX_ASPECT} times the other")
    if width * height > BOMB_PIXELS and width * height * 3 > BOMB_RATIO * num_bytes:
        raise ImageError("check", "bomb", f"{size} in {num_bytes:,} bytes: packed more than {BOMB_RATIO:,} times")


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata, which is no concern of the rows
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _other_image(data: bytes) -> bool:
    """Whether Pillow knows the bytes as an image of a format that we don't take."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).close()
    except Exception:  # as in `check`
        return False
    return True


def _orientation(image: Image.Image, data: bytes) -> int:
    """The EXIF orientation that is ours to undo, 1 to 8, from the header alone."""
    if image.format == "TIFF":
        return 1  # Pillow's TIFF reader turns the picture itself, `size` included
    try:
        if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
            exif = Image.Exif()  # `getexif` would decode the whole picture to look behind it
            exif.load(_png_exif(data))
        else:
            exif = image.getexif()
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1


def _png_exif(data: bytes) -> bytes:
    """The content of a PNG's eXIf chunk, wherever it stands; empty without one."""
    offset = 8
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"eXIf":
            return b"Exif\0\0" + data[offset + 8 : offset + 8 + length]
        offset += 12 + length
    return b""


def _notes(image: Image.Image, data: bytes) -> tuple[str, ...]:
    notes = []
    # MPO is what Pillow calls the JPEG of phones that keep a second picture in it.
    if image.format != "MPO" and _has_more(image):
        notes.append(f"first of several {'pages' if image.format == 'TIFF' else 'frames'}")
    if _is_transparent(image):
        notes.append("transparency laid on white")
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB")
    if _is_deep(image, data):
        notes.append("deep colours scaled to 8 bits")
    if _orientation(image, data) != 1:
        notes.append("turned by its EXIF orientation")
    return tuple(notes)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """More than 8 bits a channel. Pillow itself reads those of coloured PNG and TIFF as their upper 8."""
    if image.mode in (*_DEEP_GREY, "I", "F"):
        return True
    if image.format == "PNG":
        return data[24] > 8  # IHDR's bit depth
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,)) if isinstance(image, TiffImagePlugin.TiffImageFile) else (8,)
    return max(bits, default=8) > 8


def _has_more(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a second frame that is broken is not looked at
        return True


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY:
        return _grey(np.asarray(image), 0.0, 65535.0)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        return _grey(values, *_value_range(values, image.mode))
    if _is_transparent(image):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")
    return image.convert("RGB")


def _value_range(values: np.ndarray, mode: str) -> tuple[float, float]:
    """The value that becomes black, and how far above it white is."""
    ranges = [(strip.min(), strip.max()) for strip in map(_finite, (values[rows] for rows in _strips(values)))]
    low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
    tops = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    return (0.0, top) if top else (low, max(high - low, 1e-30))


def _grey(values: np.ndarray, black: float, span: float) -> Image.Image:
    """An RGB picture of grey values."""
    grey = np.empty(values.shape, np.uint8)
    for rows in _strips(values):
        grey[rows] = ((_finite(values[rows]) - black) / span * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)


def _strips(values: np.ndarray) -> Iterator[slice]:
    """Some rows at a time: as float64 the whole would be eight times the picture."""
    step = max(_STRIP_PIXELS // values.shape[1], 1)
    for top in range(0, values.shape[0], step):
        yield slice(top, top + step)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
