"""Fetching and checking: every row comes out, with its bytes or with the reason why not."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.decoding import ImageError
from pipeline.images import Limits, fetch, fetch_and_check, header_of
from pipeline.rows import CHECKED_ROWS, IMAGE_ROWS
from pipeline.settings import Settings
from pipeline.web import Patience
from tests.pipeline.pictures import broken_pictures, encoded, picture, turned
from tests.pipeline.servers import ScriptedServer, respond


def checked(
    root: Path | str, *rows: dict[str, Any], max_bytes: int = 100_000, max_pixels: int = 10**6
) -> list[dict[str, Any]]:
    full = [{"image_id": str(n), "questions": ["Q?"], **row} for n, row in enumerate(rows)]
    table = fetch_and_check(pa.Table.from_pylist(full, schema=IMAGE_ROWS), Limits(str(root), max_bytes, max_pixels))
    assert table.schema.equals(CHECKED_ROWS) and table.num_rows == len(rows)
    return table.to_pylist()


def reason(row: dict[str, Any]) -> tuple[str, str]:
    return row["error"]["stage"], row["error"]["kind"]


def test_a_good_image_carries_its_encoded_bytes_hash_and_upright_size(tmp_path: Path) -> None:
    data = turned(picture(), 6, "JPEG")
    (row,) = checked(tmp_path, {"image": data})
    assert row["error"] is None and row["image"] == data
    assert row["image_sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["image_width"], row["image_height"]) == (60, 40)
    assert row["notes"] == ["turned by its EXIF orientation"]


def test_twelve_broken_images_become_twelve_reasons(tmp_path: Path) -> None:
    broken = {name: case for name, case in broken_pictures().items() if case[1] != "decode"}
    for name, (data, _, _) in broken.items():
        (tmp_path / name).write_bytes(data)
    rows = checked(tmp_path, *({"image_uri": name} for name in broken))
    assert [reason(row) for row in rows] == [(stage, kind) for _, stage, kind in broken.values()]
    assert all(row["image"] is None and row["error"]["message"] and row["error"]["attempts"] == 1 for row in rows)


def test_addresses_start_at_the_root_and_may_be_absolute(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b#1%20.png").write_bytes(encoded(picture()))
    rows = checked(tmp_path, {"image_uri": "sub/a b#1%20.png"}, {"image_uri": str(tmp_path / "sub" / "a b#1%20.png")})
    assert [row["error"] for row in rows] == [None, None]


def test_an_address_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.png").write_bytes(encoded(picture()))
    os.symlink(tmp_path / "outside.png", root / "link.png")
    rows = checked(
        root,
        {"image_uri": "../outside.png"},
        {"image_uri": str(tmp_path / "outside.png")},
        {"image_uri": "link.png"},
        {"image_uri": "/etc/hostname"},
    )
    assert [reason(row) for row in rows] == [("fetch", "outside_root")] * 4


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1/x.png", "://".join(("file", "/etc/hostname")), "HTTP://host/x", "ftp://host/x", "data://x"],
)
def test_an_unknown_scheme_is_refused_without_a_look(uri: str, tmp_path: Path) -> None:
    assert reason(checked(tmp_path, {"image_uri": uri})[0]) == ("fetch", "unsupported_scheme")


def test_what_can_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    rows = checked(
        tmp_path, {"image_uri": "none.png"}, {"image_uri": "folder"}, {"image_uri": "pipe"}, {}, {"image_uri": "a\0b"}
    )
    assert [reason(row)[1] for row in rows] == ["missing", "unreadable", "unreadable", "no_image", "unreadable"]


def test_bytes_in_the_catalog_are_held_to_the_same_limits(tmp_path: Path) -> None:
    data = encoded(picture())
    (heavy,) = checked(tmp_path, {"image": data}, max_bytes=len(data) - 1)
    (large,) = checked(tmp_path, {"image": data}, max_pixels=60 * 40 - 1)
    (fits,) = checked(tmp_path, {"image": data}, max_bytes=len(data), max_pixels=60 * 40)
    assert (reason(heavy), reason(large), fits["error"]) == (
        ("check", "too_many_bytes"),
        ("check", "too_many_pixels"),
        None,
    )


def test_objects_are_fetched_and_their_absence_explained(s3: Any, bucket: str, tmp_path: Path) -> None:
    data = encoded(picture())
    s3.put_object(Bucket=bucket, Key="in/a#b%20c?.png", Body=data)
    s3.put_object(Bucket=bucket, Key="in/heavy.png", Body=bytes(200_000))
    rows = checked(
        f"s3://{bucket}/in",
        {"image_uri": "a#b%20c?.png"},
        {"image_uri": f"s3://{bucket}/in/a#b%20c?.png"},
        {"image_uri": "none.png"},
        {"image_uri": "s3://no-such-bucket/x.png"},
        {"image_uri": "heavy.png"},
        {"image_uri": "s3:///x.png"},
    )
    assert [row["image"] for row in rows[:2]] == [data, data]
    assert [reason(row)[1] for row in rows[2:]] == ["missing", "refused_bucket", "too_many_bytes", "store_error"]


def test_a_local_address_in_a_catalog_on_s3_is_refused(s3: Any, bucket: str) -> None:
    (row,) = checked(f"s3://{bucket}/in", {"image_uri": "/etc/hostname"})
    assert reason(row) == ("fetch", "outside_root")


def test_the_policy_of_the_settings_is_the_policy_of_the_fetch(tmp_path: Path) -> None:
    data = encoded(picture())
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(data)
    with ScriptedServer(lambda connection, *_: respond(connection, data)) as server:
        settings = Settings(
            allow_scheme=["http"], allow_address=["127.0.0.1"], allow_root=[str(tmp_path / "more")],
            max_image_bytes=len(data), fetch_attempts=1, requests_per_host=9,
        )  # fmt: skip
        limits = Limits.of(settings, str(tmp_path / "in"), processes=4)
        assert (limits.patience.per_host, limits.patience.attempts) == (2, 1)
        opened = [
            {"image_id": str(n), "image_uri": uri, "questions": ["Q?"]}
            for n, uri in enumerate([f"{server.url}/a", str(tmp_path / "more" / "a.png"), "https://127.0.0.1/"])
        ]
        rows = fetch_and_check(pa.Table.from_pylist(opened, schema=IMAGE_ROWS), limits).to_pylist()
        assert header_of(f"{server.url}/a", None, limits).width == 60
    assert [row["image"] for row in rows[:2]] == [data, data]
    assert reason(rows[2]) == ("fetch", "unsupported_scheme")


def test_a_read_that_hangs_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr("pipeline.store.read", lambda *_: done.wait(60))  # as a dead network disk does
    limits = Limits(str(tmp_path), 10**6, 10**6, patience=Patience(seconds=0.1))
    with pytest.raises(ImageError, match=r"not here after 0.1 s \(fetch_seconds\)") as caught:
        fetch("a.png", limits)
    done.set()
    assert (caught.value.stage, caught.value.kind) == ("fetch", "timeout")
