"""Images on an S3 whose network fails in a fifth of all requests: nothing is lost, and nothing is given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pytest
from PIL import Image

from pipeline import pacing, store
from pipeline.images import Limits, fetch_and_check
from pipeline.rows import ANSWERS, IMAGE_ROWS
from tests.jobs.test_catalog_qa import JOB
from tests.pipeline.fault_proxy import SHARES, FaultProxy
from tests.pipeline.pictures import encoded


@pytest.fixture
def proxy(s3: Any) -> Iterator[FaultProxy]:
    host, port = s3.meta.endpoint_url.removeprefix("http://").split(":")
    with FaultProxy((host, int(port))) as proxy:
        yield proxy


def put_images(s3: Any, bucket: str, count: int) -> dict[str, bytes]:
    """So many different pictures below in/, and their bytes."""
    rng = np.random.default_rng(0)
    images = {}
    for n in range(count):
        pixels = rng.integers(0, 256, (40 + n % 7, 50 + n % 5, 3), dtype=np.uint8)
        images[f"{n:04}.png"] = encoded(Image.fromarray(pixels))
        s3.put_object(Bucket=bucket, Key=f"in/{n:04}.png", Body=images[f"{n:04}.png"])
    return images


def test_a_store_that_fails_one_time_in_five_gives_all_its_images(
    s3: Any, bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = put_images(s3, bucket, 100)
    monkeypatch.setattr(pacing, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(store, "STALL_SECONDS", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    store.s3_client.cache_clear()
    try:
        rows = [{"image_id": name, "image_uri": name, "questions": ["Q?"]} for name in images]
        table = fetch_and_check(
            pa.Table.from_pylist(rows, schema=IMAGE_ROWS), Limits(f"s3://{bucket}/in", 10**6, 10**6)
        )
    finally:
        monkeypatch.undo()
        store.s3_client.cache_clear()
    assert [row["error"] for row in table.to_pylist()] == [None] * 100
    assert {row["image_id"]: row["image"] for row in table.to_pylist()} == images  # whole, not only with a good header
    assert set(proxy.faults) == {*SHARES, "none"}, proxy.faults  # each kind of fault was met


@pytest.mark.slow
def test_a_whole_run_over_a_failing_network_answers_every_image(
    s3: Any, bucket: str, proxy: FaultProxy, tiny_checkpoint: Path
) -> None:
    images = put_images(s3, bucket, 320)
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS",)} | {"AWS_ENDPOINT_URL": proxy.url}
    settings = {
        "catalog": f"s3://{bucket}/in", "output": f"s3://{bucket}/out", "model": str(tiny_checkpoint),
        "question": "Where?", "max-output-tokens": "4", "rows-per-file": "32",
    }  # fmt: skip
    argv = [text for name, value in settings.items() for text in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, str(JOB), *argv], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(store.read(f"s3://{bucket}/out/run.json", 10**7)[0])
    print(
        {
            "faults": dict(proxy.faults),
            "counts": record["counts"],
            "errors": record["errors"],
            "seconds": record["seconds"],
        }
    )
    host = s3.meta.endpoint_url.removeprefix("http://")
    files = pafs.S3FileSystem(access_key="testing", secret_key="testing", endpoint_override=host, scheme="http")
    answers = ds.dataset(f"{bucket}/out/answers", filesystem=files, format="parquet").to_table()
    assert [row["error"] for row in answers.to_pylist() if row["error"]] == []
    assert (record["counts"]["answers"], record["counts"]["ok"], record["counts"]["error"]) == (320, 320, 0)
    assert answers.schema.equals(ANSWERS, check_metadata=True)
    assert sorted(answers.column("image_id").to_pylist()) == list(images)
    assert sum(proxy.faults[fault] for fault in SHARES) > 60, proxy.faults
