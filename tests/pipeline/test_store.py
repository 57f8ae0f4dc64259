"""Bytes by name: read whole under a limit, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import pacing, store
from tests.pipeline.servers import ScriptedServer, respond


def test_a_write_that_fails_leaves_the_older_file_and_no_scrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "sub" / "x.bin"
    store.write(str(target), b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.write(str(target), b"new")
    assert target.read_bytes() == b"old" and os.listdir(target.parent) == ["x.bin"]


def test_readers_of_a_folder_never_list_an_unfinished_file(tmp_path: Path) -> None:
    (tmp_path / ".part.parquet.123.tmp").write_bytes(b"half")
    store.write(str(tmp_path / "part.parquet"), b"whole")
    assert list(store.list_under(str(tmp_path))) == ["part.parquet"]


def test_half_a_body_is_read_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(range(250)) * 20

    def script(connection: Any, path: str, times: int) -> None:
        if path.endswith("/always"):
            respond(connection, body[:2500], length=5000)
        elif path.endswith("/endless"):
            respond(connection, body, length=10**12)
        elif path.endswith("/busy"):  # as stores answer that don't name AWS's codes
            respond(connection, body) if times else respond(connection, status="429 Too Many Requests")
        else:
            respond(connection, body[: 2500 * (1 + times)], length=5000)

    monkeypatch.setattr(pacing, "_FIRST_PAUSE_SECONDS", 0.01)
    with ScriptedServer(script) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store.s3_client.cache_clear()
        try:
            assert store.read("s3://bucket/once", 10_000) == (body, 2)
            assert store.read("s3://bucket/busy", 10_000)[0] == body
            for key, kind, attempts in (("always", "unreachable", 4), ("endless", "too_many_bytes", 1)):
                with pytest.raises(store.StoreError) as caught:
                    store.read(f"s3://bucket/{key}", 10_000)
                assert (caught.value.kind, caught.value.attempts) == (kind, attempts)
        finally:
            monkeypatch.undo()
            store.s3_client.cache_clear()


def test_an_object_is_written_found_listed_read_and_removed(s3: Any, bucket: str) -> None:
    uri = f"s3://{bucket}/out/a#b.bin"
    assert not store.exists(uri)
    store.write(uri, b"data")
    assert store.exists(uri) and list(store.list_under(f"s3://{bucket}/out")) == ["a#b.bin"]
    assert store.read(uri, 4) == (b"data", 1)
    store.remove(uri)
    assert not store.exists(uri)
