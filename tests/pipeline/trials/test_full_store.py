"""The disk is full, or the bucket refuses: a clear error after a bounded time, and the same command goes on."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from moto.server import ThreadedMotoServer

from tests.pipeline.noop import Noop
from tests.pipeline.tables import answers, ran_noop, write_catalog
from tests.pipeline.trials.drivers import start

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a small file system is not permitted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_clearly_and_room_lets_it_go_on(
    local_ray: None, small_disk: Path, tmp_path: Path
) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 200, ["Where is it?", "How many?"])
    settings: dict[str, Any] = {"rows_per_file": 20, "images_in_flight": 16, "write_seconds": 2}
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"No space left on device.*start the same command again"):
        ran_noop(catalog, small_disk / "out", **settings)
    failed_after, kept = time.monotonic() - began, answers(small_disk / "out")
    assert 0 < len(kept) < 400 and not (small_disk / "out" / "run.json").exists()
    assert list((small_disk / "out").rglob("*.tmp")) == []
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    record, _ = ran_noop(catalog, small_disk / "out", **settings)
    rows = answers(small_disk / "out")
    assert len(rows) == record["counts"]["ok"] == 400 and record["session"]["answers"] == 400 - len(kept)
    print(f"\nfull after {len(kept)} rows, said so {failed_after:.0f} s after the start; resumed to 400")


class Bucket:
    """A real S3 server behind a door on loopback that can be shut: then every request is told to slow down."""

    BODY = b"<Error><Code>SlowDown</Code><Message>not now</Message></Error>"
    SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

    def __init__(self) -> None:
        self.shut = threading.Event()
        self.refused = 0
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        door = self

        class Visit(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                door.serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Visit)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self, visitor: socket.socket) -> None:
        with socket.create_connection(self._moto.get_host_and_port()) as inside:
            back = threading.Thread(target=_pump, args=(inside, visitor), daemon=True)
            back.start()
            while data := visitor.recv(1 << 16):
                if self.shut.is_set():
                    self.refused += 1
                    visitor.sendall(self.SLOW_DOWN)
                    break
                inside.sendall(data)

    def close(self) -> None:
        self._server.shutdown()
        self._moto.stop()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass


@pytest.fixture
def bucket_behind_a_door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    door = Bucket()
    for name, value in {
        "AWS_ENDPOINT_URL": door.url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield door
    door.close()


@pytest.mark.parametrize(("write_seconds", "goes_through"), [(300, True), (1, False)])
def test_a_bucket_that_refuses_for_a_while_costs_time_or_a_second_start(
    write_seconds: int, goes_through: bool, bucket_behind_a_door: Bucket, tmp_path: Path
) -> None:
    import boto3

    client = boto3.client("s3")
    bucket = f"out{write_seconds}"
    client.create_bucket(Bucket=bucket)
    catalog = write_catalog(tmp_path / "c.parquet", 200, ["Where is it?", "How many?"])
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    settings: dict[str, Any] = {
        "catalog": str(catalog), "output": f"s3://{bucket}/run", "rows_per_file": 20, "images_in_flight": 8,
        "write_seconds": write_seconds, "commit_seconds": 0.5, "env": {name: os.environ[name] for name in names},
    }  # fmt: skip
    driver = start(tmp_path / "r.json", Noop(seconds=0.2), **settings)
    deadline = time.monotonic() + 240
    while not _parts(client, bucket) and time.monotonic() < deadline:
        time.sleep(0.1)
    bucket_behind_a_door.shut.set()
    if goes_through:
        time.sleep(10)
        bucket_behind_a_door.shut.clear()
        record = driver.finished()
    else:
        driver.process.join(300)
        told = driver.result.read_text()
        assert f"ValueError: can't write s3://{bucket}/run" in told and "start the same command again" in told, told
        bucket_behind_a_door.shut.clear()
        kept = len(_parts(client, bucket))
        assert kept
        record = start(tmp_path / "r.json", Noop(seconds=0.2), **settings).finished()
    assert record["counts"]["ok"] == 400 and bucket_behind_a_door.refused
    folder = tmp_path / "copy" / "answers"
    folder.mkdir(parents=True)
    for name in _parts(client, bucket):
        client.download_file(bucket, name, str(folder / Path(name).name))
    assert len(answers(tmp_path / "copy")) == ds.dataset(folder).count_rows() == 400
    print(f"\n{bucket_behind_a_door.refused} requests refused; 400 rows once; sessions {record['sessions']}")


def _parts(client: Any, bucket: str) -> list[str]:
    found = client.list_objects_v2(Bucket=bucket, Prefix="run/answers/").get("Contents", [])
    return [item["Key"] for item in found]
