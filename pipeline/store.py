"""Bytes by name: local paths and s3:// URIs, read under a limit, listed in order, written whole or not at all."""

from __future__ import annotations

import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config

from .pacing import pause_seconds
from .redaction import redacted

S3 = "s3://"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")
STALL_SECONDS = 15.0  # without a byte, then the request is made again
_CHUNK_BYTES = 1 << 20
# boto3 retries requests: no connection, no answer, throttling, 500 to 504; each in up to five requests. It does not
# retry bodies that break off or stall half way, nor a 429 or 503 of stores that don't name AWS's codes. That is ours.
_ATTEMPTS = 4
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class StoreError(Exception):
    """Why bytes could not be had. kind: missing | denied | unreadable | unreachable | too_many_bytes | store_error."""

    def __init__(self, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(redacted(message))
        self.kind = kind
        self.message = redacted(message)
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.message, self.attempts)


class _BrokenOff(Exception):
    """A body did not come to its end."""


def is_s3(uri: str) -> bool:
    return uri.startswith(S3)


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key. The key is taken literally: `#`, `?` and `%` are ordinary characters in it."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if not bucket:
        raise ValueError(f"an S3 address needs a bucket: s3://BUCKET/KEY, got {uri!r}")
    return bucket, key


@lru_cache(maxsize=1)
def s3_client() -> Any:
    """boto3's client with the usual AWS settings: environment, profile, instance role, AWS_ENDPOINT_URL."""
    # Not "adaptive": it slows the whole client down to a few requests a second when one in ten is told to.
    retries = {"mode": "standard", "max_attempts": 5}
    return boto3.client(
        "s3", config=Config(retries=retries, connect_timeout=10, read_timeout=STALL_SECONDS, max_pool_connections=32)
    )


def read(uri: str, max_bytes: int) -> tuple[bytes, int]:
    """The bytes of a file or object and the attempts they took. StoreError when they can't be had or are too many."""
    return _read_s3(uri, max_bytes) if is_s3(uri) else (_read_local(uri, max_bytes), 1)


