"""Whole runs over hostile catalogs, as a user starts them: killers are isolated, secrets stay where they belong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.rows import ANSWERS
from tests.jobs.test_catalog_qa import JOB
from tests.pipeline.killers import killer, plant
from tests.pipeline.pictures import encoded
from tests.pipeline.servers import ScriptedServer, respond

pytestmark = pytest.mark.slow


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where a Ray of our own keeps its sockets, whose paths must be short, and its logs."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def ran(cwd: Path, ray_folder: Path, environment: dict[str, str], **settings: Any) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    (cwd / "settings.json").write_text(json.dumps({**settings, "output": "out", "max_output_tokens": 4}))
    return subprocess.run(
        [sys.executable, str(JOB), "--config", "settings.json"],
        cwd=cwd, env=kept | {"RAY_TMPDIR": str(ray_folder)} | environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def different(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def test_three_images_that_kill_their_decoder_among_three_hundred(
    tiny_checkpoint: Path, tmp_path: Path, ray_folder: Path
) -> None:
    orders = {"image-050": "segfault", "image-150": "hang", "image-250": "eat"}
    (tmp_path / "in").mkdir()
    for number in range(300):
        name = f"image-{number:03}"
        data = killer(orders[name]) if name in orders else different(number)
        (tmp_path / "in" / f"{name}.jpg").write_bytes(data)
    (tmp_path / "planted").mkdir()
    done = ran(
        tmp_path, ray_folder, {"PYTHONPATH": str(plant(tmp_path / "planted"))},
        catalog="in", question=["Where?"], model=str(tiny_checkpoint), decode_seconds=5,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    table = ds.dataset(tmp_path / "out" / "answers").to_table()
    assert table.schema.equals(ANSWERS, check_metadata=True)
    rows = table.to_pylist()
    assert Counter(row["status"] for row in rows) == {"ok": 297, "error": 3}
    assert len({row["image_id"] for row in rows}) == 300
    explained = {row["image_id"]: row["error"] for row in rows if row["error"]}
    assert {name.removesuffix(".jpg"): (error["stage"], error["kind"]) for name, error in explained.items()} == {
        "image-050": ("decode", "crashed"),
        "image-150": ("decode", "timeout"),
        "image-250": ("decode", "out_of_memory"),
    }
    print({name: error["message"] for name, error in explained.items()}, done.stdout[-700:])


SECRETS = {
    "AWS secret key": "wJalrXUtnFEMIK7MDENGbPxRfiCYplanted",
    "AWS session token": "FwoGZXIvYXdzEPLANTEDsessiontoken",
    "signature": "0123456789abcdefPLANTEDsignature",
    "password": "hunter2PLANTEDpassword",
    "token": "tokPLANTEDtoken123456",
    "header token": "hdrPLANTEDheader123456",
}


def test_secrets_are_written_nowhere_but_in_the_users_own_addresses(
    tiny_checkpoint: Path, tmp_path: Path, ray_folder: Path
) -> None:
    def script(connection: Any, path: str, times: int) -> None:
        if path.startswith("/good"):
            respond(connection, different(1))
        elif path.startswith("/moved"):
            respond(connection, status="302 Found", Location=f"http://10.0.0.1/?sig={SECRETS['signature']}")
        else:
            respond(connection, status="403 Forbidden")

    with ScriptedServer(script) as server:
        signed = f"X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2Fx&X-Amz-Signature={SECRETS['signature']}"
        uris = [
            f"{server.url}/good?{signed}", f"{server.url}/denied?{signed}", f"{server.url}/moved?{signed}",
            f"https://me:{SECRETS['password']}@example.com/x", f"ftp://example.com/?token={SECRETS['token']}",
            f"/outside/?access_token={SECRETS['token']}", f"s3://other/x?{signed}",
            f"s3://nowhere-{SECRETS['AWS secret key']}/x",
            f"http://h h/?Authorization: Bearer {SECRETS['header token']}",
        ]  # fmt: skip
        columns = {"image_id": [str(n) for n in range(len(uris))], "uri": uris, "question": ["Q?"] * len(uris)}
        pq.write_table(pa.table(columns), tmp_path / "catalog.parquet")
        done = ran(
            tmp_path, ray_folder,
            {
                "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRETS["AWS secret key"],
                "AWS_SESSION_TOKEN": SECRETS["AWS session token"], "IMAGE_TOKEN": SECRETS["header token"],
            },
            catalog="catalog.parquet", model=str(tiny_checkpoint), allow_scheme=["http", "https"],
            allow_address=["127.0.0.1/32"], image_root=str(tmp_path), allow_root=[f"/x?secret={SECRETS['token']}"],
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    table = ds.dataset(tmp_path / "out" / "answers").to_table()
    assert sum(status == "ok" for status in table.column("status").to_pylist()) == 1
    assert sorted(table.column("image_uri").to_pylist()) == sorted(uris)  # the user's own, as it was
    written = {
        "stdout": done.stdout, "stderr": done.stderr, "run.json": (tmp_path / "out" / "run.json").read_text(),
        "table": json.dumps(table.drop_columns(["image_uri"]).to_pylist(), default=str),
    }  # fmt: skip
    logs = [path for path in ray_folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(logs) > 5
    written |= {str(path.relative_to(ray_folder)): path.read_text(errors="replace") for path in logs}
    found = [(where, what) for where, text in written.items() for what, secret in SECRETS.items() if secret in text]
    assert found == []
