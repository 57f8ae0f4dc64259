"""Images over http and https: bounded in bytes and time, retried when that can help, and nothing but public hosts.

No credentials are ever sent: no cookies, no netrc, no user names in addresses, and no Referer on a redirect. Proxies
in the environment are not used, because a proxy resolves names where nobody checks the answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from yarl import URL

from .access import Access, WebAddress
from .addresses import Refused, Resolver, socket_for
from .decoding import ImageError
from .pacing import HostGate, pause_seconds, stated_wait_seconds

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
STALL_SECONDS = 15.0  # without a byte
_CHUNK_BYTES = 1 << 16
_LOOKUPS = 32  # of names at a time: some hang for as long as the system's resolver is patient
_HOSTS_REMEMBERED = 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_TOO_MANY = (429, 503)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {"User-Agent": "deixis", "Accept": "image/*", "Accept-Encoding": "identity"}


class Passing(Exception):
    """A failure that may be gone at the next attempt. kind: unreachable | rate_limited | http_error | truncated."""

    def __init__(self, kind: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True)
class Patience:
    """`attempts` for one image, `seconds` for all of them together, `per_host` requests at a time in one process."""

    attempts: int = 5
    seconds: float = 120.0
    per_host: int = 8


class Web:
    """An HTTP client on an event loop of its own, in a thread of its own; any thread may call it."""

    def __init__(self, access: Access, patience: Patience) -> None:
        self._access = access
        self._patience = patience
        self._gates: OrderedDict[str, HostGate] = OrderedDict()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="resolve"))
        thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        thread.start()
        self._session = asyncio.run_coroutine_threadsafe(_session(access), self._loop).result()
        weakref.finalize(self, _end, thread, self._loop, self._session)

    def read(self, address: WebAddress, max_bytes: int) -> tuple[bytes, int]:
        """The bytes behind an address and the attempts they took. ImageError, stage fetch, when they can't be had."""
        return asyncio.run_coroutine_threadsafe(self._read(address, max_bytes, cut=False), self._loop).result()

    def read_head(self, address: WebAddress, num_bytes: int) -> bytes:
        """The first bytes behind an address, all of them when there are fewer."""
        return asyncio.run_coroutine_threadsafe(self._read(address, num_bytes, cut=True), self._loop).result()[0]

    async def _read(self, address: WebAddress, max_bytes: int, cut: bool) -> tuple[bytes, int]:
        clock = _Clock(self._patience.seconds)
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return await self._follow(address, max_bytes, cut, clock), attempt
            except ImageError as error:
                raise ImageError(error.stage, error.kind, error.message, attempt) from None
            except TimeoutError:
                message = f"{address.host}: not here after {self._patience.seconds:g} s (fetch_seconds)"
                raise ImageError("fetch", "timeout", message, attempt) from None
            except Passing as failed:
                pause = max(pause_seconds(attempt), failed.retry_after)
                if attempt == self._patience.attempts or pause >= clock.left():
                    raise ImageError("fetch", failed.kind, str(failed), attempt) from None
                await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _follow(self, address: WebAddress, max_bytes: int, cut: bool, clock: _Clock) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            gate = self._gate(address)
            with clock.stopped():  # other images of the host being fetched is no fault of this one
                entered = await gate.__aenter__()
            try:
                async with asyncio.timeout(clock.left()):
                    data = await self._get(address, max_bytes, cut, gate, entered)
            finally:
                await gate.__aexit__(None, None, None)
            if isinstance(data, bytes):
                return data
            address = self._access.redirected(address, data)
        raise ImageError("fetch", "too_many_redirects", f"more than {MAX_REDIRECTS}, the last one to {address.host}")

    async def _get(self, address: WebAddress, max_bytes: int, cut: bool, gate: HostGate, entered: float) -> bytes | str:
        """The body, or where a redirect leads. Passing or ImageError when there is neither."""
        headers = {"Range": f"bytes=0-{max_bytes - 1}"} if cut else {}
        url = URL(address.url, encoded=True)  # as it stands: quoting it again would break signatures
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return response.headers["Location"]
                _require_success(address, response, gate, entered)
                data = await _body(response, max_bytes, cut)
                gate.succeeded()
                return data
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError, ValueError) as error:
            raise _explained(address, error) from None

    def _gate(self, address: WebAddress) -> HostGate:
        gate = self._gates.pop(address.host, None) or HostGate(self._patience.per_host)
        self._gates[address.host] = gate
        if len(self._gates) > _HOSTS_REMEMBERED:
            self._gates.popitem(last=False)
        return gate


