"""One S3 server and one Ray for all tests of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from pipeline import store
from pipeline.runtime import ray_runtime
from pipeline.settings import Settings


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """boto3's client for a real S3 server on loopback; everything in this process and in Ray's workers meets it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store.s3_client.cache_clear()
        yield store.s3_client()
    store.s3_client.cache_clear()
    server.stop()


@pytest.fixture(scope="session")
def local_ray(s3: Any) -> Iterator[None]:
    """Ray on this machine, started as a run starts it; after the S3 server, whose address the workers inherit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_runtime(Settings()):
            yield


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"b{abs(hash(request.node.nodeid)):x}"
    s3.create_bucket(Bucket=name)
    return name
