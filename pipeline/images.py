"""Image rows with their bytes fetched, hashed and their header read. A bad image becomes an error, never a crash."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from . import store
from .decoding import Header, ImageError, check
from .rows import CHECKED_ROWS, IMAGE_ROWS

_FETCH_THREADS = 16
HEAD_BYTES = 1 << 16  # most headers end long before; what lies behind an embedded thumbnail fits too


@dataclass(frozen=True)
class Limits:
    """Where local files may lie (`root`, a folder or s3:// prefix) and how large an image may be."""

    root: str
    max_bytes: int
    max_pixels: int


def fetch(uri: str, limits: Limits) -> tuple[bytes, int]:
    """The bytes behind an image's address and the attempts that took. Relative ones start at `limits.root`.

    ImageError, stage fetch, when they can't be had: by the scheme, the place, the size or the store.
    """
    where = _where(uri, limits)
    try:
        return store.read(where, limits.max_bytes)
    except store.StoreError as error:
        raise ImageError("fetch", error.kind, error.message, error.attempts) from None


def header_of(uri: str | None, data: bytes | None, limits: Limits) -> Header:
    """What an image's header says, of its bytes or of the first ones behind its address. ImageError as `fetch`.

    Headers that lie elsewhere (some TIFF, WebP) cost the whole file.
    """
    if data is None and uri:
        try:
            return check(store.read_head(_where(uri, limits), HEAD_BYTES), HEAD_BYTES, limits.max_pixels)
        except (ImageError, store.StoreError):
            data, _ = fetch(uri, limits)  # the whole file, or its own error
    if data is None:
        raise ImageError("fetch", "no_image", "the row has neither image bytes nor an address")
    return check(data, limits.max_bytes, limits.max_pixels)


def fetch_and_check(table: pa.Table, limits: Limits) -> pa.Table:
    """IMAGE_ROWS in, CHECKED_ROWS out: row for row, with the bytes or with the error."""
    rows = table.select(["image_uri", "image"]).to_pylist()
    with ThreadPoolExecutor(_FETCH_THREADS) as threads:
        checked = list(threads.map(lambda row: _checked(row["image_uri"], row["image"], limits), rows))
    columns = {name: table.column(name) for name in IMAGE_ROWS.names}
    for name in ("image", *CHECKED_ROWS.names[len(IMAGE_ROWS) :]):
        columns[name] = pa.array([row.get(name) for row in checked], CHECKED_ROWS.field(name).type)
    return pa.table(columns, schema=CHECKED_ROWS)


def _checked(uri: str | None, data: bytes | None, limits: Limits) -> dict[str, Any]:
    """The new fields of one row. Bytes that will not be decoded are dropped, so that they don't travel."""
    began = time.perf_counter()
    found: dict[str, Any] = {}
    attempts = 1
    try:
        if data is None:
            if not uri:
                raise ImageError("fetch", "no_image", "the row has neither image bytes nor an address")
            data, attempts = fetch(uri, limits)
        found["image_sha256"] = hashlib.sha256(data).hexdigest()
        header = check(data, limits.max_bytes, limits.max_pixels)
        found |= {"image": data, "image_width": header.width, "image_height": header.height, "notes": header.notes}
    except ImageError as error:
        found["error"] = error.as_row() | {"attempts": max(error.attempts, attempts)}
    return found | {"fetch_seconds": time.perf_counter() - began}


def _where(uri: str, limits: Limits) -> str:
    """The place that an image's address means, if it may be read."""
    if (scheme := store.scheme(uri)) not in ("", "s3"):
        raise ImageError("fetch", "unsupported_scheme", f"can't read {scheme}:// addresses: {uri}")
    where = store.join(limits.root, uri)
    return where if store.is_s3(where) else _inside(limits.root, where)


def _inside(root: str, path: str) -> str:
    """The path with its links followed, if it lies inside the root; else it is refused, whatever it is."""
    if store.is_s3(root):
        raise ImageError("fetch", "outside_root", f"{path} is a local path; this catalog's images start at {root}")
    try:
        resolved, allowed = Path(path).resolve(), Path(root).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of links
        raise ImageError("fetch", "unreadable", f"not a usable path: {path!r}: {error}") from None
    if not resolved.is_relative_to(allowed):
        raise ImageError("fetch", "outside_root", f"{path} lies outside {root} (--image-root names another folder)")
    return str(resolved)
