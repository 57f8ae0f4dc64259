"""What a catalog's addresses may reach: sixty that are forbidden, refused without a single connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.access import Access, parse_web
from pipeline.decoding import ImageError
from pipeline.images import Limits, fetch_and_check
from pipeline.rows import IMAGE_ROWS
from pipeline.web import Patience
from tests.pipeline.pictures import encoded, picture
from tests.pipeline.servers import ScriptedServer, recorded_connections, respond

REFUSED = {
    "unsupported_scheme", "refused_host", "refused_address", "refused_bucket", "outside_root", "bad_address",
}  # fmt: skip
METADATA_HOSTS = [
    "169.254.169.254", "169.254.169.254:80", "169.254.169.254.", "2852039166", "0xA9FEA9FE", "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376", "025177524776", "169.254.43518", "169.16689662", "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]", "[::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]",
    "user@169.254.169.254", "example.com@169.254.169.254", "169.254.169.254#@example.com",
    "example.com\\@169.254.169.254", "169.254.169.254\\.example.com", "%31%36%39.254.169.254",
    "\uff11\uff16\uff19.254.169.254", "\u2460\u2465\u2468.\u2461\u2464\u2463.\u2460\u2465\u2468.\u2461\u2464\u2463",
    "169\u3002254\u3002169\u3002254", "169.254.169.254\t", "metadata.google.internal", "100.100.100.200",
    "168.63.129.16",
]  # fmt: skip
INSIDE_HOSTS = [
    "127.0.0.2", "inside.test", "0.0.0.0", "10.0.0.1", "172.31.0.1", "192.168.1.1", "224.0.0.1", "255.255.255.255",
    "[::1]", "[::]", "[fc00::1]", "[fe80::1%25eth0]", "[ff02::1]", "both.test", "changes.test",
]  # fmt: skip
OTHER_PLACES = [
    "file" "://" "/etc/hostname", "FILE" "://" "/etc/hostname", "ftp://example.com/x", "gopher://127.0.0.1/x",
    "/etc/hostname", "../outside.png", "sub/../../outside.png", "link.png", "folder/outside.png", "s3://other/x.png",
    "//169.254.169.254/latest",
]  # fmt: skip
REDIRECTS = [
    "http://169.254.169.254/latest/meta-data/", "//2852039166/", "http://[::ffff:a9fe:a9fe]/",
    "http://metadata.google.internal/", "s3://other/x", "file" "://" "/etc/hostname",
]  # fmt: skip
FORBIDDEN = [*(f"http://{host}/latest/meta-data/" for host in METADATA_HOSTS), *(f"http://{h}/" for h in INSIDE_HOSTS)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names as the tests need them. `changes.test` is a public host at first, and inside from then on."""
    asked: dict[str, int] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        asked[host] = asked.get(host, 0) + 1
        answers = {
            "metadata.google.internal": ["169.254.169.254"],
            "inside.test": ["127.0.0.3"],
            "both.test": ["93.184.216.34", "10.0.0.7"],
            "changes.test": ["127.0.0.1" if asked[host] == 1 else "127.0.0.2"],
        }.get(host)
        if answers is None:
            return real(host, port, *rest, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside.png").write_bytes(encoded(picture()))
    os.symlink(tmp_path / "outside.png", root / "link.png")
    os.symlink(tmp_path, root / "folder")
    return root


def outcomes(root: Path | str, uris: list[str], access: Access) -> list[str | None]:
    limits = Limits(str(root), 10**6, 10**6, access, Patience(2, 20, 4))
    rows = [{"image_id": str(n), "image_uri": uri, "questions": ["Q?"]} for n, uri in enumerate(uris)]
    found = fetch_and_check(pa.Table.from_pylist(rows, schema=IMAGE_ROWS), limits).to_pylist()
    return [row["error"] and row["error"]["kind"] for row in found]


def test_sixty_forbidden_addresses_are_refused_without_a_connection(root: Path, names: None) -> None:
    def redirect(connection: socket.socket, path: str, times: int) -> None:
        respond(connection, status="302 Found", Location=REDIRECTS[int(path[1:])])

    with ScriptedServer(redirect) as server:
        access = Access(schemes=("https", "http"), networks=("127.0.0.1/32",))
        redirects = [f"{server.url}/{n}" for n in range(len(REDIRECTS))]
        # `changes.test` has been asked for once, and was allowed then.
        assert outcomes(root, [f"http://changes.test:{server.port}/0"], access) == ["refused_address"]
        uris = [*FORBIDDEN, *OTHER_PLACES, *redirects]
        with recorded_connections() as connections:
            kinds = outcomes(root, uris, access)
    assert len(uris) >= 60
    assert {uri: kind for uri, kind in zip(uris, kinds, strict=True) if kind not in REFUSED} == {}
    assert [where[:2] for where in connections if where[:2] != ("127.0.0.1", server.port)] == []
    assert len(connections) == len(redirects)


def test_what_is_judged_is_what_is_connected_to_however_a_name_changes(names: None, root: Path) -> None:
    data = encoded(picture())
    with ScriptedServer(lambda connection, *_: respond(connection, data)) as server:
        access = Access(schemes=("http",), networks=("127.0.0.1/32",))
        with recorded_connections() as connections:
            first = outcomes(root, [f"http://changes.test:{server.port}/"], access)
        assert (first, [where[0] for where in connections]) == ([None], ["127.0.0.1"])


def test_the_default_is_the_catalogs_own_folder_and_https_to_public_hosts(root: Path) -> None:
    (root / "a.png").write_bytes(encoded(picture()))
    with recorded_connections() as connections:
        kinds = outcomes(root, ["a.png", "http://example.com/a.png", "https://127.0.0.1/", "s3://b/a.png"], Access())
    assert kinds == [None, "unsupported_scheme", "refused_address", "refused_bucket"] and connections == []


def test_named_hosts_shut_out_all_others() -> None:
    access = Access(hosts=("images.example.org", ".example.net"))
    for host in ("images.example.org", "IMAGES.example.org.", "example.net", "a.b.example.net"):
        access.web(f"https://{host}/x")
    for host in ("example.org", "x.images.example.org", "badexample.net", "example.net.evil.org", "93.184.216.34"):
        with pytest.raises(ImageError) as caught:
            access.web(f"https://{host}/x")
        assert caught.value.kind == "refused_host"


def test_buckets_and_folders_are_opened_by_name(root: Path, tmp_path: Path) -> None:
    access = Access(buckets=("other",), roots=(str(tmp_path / "more"),))
    (tmp_path / "more").mkdir()
    assert access.place("s3://other/x?y#z", str(root)) == "s3://other/x?y#z"
    assert access.place("s3://own/x", "s3://own/images") == "s3://own/x"
    assert access.place(str(tmp_path / "more" / "x.png"), str(root)) == str(tmp_path / "more" / "x.png")
    assert access.place(str(tmp_path / "more" / "x.png"), "s3://own/images") == str(tmp_path / "more" / "x.png")
    for uri, at in (("s3://others/x", str(root)), ("s3://other.own/x", "s3://own/images"), ("/etc/x", "s3://own/x")):
        with pytest.raises(ImageError):
            access.place(uri, at)


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("https://Example.COM", "https://example.com:443/"),
        ("https://example.com./a b/ä?x=%2F&sig=a+b/c==#frag", "https://example.com:443/a%20b/%C3%A4?x=%2F&sig=a+b/c=="),
        ("HTTP://example.com:8080?q", "http://example.com:8080/?q"),
        ("https://[2606:2800:0220::1]/x", "https://[2606:2800:220::1]:443/x"),
    ],
)
def test_an_address_has_one_spelling_and_keeps_what_was_signed(uri: str, url: str) -> None:
    assert parse_web(uri).url == url


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for make in (Access().place, lambda uri, root: Access(schemes=("http",)).place(f"http://{uri}", root)):
        check_place: Callable[[str, str], Any] = make
        try:
            check_place(text, "nowhere")
        except ImageError as error:
            assert error.stage == "fetch"


@given(st.integers(0, 2**32 - 1))
def test_a_host_of_numbers_is_four_decimal_ones_or_refused(number: int) -> None:
    quad = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
    assert parse_web(f"http://{quad}/").host == quad
    for spelling in (str(number), hex(number), f"0{number:o}", f"{number >> 24}.{number & 0xFFFFFF}"):
        with pytest.raises(ImageError, match="not how an address of numbers is written"):
            parse_web(f"http://{spelling}/")
