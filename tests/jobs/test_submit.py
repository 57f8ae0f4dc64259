"""The main job, submitted to a running Ray cluster as a user would, over the job port.

The cluster is one head of its own: own ports, own temporary folder, own process group. It is stopped by ending exactly
those processes, never with `ray stop`, which ends every Ray process on the machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ray._private.runtime_env.packaging import create_package

from catalogs.make_demo import DEMO
from tests.pipeline.trials.processes import alive, below

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent  # not resolved: the environment's own folder, where `ray` is

START_SECONDS = 120
JOB_SECONDS = 600
STOP_SECONDS = 8  # `ray start --block` outlives the end of its own processes; nothing is lost by killing it
MAX_UPLOAD_BYTES = 100_000_000
IMAGES = 4


def free_ports(count: int) -> list[int]:
    """Ports that are free now; all are held until the last is found, so they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment(token: Path) -> dict[str, str]:
    """For the head and for whoever talks to it: they share a token, as Ray 2.60 wants it where a token exists."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != "PYTHONPATH"}
    return kept | {
        # The head runs the entrypoint's `python` from its own PATH: this interpreter's folder goes first.
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def stop(head: subprocess.Popen[bytes]) -> None:
    """End the head, then whatever of its own processes outlived it."""
    family = below(head.pid)
    os.killpg(head.pid, signal.SIGTERM)
    try:
        head.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(STOP_SECONDS)
    for pid in filter(alive, family):
        os.kill(pid, signal.SIGKILL)


def wait_until_ready(head: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until the job port answers; that it asks who we are is an answer."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if head.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            assert error.code == 401, error
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the head did not come up:\n{log.read_text()}")


@dataclass(frozen=True)
class Cluster:
    """Where a running cluster takes jobs, and the environment to talk to it."""

    address: str
    env: dict[str, str]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "ray"), "job", "submit", "--address", self.address, "--working-dir", ".", "--"]
        return subprocess.run(
            [*command, *entrypoint],
            cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=JOB_SECONDS, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A fresh one-node cluster."""
    # Not pytest's folder: the paths of Ray's sockets must stay under 108 characters.
    folder = Path(tempfile.mkdtemp(prefix="rs-"))
    log, token = folder / "head.log", folder / "token"
    token.write_text(secrets.token_hex(32))
    gcs, dashboard, agent, client = free_ports(4)
    command = [
        str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
        f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        "--num-cpus=2", "--num-gpus=0", "--object-store-memory=200000000", f"--temp-dir={folder / 'ray'}",
    ]  # fmt: skip
    here = Cluster(f"http://127.0.0.1:{dashboard}", environment(token))
    with log.open("wb") as output:
        head = subprocess.Popen(
            command, env=here.env, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_ready(head, here.address, log)
        yield here
    finally:
        stop(head)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_submitted_job_answers_the_bundled_catalog(cluster: Cluster, tmp_path: Path) -> None:
    output = tmp_path / "answers"
    done = cluster.submit("python", "jobs/catalog_qa.py", "--output", str(output), "--limit", str(IMAGES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout

    asked = pq.read_table(DEMO).slice(0, IMAGES).to_pylist()
    questions = {(row["image_id"], question) for row in asked for question in row["questions"]}
    rows = [row for file in sorted(output.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert {(row["image_id"], row["question"]) for row in rows} == questions
    assert len(rows) == len(questions)
    assert [row["error"] for row in rows if row["status"] != "ok"] == []
    assert list(output.rglob("run.json")), "no run record"


def test_a_failing_job_is_reported_as_failed(cluster: Cluster) -> None:
    done = cluster.submit("python", "jobs/catalog_qa.py", "--no-such-setting", "1")
    assert done.returncode != 0
    assert "no-such-setting" in (done.stdout + done.stderr).replace("_", "-")
    assert "succeeded" not in done.stdout


def test_the_upload_leaves_out_what_git_ignores_and_stays_small(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    # The excludes that Ray itself adds to a working directory: the .git folder and environments.
    create_package(str(ROOT), package, include_gitignore=True, excludes=[".git", ".venv", "venv", "__pycache__"])
    assert package.stat().st_size < MAX_UPLOAD_BYTES