def read_head(uri: str, num_bytes: int) -> bytes:
    """The first bytes of a file or object, all of it when it is shorter. StoreError when they can't be had."""
    try:
        if is_s3(uri):
            bucket, key = split_s3(uri)
            return (
                s3_client().get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{num_bytes - 1}")["Body"].read(num_bytes)
            )
        if not stat.S_ISREG(os.stat(uri).st_mode):  # as in `_read_local`
            raise StoreError("unreadable", f"not a regular file: {uri}")
        with open(uri, "rb") as file:
            return file.read(num_bytes)
    except (OSError, ValueError, exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise StoreError("unreadable", f"can't read {uri!r}: {error}") from None


def list_under(uri: str) -> Iterator[str]:
    """Every file below a folder or prefix, as its path relative to it, without hidden names (`.x`, `_x`)."""
    names = _list_s3(uri) if is_s3(uri) else _list_local(Path(uri))
    for name in names:
        if not any(part.startswith((".", "_")) for part in name.split("/")):
            yield name


def exists(uri: str) -> bool:
    if not is_s3(uri):
        return Path(uri).exists()
    bucket, key = split_s3(uri)
    try:
        s3_client().head_object(Bucket=bucket, Key=key)
    except exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchBucket"):
            return False
        raise ValueError(f"can't look at {uri}: {error}") from None
    return True


def write(uri: str, data: bytes) -> None:
    """Writes a file or object that readers see whole or not at all; an older one of that name is replaced."""
    if is_s3(uri):
        bucket, key = split_s3(uri)
        s3_client().put_object(Bucket=bucket, Key=key, Body=data)
        return
    path = Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove(uri: str) -> None:
    if is_s3(uri):
        bucket, key = split_s3(uri)
        s3_client().delete_object(Bucket=bucket, Key=key)
    else:
        Path(uri).unlink(missing_ok=True)


def join(base: str, name: str) -> str:
    """`name` below `base`; an absolute name or one with a scheme stands for itself."""
    return name if "://" in name or name.startswith("/") else f"{base.rstrip('/')}/{name}"


def scheme(uri: str) -> str:
    """`s3`, `https`, …; empty for a path. A Windows drive is no scheme, but neither is it readable here."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def _read_local(path: str, max_bytes: int) -> bytes:
    try:
        # A pipe or a device would block or never end, so they are turned away before they are opened.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError("unreadable", f"not a regular file: {path}")
        if status.st_size > max_bytes:
            raise _too_many(status.st_size, max_bytes)
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError("missing", f"no such file: {path}") from None
    except PermissionError:
        raise StoreError("denied", f"not allowed to read {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise StoreError("unreadable", f"can't read {path!r}: {error}") from None
    if len(data) > max_bytes:
        raise _too_many(len(data), max_bytes)
    return data


def _too_many(size: int, max_bytes: int) -> StoreError:
    return StoreError("too_many_bytes", f"{size:,} bytes; max_image_bytes allows {max_bytes:,}")


def _read_s3(uri: str, max_bytes: int) -> tuple[bytes, int]:
    requests = 0
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            bucket, key = split_s3(uri)
            response = s3_client().get_object(Bucket=bucket, Key=key)
            requests += _requests(response)
            return _body(response["Body"], response["ContentLength"], max_bytes), requests
        except exceptions.ClientError as error:
            requests += _requests(error.response)
            failed = StoreError(_s3_kind(error), f"{uri}: {error}", requests)
            passing = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _PASSING
        except (_BrokenOff, exceptions.HTTPClientError) as error:
            requests = max(requests, attempt)
            failed, passing = StoreError("unreachable", f"{uri}: {error}", requests), True
        except (exceptions.BotoCoreError, ValueError) as error:
            failed, passing = StoreError("store_error", f"{uri}: {error}", max(requests, 1)), False
        except StoreError as error:
            failed, passing = StoreError(error.kind, error.message, requests), False
        if not passing or attempt == _ATTEMPTS:
            raise failed
        time.sleep(pause_seconds(attempt))
    raise AssertionError("the last attempt returns or raises")


def _requests(response: Any) -> int:
    """How many requests boto3 made for one answer."""
    return 1 + response.get("ResponseMetadata", {}).get("RetryAttempts", 0)


def _body(body: Any, size: int, max_bytes: int) -> bytes:
    """The bytes as they come, never more than are allowed, whatever size was announced."""
    parts: list[bytes] = []
    try:
        while size <= max_bytes and (part := body.read(_CHUNK_BYTES)):
            parts.append(part)
            size = max(size, sum(map(len, parts)))
    except Exception as error:  # bodies let through the errors of every layer below
        raise _BrokenOff(f"the body broke off: {type(error).__name__}: {error}") from None
    finally:
        body.close()  # not by `with`, which hands out the raw stream: that takes half a body for a whole one
    if size > max_bytes:
        raise _too_many(size, max_bytes)
    return b"".join(parts)


def _s3_kind(error: Any) -> str:
    code = error.response["Error"]["Code"]
    if code in ("NoSuchKey", "NoSuchBucket", "404"):
        return "missing"
    return "denied" if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch") else "store_error"


def _list_local(folder: Path) -> Iterator[str]:
    for current, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.relpath(os.path.join(current, name), folder).replace(os.sep, "/")
            yield os.fsencode(path).decode("utf-8", "backslashreplace")


def _list_s3(uri: str) -> Iterator[str]:
    bucket, prefix = split_s3(uri)
    prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    try:
        for page in pages:
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(prefix)
                if name and not name.endswith("/"):  # consoles make empty objects that stand for folders
                    yield name
    except (exceptions.ClientError, exceptions.BotoCoreError) as error:
        raise ValueError(f"can't list {uri}: {error}") from None
