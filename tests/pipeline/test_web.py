"""Fetching from servers that are slow, broken, overloaded or hostile. Real sockets on loopback, opened by name."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline import pacing, web
from pipeline.access import Access
from pipeline.decoding import ImageError
from pipeline.web import Patience, Web
from tests.pipeline.servers import (
    Script,
    ScriptedServer,
    TlsServer,
    certificate,
    recorded_connections,
    reset,
    respond,
)

BODY = bytes(range(256)) * 40
PATIENCE = Patience(3, 20, 4)
LOOPBACK = Access(schemes=("http", "https"), networks=("127.0.0.1/32",))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_FIRST_PAUSE_SECONDS", 0.01)


def fetched(script: Script, path: str = "/x", max_bytes: int = 100_000, patience: Patience = PATIENCE) -> Any:
    """(bytes, attempts), or the error's (kind, attempts); and the requests' heads."""
    with ScriptedServer(script) as server:
        try:
            data, attempts = Web(LOOPBACK, patience).read(LOOPBACK.web(server.url + path), max_bytes)
        except ImageError as error:
            assert error.stage == "fetch" and error.message
            return (error.kind, error.attempts), server.requests
        return (data, attempts), server.requests


def test_a_body_comes_as_it_was_sent_and_nothing_of_ours_goes_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.9:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.9:1")
    with recorded_connections() as connections:
        got, (head,) = fetched(lambda connection, *_: respond(connection, BODY, Set_Cookie="a=b"), "/a%20b?s=a+b%2F")
    assert got == (BODY, 1) and head.startswith("GET /a%20b?s=a+b%2F HTTP/1.1\r\n")
    assert {where[0] for where in connections} == {"127.0.0.1"}  # no proxy
    assert not {"authorization", "cookie", "referer", "proxy-authorization"} & {
        line.split(":")[0].lower() for line in head.splitlines()
    }


@pytest.mark.parametrize("status", ["429 Too Many", "500 Oops", "502 Bad", "503 Busy", "504 Late", "408 Timeout"])
def test_what_may_pass_is_tried_again(status: str) -> None:
    def script(connection: socket.socket, path: str, times: int) -> None:
        respond(connection, BODY) if times == 2 else respond(connection, status=status)

    assert fetched(script)[0] == (BODY, 3)


def test_resets_and_bodies_that_break_off_are_tried_again() -> None:
    def script(connection: socket.socket, path: str, times: int) -> None:
        if times < 2:  # the client makes a connection that breaks before any answer once more within one attempt
            reset(connection)
        elif times == 2:
            respond(connection, BODY[:100], length=len(BODY))
        else:
            respond(connection, BODY)

    assert fetched(script)[0] == (BODY, 3)


@pytest.mark.parametrize(
    ("status", "kind"),
    [("404 Not Found", "missing"), ("410 Gone", "missing"), ("403 Forbidden", "denied"), ("401 Who", "denied"),
     ("400 Bad", "http_error"), ("501 No", "http_error")],
)  # fmt: skip
def test_what_will_not_pass_is_asked_for_once(status: str, kind: str) -> None:
    got, requests = fetched(lambda connection, *_: respond(connection, status=status))
    assert got == (kind, 1) and len(requests) == 1


def test_attempts_that_all_fail_are_counted_into_the_error() -> None:
    got, requests = fetched(lambda connection, *_: respond(connection, status="503 Busy"))
    assert got == ("http_error", 3) and len(requests) == 3
    got, _ = fetched(lambda connection, *_: reset(connection))
    assert got == ("unreachable", 3)


def test_retry_after_beyond_the_time_allowed_ends_the_attempts() -> None:
    got, requests = fetched(lambda connection, *_: respond(connection, status="429 Too Many", Retry_After="60"))
    assert got == ("rate_limited", 1) and len(requests) == 1


def test_a_host_that_refused_one_image_is_asked_for_no_other_before_its_wait_is_over() -> None:
    def script(connection: socket.socket, path: str, times: int) -> None:
        respond(connection, BODY) if path == "/b" else respond(connection, status="429 Too Many", Retry_After="0.3")

    with ScriptedServer(script) as server:
        web = Web(LOOPBACK, Patience(1, 20, 4))
        with pytest.raises(ImageError, match="429"):
            web.read(LOOPBACK.web(server.url + "/a"), 100_000)
        refused = time.monotonic()
        assert web.read(LOOPBACK.web(server.url + "/b"), 100_000) == (BODY, 1)
    assert time.monotonic() - refused >= 0.25


def test_bytes_are_counted_as_they_come_whatever_the_headers_say() -> None:
    def endless(connection: socket.socket, path: str, times: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    assert fetched(endless)[0] == ("too_many_bytes", 1)
    honest = fetched(lambda connection, *_: respond(connection, b"", length=10**12))
    assert honest[0] == ("too_many_bytes", 1)
    assert fetched(lambda connection, *_: respond(connection, BODY), max_bytes=len(BODY))[0] == (BODY, 1)
    assert fetched(lambda connection, *_: respond(connection, BODY), max_bytes=len(BODY) - 1)[0][0] == "too_many_bytes"


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked_under_the_same_limit(coding: str, pack: Any) -> None:
    assert fetched(lambda connection, *_: respond(connection, pack(BODY), Content_Encoding=coding))[0] == (BODY, 1)
    bomb = pack(bytes(50_000_000))
    tracemalloc.start()
    got = fetched(lambda connection, *_: respond(connection, bomb, Content_Encoding=coding))[0]
    _, most_held = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got == ("too_many_bytes", 1) and most_held < 10_000_000
    cut = pack(BODY)[:-9]
    assert fetched(lambda connection, *_: respond(connection, cut, Content_Encoding=coding))[0] == ("truncated", 3)


def test_an_unknown_packing_is_refused() -> None:
    assert fetched(lambda connection, *_: respond(connection, BODY, Content_Encoding="gzip, br"))[0][0] == "http_error"


def test_a_server_that_stalls_is_tried_again_and_one_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 0.3)
    done = threading.Event()

    def stall(connection: socket.socket, path: str, times: int) -> None:
        done.wait(20) if times == 0 else respond(connection, BODY)

    def drip(connection: socket.socket, path: str, times: int) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Pad: " + bytes(1000):
            connection.sendall(bytes([byte]))
            if done.wait(0.05):
                return

    began = time.monotonic()
    assert fetched(stall)[0] == (BODY, 2)
    assert fetched(drip, patience=Patience(3, 1.0, 4))[0] == ("timeout", 1)
    done.set()
    assert time.monotonic() - began < 15  # neither stall nor drip was waited out


def test_redirects_are_followed_five_times_and_judged_each_time() -> None:
    def script(connection: socket.socket, path: str, times: int) -> None:
        left = int(path[1:])
        respond(connection, BODY) if left == 0 else respond(connection, status="302 F", Location=f"/{left - 1}")

    got, requests = fetched(script, "/5")
    assert got == (BODY, 1) and len(requests) == 6
    assert fetched(script, "/6")[0] == ("too_many_redirects", 1)
    elsewhere = fetched(lambda c, *_: respond(c, status="301 M", Location="http://127.0.0.2:9/"))
    assert elsewhere[0] == ("refused_address", 1)
    assert fetched(lambda c, *_: respond(c, status="301 M", Location="http://["))[0] == ("bad_address", 1)


@pytest.mark.parametrize(
    ("access", "location", "kind"),
    [
        (
            Access(("http",), hosts=("127.0.0.1",), networks=("127.0.0.0/8",)),
            "http://127.0.0.3:{port}/",
            "refused_host",
        ),
        (Access(("http",), networks=("127.0.0.0/8",)), "https://127.0.0.1:{port}/", "unsupported_scheme"),
        (Access(("http",), networks=("127.0.0.0/8",)), "http://me:pass@127.0.0.1:{port}/", "bad_address"),
    ],
)
def test_a_redirect_is_held_to_hosts_and_schemes_too(access: Access, location: str, kind: str) -> None:
    places: list[str] = []
    with ScriptedServer(lambda connection, *_: respond(connection, status="302 F", Location=places[0])) as server:
        places.append(location.format(port=server.port))
        with recorded_connections() as connections, pytest.raises(ImageError) as caught:
            Web(access, PATIENCE).read(access.web(server.url), 1000)
    assert caught.value.kind == kind and len(connections) == 1


def test_a_certificate_must_be_vouched_for_and_for_the_name_that_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, file = certificate(tmp_path, "images.test")
    names = {"images.test", "other.test"}
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1" if host in names else host, *rest, **more)
    )

    def outcome(server: ScriptedServer, host: str) -> Any:
        try:
            return Web(LOOPBACK, Patience(3, 20, 4)).read(LOOPBACK.web(f"https://{host}:{server.port}/"), 10**6)
        except ImageError as error:
            return error.kind, error.attempts

    with TlsServer(lambda connection, *_: respond(connection, BODY), context) as server:
        assert outcome(server, "images.test") == ("certificate", 1)
        trusting = ssl.create_default_context(cafile=str(file))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
        assert outcome(server, "images.test") == (BODY, 1)
        assert outcome(server, "other.test") == ("certificate", 1)
        assert outcome(server, "127.0.0.1") == ("certificate", 1)
        assert "Host: images.test:" in server.requests[0]


def test_a_host_gets_no_more_requests_at_a_time_than_allowed() -> None:
    lock, waiting, at_once = threading.Lock(), [0], []

    def script(connection: socket.socket, path: str, times: int) -> None:
        with lock:
            waiting[0] += 1
            at_once.append(waiting[0])
        time.sleep(0.05)
        with lock:  # before the response, which lets the client go on
            waiting[0] -= 1
        respond(connection, BODY)

    with ScriptedServer(script) as server:
        client = Web(LOOPBACK, Patience(3, 20, 3))
        readers = [
            threading.Thread(target=client.read, args=(LOOPBACK.web(f"{server.url}/{n}"), 10**6)) for n in range(12)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert len(server.requests) == 12 and max(at_once) <= 3


def test_the_head_of_a_file_costs_its_first_bytes_only() -> None:
    sent: list[int] = []

    def ignores_range(connection: socket.socket, path: str, times: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(bytes(1_000_000))
            sent.append(1)

    with ScriptedServer(ignores_range) as server:
        assert Web(LOOPBACK, Patience()).read_head(LOOPBACK.web(server.url), 1000) == bytes(1000)
    assert len(sent) < 100
    assert "Range: bytes=0-999" in server.requests[0]