async def _session(access: Access) -> aiohttp.ClientSession:
    opened = access.opened
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=Resolver(opened), socket_factory=socket_for(opened)),
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
    )


def _end(thread: threading.Thread, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    async def close() -> None:
        await session.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if threading.current_thread() is not thread:  # which may be the one that lets go of the client last
        thread.join(timeout=10)


class _Clock:
    """What is left of an image's seconds. Time spent `stopped` doesn't count."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self._stopped_at = 0.0

    def left(self) -> float:
        return max(self._end - self._loop.time(), 0.0)

    def stopped(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self._stopped_at = self._loop.time()

    def __exit__(self, *_: object) -> None:
        self._end += self._loop.time() - self._stopped_at


def _require_success(address: WebAddress, response: aiohttp.ClientResponse, gate: HostGate, entered: float) -> None:
    status, said = response.status, f"{address.host} answered {response.status}"
    if status in (200, 206):
        return
    if status in _PASSING:
        wait = stated_wait_seconds(response.headers, datetime.now(UTC)) or 0.0
        if status in _TOO_MANY:
            gate.too_many(entered, wait)
        raise Passing("rate_limited" if status == 429 else "http_error", said, wait)
    kinds = {404: "missing", 410: "missing", 401: "denied", 403: "denied", 451: "denied"}
    raise ImageError("fetch", kinds.get(status, "http_error"), said)


async def _body(response: aiohttp.ClientResponse, max_bytes: int, cut: bool) -> bytes:
    """The body, unpacked. No more of it is ever held than is allowed, packed or unpacked, whatever the headers say."""
    too_many = ImageError("fetch", "too_many_bytes", f"more than the {max_bytes:,} bytes of max_image_bytes")
    if (response.content_length or 0) > max_bytes and not cut:
        raise too_many
    parts: list[bytes] = []
    size = 0
    async for part in _unpacked(response):
        parts.append(part)
        size += len(part)
        if size > max_bytes and not cut:
            raise too_many
        if size >= max_bytes and cut:
            response.close()
            break
    return b"".join(parts)[: max_bytes if cut else None]


async def _unpacked(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    packed = response.content.iter_chunked(_CHUNK_BYTES)
    if coding == "identity":
        async for chunk in packed:
            yield chunk
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ImageError(
            "fetch", "http_error", f"the body is encoded as {coding[:40]!r}; images are asked for as they are"
        )
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, as its head says
    async for chunk in packed:
        while chunk and not unpacker.eof:
            yield unpacker.decompress(chunk, _CHUNK_BYTES)
            chunk = unpacker.unconsumed_tail
    if not unpacker.eof:
        raise Passing("truncated", "the body broke off")


def _explained(address: WebAddress, error: Exception) -> ImageError | Passing:
    """What a failure below HTTP means: for ever, or to be tried again."""
    said = f"{address.host}: {type(error).__name__}: {error}"
    cause = getattr(error, "os_error", error)
    if isinstance(cause, Refused):
        return ImageError("fetch", "refused_address", str(cause))
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ImageError("fetch", "certificate", f"{address.host}: {error.certificate_error}")
    if isinstance(cause, socket.gaierror) and cause.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
        return ImageError("fetch", "unknown_host", f"no host is called {address.host}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Passing("truncated", f"{address.host}: the body broke off")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Passing("unreachable", said)
    return ImageError("fetch", "http_error", said)
