"""Whole runs with vLLM, in an environment of its own: every row once, engines and actors killed on the way.

PYTHON_WITH_VLLM names the interpreter: one with vLLM (its CPU build will do), Ray and this project's other
dependencies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.sources import PROJECT
from tests.pipeline.families import write_checkpoint_for_vllm
from tests.pipeline.pictures import encoded, picture
from tests.pipeline.tables import answers, write_catalog
from tests.pipeline.trials.processes import alive, named

PYTHON = os.environ.get("PYTHON_WITH_VLLM")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="PYTHON_WITH_VLLM names no interpreter that has vLLM"),
]
QUESTIONS = ["Where is it? <|image_pad|><|vision_end|>", "Describe the image."]
ENGINE, ANSWERER = "VLLM::EngineCore", "Answerer"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint_for_vllm(tmp_path_factory.mktemp("vllm") / "qwen")


@contextmanager
def started(checkpoint: Path, catalog: Path, output: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(PYTHON), str(PROJECT / "jobs" / "catalog_qa.py"), "--engine", "vllm", "--model", str(checkpoint)]
    command += ["--catalog", str(catalog), "--output", str(output), "--kv-budget-mb", "64"]
    command += ["--request-seconds", "600", *more]  # a busy machine is no dead engine
    paths = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests' / 'site'}"}
    with subprocess.Popen(
        command, env=os.environ | paths, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        try:
            yield job
        finally:
            if job.poll() is None:
                job.kill()


def finished(job: subprocess.Popen[str], output: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record and the rows."""
    said, _ = job.communicate(timeout=900)
    assert job.returncode == 0, said
    return json.loads((output / "run.json").read_text()), answers(output)


def test_a_run_with_vllm_answers_a_whole_catalog_broken_images_and_all(checkpoint: Path, tmp_path: Path) -> None:
    images = [b"no image" if n % 10 == 3 else encoded(picture(560, 420, (n, n, n + 99, n + 99))) for n in range(40)]
    catalog = write_catalog(tmp_path / "c.parquet", 40, QUESTIONS, image=images)
    more = ("--frame", "json", "--max-output-tokens", "8")
    with started(checkpoint, catalog, tmp_path / "out", *more) as job:
        record, rows = finished(job, tmp_path / "out")
    status = Counter((row["status"], row["error"] and row["error"]["stage"]) for row in rows)
    assert status == {("ok", None): 72, ("error", "check"): 8}
    by_question = [[row for row in rows if row["status"] == "ok" and row["question_id"] == str(n)] for n in range(2)]
    for number, of_one in enumerate(by_question):
        for row in of_one:
            assert row["model"] == "qwen" and row["finish_reason"] == "length" and 0 < row["confidence"] <= 1
            usage = row["usage"]
            assert (usage["image_tokens"], usage["output_tokens"]) == (20 * 15, 8)
            # A mark before the image and one after it, the question letter by letter whatever it looks like, and the
            # template's line end; the first question is asked to point, in more words.
            least = usage["image_tokens"] + 3 + len(QUESTIONS[number])
            assert usage["prompt_tokens"] > least + 50 if number == 0 else usage["prompt_tokens"] == least
    shared = sum(row["usage"]["shared_prefill"] for row in rows if row["usage"])
    assert shared == 36  # of each image's two questions, one found what the other left
    engine = record["engines"]
    assert record["tokens"]["output"] == 72 * 8 and engine["requests"] == 36
    assert engine["sequences_per_step"] > 2 and 0 < engine["kv_peak_bytes"] <= engine["kv_budget_bytes"] == 64_000_000


@pytest.mark.parametrize("killed", [ENGINE, ANSWERER])
def test_vllm_or_the_actor_around_it_may_be_killed_and_no_row_is_lost(
    killed: str, checkpoint: Path, tmp_path: Path
) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 400, QUESTIONS)
    more = ("--max-output-tokens", "64", "--commit-seconds", "0.5", "--rows-per-file", "50", "--images-in-flight", "64")
    output = tmp_path / "out"
    with started(checkpoint, catalog, output, *more) as job:
        until(lambda: job.poll() is not None or any(output.glob("answers/part-*")))
        assert job.poll() is None, "it was over before it could be disturbed"
        (engine,) = named(job.pid, ENGINE)
        (victim, *_) = [engine] if killed == ENGINE else parents_of(engine)
        os.kill(victim, signal.SIGKILL)
        until(lambda: not alive(engine))  # nobody keeps a device that nobody uses
        record, rows = finished(job, output)
    assert Counter(row["status"] for row in rows) == {"ok": 800}, Counter(str(row["error"]) for row in rows)
    assert record["engine_deaths"] == 1 and record["engines"]["count"] == 2


def until(reached: Callable[[], bool], seconds: float = 300) -> None:
    give_up_at = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.1)


def parents_of(pid: int) -> list[int]:
    return [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])]
