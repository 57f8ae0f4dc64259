"""Image rows with their bytes fetched, hashed and their header read. A bad image becomes an error, never a crash."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa

from . import store
from .access import Access, WebAddress
from .decoder_pool import DecoderPool
from .decoding import Header, ImageError
from .rows import CHECKED_ROWS, IMAGE_ROWS
from .settings import ImageSettings
from .waiting import HelperThreads
from .web import Patience, Web

_FETCH_THREADS = 16
_CHECKERS = 2  # processes that read headers: one, and another for while one hangs
HEAD_BYTES = 1 << 16  # most headers end long before; what lies behind an embedded thumbnail fits too


@dataclass(frozen=True)
class Limits:
    """What an image may be and where it may lie: below `root` (a folder or s3:// prefix) or where `access` says."""

    root: str
    max_bytes: int
    max_pixels: int
    access: Access = field(default_factory=Access)
    patience: Patience = field(default_factory=Patience)
    decode_seconds: float = 60.0

    @classmethod
    def of(cls, settings: ImageSettings, root: str, processes: int = 1) -> Limits:
        """As the settings say, for a catalog at `root` that so many processes fetch from at a time."""
        access = Access(
            tuple(settings.allow_scheme),
            tuple(settings.allow_host),
            tuple(settings.allow_bucket),
            tuple(settings.allow_root),
            tuple(settings.allow_address),
        )
        patience = Patience(
            settings.fetch_attempts, settings.fetch_seconds, max(1, settings.requests_per_host // processes)
        )
        limits = (settings.max_image_bytes, settings.max_image_pixels)
        return cls(root, *limits, access, patience, settings.decode_seconds)


def fetch(uri: str, limits: Limits) -> tuple[bytes, int]:
    """The bytes behind an image's address and the attempts that took. Relative ones start at `limits.root`.

    ImageError, stage fetch, when they can't be had: by the policy, the size, the time or the store.
    """
    where = limits.access.place(uri, limits.root)
    if isinstance(where, WebAddress):
        return _web(limits.access, limits.patience).read(where, limits.max_bytes)
    try:
        return _helpers().run(lambda: store.read(where, limits.max_bytes), limits.patience.seconds)
    except store.StoreError as error:
        raise ImageError("fetch", error.kind, error.message, error.attempts) from None
    except TimeoutError:
        message = f"{where}: not here after {limits.patience.seconds:g} s (fetch_seconds)"
        raise ImageError("fetch", "timeout", message) from None


@lru_cache(maxsize=4)
def _web(access: Access, patience: Patience) -> Web:
    return Web(access, patience)


def _checker(limits: Limits) -> DecoderPool:
    return _pool(limits.max_bytes, limits.max_pixels, limits.decode_seconds)


@lru_cache(maxsize=4)
def _pool(max_bytes: int, max_pixels: int, seconds: float) -> DecoderPool:
    return DecoderPool(_CHECKERS, max_bytes, max_pixels, seconds)


@lru_cache(maxsize=1)
def _helpers() -> HelperThreads:
    return HelperThreads()


def header_of(uri: str | None, data: bytes | None, limits: Limits) -> Header:
    """What an image's header says, of its bytes or of the first ones behind its address. ImageError as `fetch`.

    Headers that lie elsewhere (some TIFF, WebP) cost the whole file.
    """
    if data is None and uri:
        try:
            return _checker(limits).check(_read_head(uri, limits))
        except (ImageError, store.StoreError):
            data, _ = fetch(uri, limits)  # the whole file, or its own error
    if data is None:
        raise ImageError("fetch", "no_image", "the row has neither image bytes nor an address")
    return _checker(limits).check(data)


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
        header = _checker(limits).check(data)
        found |= {"image": data, "image_width": header.width, "image_height": header.height, "notes": header.notes}
    except ImageError as error:
        found["error"] = error.as_row() | {"attempts": max(error.attempts, attempts)}
    return found | {"fetch_seconds": time.perf_counter() - began}


def _read_head(uri: str, limits: Limits) -> bytes:
    where = limits.access.place(uri, limits.root)
    if isinstance(where, WebAddress):
        return _web(limits.access, limits.patience).read_head(where, HEAD_BYTES)
    return store.read_head(where, HEAD_BYTES)
