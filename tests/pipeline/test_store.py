"""Bytes by name: read whole under a limit, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import store


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


def test_an_object_is_written_found_listed_read_and_removed(s3: Any, bucket: str) -> None:
    uri = f"s3://{bucket}/out/a#b.bin"
    assert not store.exists(uri)
    store.write(uri, b"data")
    assert store.exists(uri) and list(store.list_under(f"s3://{bucket}/out")) == ["a#b.bin"]
    assert store.read(uri, 4) == (b"data", 1)
    store.remove(uri)
    assert not store.exists(uri)
