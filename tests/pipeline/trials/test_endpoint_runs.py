"""Whole runs on Ray with an endpoint as the engine: a quick one, a slow one, one that says no, one that is killed."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.run import run
from pipeline.settings import Settings
from tests.pipeline.chat_server import Asked, after, beside, completion, free_port
from tests.pipeline.families import write_checkpoint
from tests.pipeline.tables import answers, write_catalog

pytestmark = pytest.mark.usefixtures("local_ray")

MIDDLE = '{"objects": [{"box": [250, 250, 750, 750], "label": "thing"}], "answer": "in the middle"}'
# transformers would fetch images with torchvision's compiled part, which is not everywhere; without it, PIL does.
_SERVE = "import sys; sys.modules['torchvision'] = None; from transformers.cli.transformers import main; main()"


def ran(catalog: Path, output: Path, url: str, *more: str, model: str = "m") -> dict[str, Any]:
    arguments = ["--engine", "openai", "--endpoint", url, "--model", model, "--catalog", str(catalog)]
    arguments += ["--output", str(output), "--max-output-tokens", "4", *more]
    return run(Settings.load(arguments), io.StringIO(), io.StringIO())


def test_a_run_against_an_endpoint_answers_a_catalog_with_typed_primitives(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> web.Response:
        if "many" in asked.text:
            return web.json_response({"error": {"message": "no counting here"}}, status=400)
        return completion(MIDDLE)

    catalog = write_catalog(tmp_path / "c.parquet", 10, ["Where is it?", "How many?"])
    with beside(answer) as (server, url):
        record = ran(catalog, tmp_path / "out", url, "--primitives", "on")
    rows = answers(tmp_path / "out")
    assert (record["counts"]["ok"], record["counts"]["error"], len(rows)) == (10, 10, 20)
    assert len(server.asked) == 20
    for row in rows:
        if row["question_id"] == "1":
            assert (row["error"]["stage"], row["error"]["kind"], row["answer"]) == ("generate", "http_400", None)
            continue
        (box,) = row["primitives"]
        corners = [box[corner] for corner in ("x1", "y1", "x2", "y2")]
        width, height = row["image_width"], row["image_height"]
        assert corners == pytest.approx([width / 4, height / 4, width * 3 / 4, height * 3 / 4], abs=0.1)
        assert (row["answer"], row["model"], row["usage"]["output_tokens"]) == ("in the middle", "m", 5)


@pytest.mark.slow
def test_a_slow_endpoint_is_kept_as_busy_as_was_allowed(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 500, ["Where?", "How many?", "What is it?", "Which colour?"])
    with beside(lambda asked: after(0.2, "3")) as (server, url):
        ran(catalog, tmp_path / "out", url, "--requests-in-flight", "64")
    assert len(answers(tmp_path / "out")) == len(server.asked) == 2000
    assert server.most == 64
    steady = [asked.at for asked in server.asked[400:1600]]
    share = (len(steady) - 1) / (steady[-1] - steady[0]) / (64 / 0.2)
    print(f"steady: {share:.3f} of 320 answers/s")
    assert share > 0.5  # what it is depends on what else the machine does


@pytest.mark.slow
def test_an_endpoint_that_refuses_fails_and_babbles_is_never_asked_faster_than_it_said(tmp_path: Path) -> None:
    dice, refused_at, wait_s = random.Random(3), [], 0.5

    async def answer(asked: Asked) -> web.Response:
        drawn = dice.random()
        if drawn < 1 / 3:
            refused_at.append(time.monotonic())
            return web.json_response({"error": "busy"}, status=429, headers={"Retry-After": str(wait_s)})
        if drawn < 1 / 3 + 1 / 10:
            return web.json_response({"error": "oh"}, status=500)
        return web.Response(text="<html>") if drawn < 1 / 3 + 1 / 10 + 1 / 20 else completion("3")

    catalog = write_catalog(tmp_path / "c.parquet", 60, ["Where?", "How many?"])
    with beside(answer) as (server, url):
        record = ran(catalog, tmp_path / "out", url, "--requests-in-flight", "8")
    rows = answers(tmp_path / "out")
    kinds = Counter(row["error"]["kind"] if row["error"] else row["status"] for row in rows)
    print(f"{len(server.asked)} requests, {len(refused_at)} refused: {dict(kinds)}")
    assert len(rows) == 120 and record["counts"]["ok"] >= 110
    assert set(kinds) <= {"ok", "http_500", "bad_response"}
    # What was under way when the server said so may still come in; then nothing until the time is over.
    early = [asked.at - at for at in refused_at for asked in server.asked if at + wait_s / 2 < asked.at < at + wait_s]
    assert early == []


class Served:
    """transformers' own server with one model, in a process of its own."""

    def __init__(self, checkpoint: Path, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._checkpoint, self._log = checkpoint, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", _SERVE, "serve", str(self._checkpoint), "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def answered(self) -> int:
        return self._log.read_text(errors="replace").count('completions HTTP/1.1" 200')


@contextmanager
def served(checkpoint: Path, log: Path) -> Iterator[Served]:
    server = Served(checkpoint, log)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.slow
def test_a_real_server_that_is_killed_and_started_again_loses_no_row(tmp_path: Path) -> None:
    checkpoint = write_checkpoint("gemma3", tmp_path / "gemma3")
    catalog = write_catalog(tmp_path / "c.parquet", 250, ["Where is it?", "How many?"])
    killed_at: list[int] = []

    def kill_in_the_middle() -> None:
        while server.answered < 150:
            time.sleep(0.1)
        server.kill()
        killed_at.append(server.answered)
        time.sleep(2)
        server.start()

    with served(checkpoint, tmp_path / "log") as server:
        killer = threading.Thread(target=kill_in_the_middle, daemon=True)
        killer.start()
        more = ("--requests-in-flight", "8", "--patience-seconds", "180")
        record = ran(catalog, tmp_path / "out", server.url, *more, model=str(checkpoint))
        killer.join(60)
        print(f"killed after {killed_at} of {server.answered} answers")
    rows = answers(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"ok": 500}, Counter(str(row["error"]) for row in rows)
    assert record["counts"]["ok"] == 500
    assert len(killed_at) == 1 and killed_at[0] < 500
