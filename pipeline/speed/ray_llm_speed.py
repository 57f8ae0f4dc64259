"""Ray's processor for vLLM and our pipeline around the same vLLM: the same catalog, model and questions, by turns.

Both run as commands of their own with a python that has vLLM. A rate is of the last three quarters of the answers, so
that neither pays for its start; CPU is that of all processes of the command meanwhile. Then the same with some images
broken: what each still answers.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.tasks import shapes
from model.tasks.scenes import draw

from ..engines.vllm_engine import Shape, arguments_of
from ..sources import PROJECT
from .cpu_time import Watched, watched
from .ray_llm_peer import Work

SCRIPT = Path(__file__).with_name("ray_llm_peer.py")
SIZE = (640, 480)
FIRST_SEED = 900_000
PATIENCE_SECONDS = 1800.0
_BROKEN_EVERY = 50  # 2 %
_ROW_GROUPS = 10
_UNCOUNTED = 0.25


@dataclass(frozen=True)
class Side:
    """What one of them did. `at`: when each question was answered, sorted; `failed`: rows that say why not."""

    at: Sequence[float]
    failed: int
    ended: str | None
    cpu: Watched

    def figures(self) -> dict[str, Any]:
        if len(self.at) < 2:
            return {"answers": len(self.at), "failed_rows": self.failed, "ended": self.ended}
        first = self.at[int(len(self.at) * _UNCOUNTED)]
        counted = len(self.at) - 1 - int(len(self.at) * _UNCOUNTED)
        return {
            "answers": len(self.at),
            "failed_rows": self.failed,
            "ended": self.ended,
            "answers_per_second": counted / (self.at[-1] - first),
            "cpu_milliseconds_per_answer": 1000 * self.cpu.cpu_between(first, self.at[-1]) / counted,
            "whole_seconds": self.cpu.times[-1] - self.cpu.times[0],
            "whole_cpu_seconds": self.cpu.cpu_seconds[-1],
        }


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of the rounds, their ratio, and what became of the rows of a catalog with broken images."""
    figures: dict[str, Any] = {"images": options.images, "questions_per_image": options.questions}
    with TemporaryDirectory() as name:
        folder = Path(name)
        whole = write_catalog(folder / "whole.parquet", options.images, options.questions, 0)
        rounds = [_round(whole, folder, options) for _ in range(options.rounds)]
        for side in ("ours", "theirs"):
            figures[side] = {key: _middle([each[side][key] for each in rounds]) for key in rounds[0][side]}
        for key, above, below in (
            ("answers_per_second", "ours", "theirs"),
            ("cpu_milliseconds_per_answer", "theirs", "ours"),
        ):
            figures[f"{key}_ratios"] = [each[above][key] / each[below][key] for each in rounds]
        broken = write_catalog(folder / "broken.parquet", options.images, options.questions, _BROKEN_EVERY)
        figures["with_2_percent_broken"] = _round(broken, folder, options)
    return figures


def write_catalog(path: Path, images: int, questions: int, broken_every: int) -> Path:
    """Drawn scenes as JPEGs with questions; of every so many (0: of none) only half of the bytes are there."""
    columns: dict[str, list[Any]] = {"image_id": [], "image": [], "questions": []}
    for index in range(images):
        rng = shapes.scene_rng(FIRST_SEED + index, "test")
        scene = draw(rng, width=SIZE[0], height=SIZE[1], count=(1, 6), layouts=shapes.layouts("test"))
        stored = io.BytesIO()
        scene.image.save(stored, "JPEG", quality=90)
        is_broken = broken_every and index % broken_every == broken_every // 2
        columns["image_id"].append(f"i{index:05}")
        columns["image"].append(stored.getvalue()[: stored.tell() // 2 if is_broken else None])
        columns["questions"].append([shapes.pose(scene, rng).question for _ in range(questions)])
    pq.write_table(pa.table(columns), path, row_group_size=-(-images // _ROW_GROUPS))
    return path


def _round(catalog: Path, folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    return {
        "ours": _ours(catalog, folder, options).figures(),
        "theirs": _theirs(catalog, folder, options).figures(),
    }


def _ours(catalog: Path, folder: Path, options: argparse.Namespace) -> Side:
    output = folder / "answers"
    command = [options.python, str(PROJECT / "jobs" / "catalog_qa.py"), "--engine", "vllm", "--model", options.model]
    command += ["--catalog", str(catalog), "--output", str(output), "--overwrite", "--primitives", "off"]
    command += ["--max-output-tokens", str(options.tokens), "--kv-budget-mb", str(options.kv_budget_mb)]
    done = watched(command, _environment(), folder / "ours.log", PATIENCE_SECONDS)
    if done.status:
        raise ValueError(f"the run of ours ended with {done.status}:\n{done.said[-2000:]}")
    rows = pq.read_table(output / "answers", columns=["status", "answered_at"]).to_pylist()
    at = sorted(row["answered_at"].timestamp() for row in rows if row["status"] == "ok")
    return Side(at, len(rows) - len(at), None, done)


def _theirs(catalog: Path, folder: Path, options: argparse.Namespace) -> Side:
    shape = Shape(max_pixels=0, seconds=0, kv_bytes=options.kv_budget_mb * 1_000_000)
    engine = arguments_of(options.model, shape, on_cpu=True, in_group=False)
    del engine["model"]
    engine["max_num_seqs"] = engine["max_num_seqs"] or 128  # as vLLM has it on a CPU; Ray can't carry None
    sampling = {"temperature": 0.0, "max_tokens": options.tokens, "skip_special_tokens": False}
    work = Work(str(catalog), options.model, engine, sampling, options.all_stages, 8)
    command = [options.python, str(SCRIPT), json.dumps(asdict(work))]
    done = watched(command, _environment(), folder / "theirs.log", PATIENCE_SECONDS)
    lines = [line for line in done.said.splitlines() if line.startswith('{"at"')]
    if not lines:
        raise ValueError(f"Ray's processor ended with {done.status} and told nothing:\n{done.said[-2000:]}")
    told = json.loads(lines[-1])
    return Side(told["at"], told["failed"], told["ended"], done)


def _environment() -> dict[str, str]:
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    binding = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | binding | {"PYTHONPATH": os.pathsep.join(paths)}


def _middle(values: Sequence[Any]) -> Any:
    return statistics.median(values) if all(isinstance(value, int | float) for value in values) else values[-1]


def main(argv: Sequence[str]) -> int:
    """The command `ray_llm_speed.py`; returns its exit status. The last line it prints is JSON."""
    parser = argparse.ArgumentParser(
        prog="ray_llm_speed.py", description="Ray's vLLM processor and ours, by turns, on a CPU.", allow_abbrev=False
    )
    parser.add_argument("--python", required=True, help="a python with vllm-cpu, Ray and this project's dependencies")
    parser.add_argument("--model", required=True, help="folder of an image-text checkpoint that vLLM can run")
    for flag, default, text in (
        ("--images", 500, "images in the drawn catalog"),
        ("--questions", 4, "questions for each image"),
        ("--tokens", 16, "longest response"),
        ("--rounds", 3, "times that each is measured"),
        ("--kv-budget-mb", 256, "KV cache in MB (10^6 bytes)"),
    ):
        parser.add_argument(flag, type=int, default=default, metavar="N", help=f"{text} [{default}]")
    parser.add_argument("--all-stages", action="store_true", help="Ray tokenizes and detokenizes in stages of its own")
    figures = compared(parser.parse_args(argv))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
