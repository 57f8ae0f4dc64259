"""Forty nasty files made by hand, and thousands made by damage: the worst catalog that we could think of."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.pipeline.pictures import encoded, picture, turned

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG from its parts, with whatever they say; `extra` chunks stand before the data."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(*entries: tuple[int, int, int, int], next_page: int = 0) -> bytes:
    """A little-endian TIFF of one directory with these entries (tag, type, count, value)."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", next_page)


def nasties() -> dict[str, bytes]:
    """Forty files, each with a reason to exist. None may do more than fail."""
    plain, jpeg, gif = encoded(picture()), encoded(picture(), "JPEG"), encoded(picture(), "GIF")
    zeros = zlib.compress(bytes(10_000_000), 9)
    noise = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    size = ((256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1))
    comments = b"\x21\xfe" + b"\xff" + bytes(255) + b"\0"
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "no bytes": b"",
        "one byte": b"\x89",
        "only zeros": bytes(5000),
        "noise": noise,
        "text": b"hello\n" * 100,
        "html": b"<html><img src=x onerror=alert(1)></html>",
        "svg with a script": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "svg that reads a file": b"<!DOCTYPE x [<!ENTITY e SYSTEM '/etc/passwd'>]><svg>&e;</svg>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd)(r) file\n",
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n",
        "zip": b"PK\x03\x04" + noise,
        "gzip of a picture": gzip.compress(plain),
        "jpeg start alone": b"\xff\xd8",
        "jpeg of markers": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5000,
        "jpeg 65535 square": jpeg.replace(struct.pack(">HH", 40, 60), b"\xff\xff\xff\xff", 1),
        "jpeg 0 wide": jpeg.replace(struct.pack(">HH", 40, 60), b"\0\x28\0\0", 1),
        "jpeg in jpeg": jpeg[:-2] + jpeg,
        "jpeg with a page behind it": jpeg + b"<?php system($_GET[0]); ?>" * 100,
        "jpeg, broken exif": encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60)),
        "jpeg, exif directory that names itself": encoded(
            picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
        ),
        "jpeg, huge icc": encoded(picture(), "JPEG", icc_profile=bytes(3_000_000)),
        "png bomb by size": png(60_000, 60_000, zeros),
        "png bomb within the size": png(9_000, 1_000, zlib.compress(bytes(27_001 * 1_000), 9)),
        "png with 2^31 rows": png(1, 2**31 - 1, zeros),
        "png 0 x 0": png(0, 0, b""),
        "png, data longer than the picture": png(4, 4, zeros),
        "png, data shorter than the picture": png(400, 400, zlib.compress(bytes(100))),
        "png, depth 3": png(4, 4, zlib.compress(bytes(100)), 3),
        "png, palette missing": png(4, 4, zlib.compress(bytes(100)), 8, 3),
        "png, text bomb": png(4, 4, zlib.compress(bytes(52)), 8, 2, (b"zTXt", b"a\0\0" + zeros)),
        "png, a thousand text bombs": png(
            4, 4, zlib.compress(bytes(52)), 8, 2, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 1000
        ),
        "png, icc bomb": png(4, 4, zlib.compress(bytes(52)), 8, 2, (b"iCCP", b"a\0\0" + zeros)),
        "png, chunk of 4 GB": plain[:33] + struct.pack(">I", 2**32 - 1) + plain[37:],
        "gif 65535 square": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "gif of comments": gif[:13] + comments * 4000 + gif[13:],
        "tiff that is its own next page": tiff(*size, (273, 4, 1, 8), (279, 4, 1, 64), next_page=8),
        "tiff, strip of 4 GB": tiff(*size, (273, 4, 1, 8), (279, 4, 1, 2**32 - 1)),
        "tiff, 2^31 square": tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31), (258, 3, 1, 8), (262, 3, 1, 1)),
        "webp that ends in its header": encoded(picture(), "WEBP")[:30],
        "turned and cut": turned(picture(), 6, "JPEG")[:-200],
    }


def damaged(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many damaged files with their names: a third have flipped bits, others are cut, spliced or named wrongly."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    whole = [encoded(image, format) for image in (picture(), noise) for format in FORMATS]
    whole += [turned(picture(), 6, format) for format in ("JPEG", "PNG", "WEBP", "TIFF")]
    whole += [encoded(picture().convert(mode), "TIFF") for mode in ("CMYK", "LAB", "I", "F", "1", "P")]
    whole += [encoded(noise, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue")]
    whole += [
        encoded(frames[0], format, save_all=True, append_images=frames[1:]) for format in ("GIF", "WEBP", "TIFF", "PNG")
    ]
    for number in range(count):
        data = bytearray(whole[int(rng.integers(len(whole)))])
        how = ("flipped", "flipped", "header", "cut", "spliced", "misnamed")[number % 6]
        if how == "flipped":
            for place in rng.integers(0, len(data), int(rng.integers(1, 12))):
                data[place] ^= 1 << int(rng.integers(8))
        elif how == "header":
            for place in rng.integers(0, min(len(data), 64), 4):
                data[place] = int(rng.integers(256))
        elif how == "cut":
            del data[int(rng.integers(len(data))) :]
        elif how == "spliced":
            other = whole[int(rng.integers(len(whole)))]
            data[int(rng.integers(len(data))) :] = other[int(rng.integers(len(other))) :]
        extension = ("jpg", "png", "gif", "exe")[number % 4]
        yield f"{how}-{number}.{extension}", bytes(data)
