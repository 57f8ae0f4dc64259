"""Checkpoints in the released format at sizes where memory counts, written by the tensor, and loads that are watched.

As a program it loads one in a process of its own and prints what it saw as JSON:

    python -m tests.model.at_size FOLDER [--packed] [--answer]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import model
from model.checkpoint import write_shards
from model.config import Config
from model.grammar import Grammar
from model.prompt import Tokenizer
from model.quantization import fp4_scale_shape, fp8_scale_shape
from model.reference import generate
from model.vision_language_model import VisionLanguageModel

WIDE = ("hc_", "attn_sink", ".ape", "gate.bias")
FP4 = re.compile(r"layers\.\d+\.ffn\.experts\.\d+\.w[123]\.weight")
FP8 = re.compile(r"layers\.\d+\.(attn\.(wq_a|wq_b|wkv|wo_a|wo_b|indexer\.wq_b)|ffn\.shared_experts\.w[123])\.weight")
SAMPLE_SECONDS = 0.5
QUESTION = "how many red circles are there?"
ANSWER_TOKENS = 3


def write_random_checkpoint(folder: Path, config: Config, tokenizer: Path, max_shard_bytes: int) -> int:
    """Write random weights of about unit gain in the released format; returns their bytes on disk.

    One tensor is in memory at a time, beside those of its shard.
    """
    folder.mkdir()
    with torch.device("meta"):
        shapes = {name: tensor for name, tensor in VisionLanguageModel(config).state_dict().items()}
    write_shards(folder, _random_tensors(shapes, config), max_shard_bytes)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    shutil.copy(tokenizer, folder / "tokenizer.json")
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _random_tensors(shapes: dict[str, Tensor], config: Config) -> Iterator[tuple[str, Tensor]]:
    rng = np.random.default_rng(0)

    def random_bytes(*shape: int) -> Tensor:
        return torch.from_numpy(np.frombuffer(rng.bytes(math.prod(shape)), dtype=np.uint8).copy()).view(shape)

    def scales(shape: tuple[int, int], gain: float) -> Tensor:
        return torch.full(shape, 127 - round(math.log2(gain)), dtype=torch.uint8).view(torch.float8_e8m0fnu)

    for name, empty in shapes.items():
        shape = tuple(empty.shape)
        root = math.sqrt(shape[-1])
        if FP4.fullmatch(name):
            rows, columns = shape
            yield name, random_bytes(rows, columns // 2).view(torch.int8)
            yield name.replace("weight", "scale"), scales(fp4_scale_shape(rows, columns), 3 * root)  # E2M1: RMS near 3
        elif FP8.fullmatch(name):
            # Sign and mantissa at random, exponents of 0.5 to 2: no NaN among them.
            codes = (random_bytes(*shape) & 0x8F) | 0x38
            yield name, codes.view(torch.float8_e4m3fn)
            yield name.replace("weight", "scale"), scales(fp8_scale_shape(*shape), 1.5 * root)
        elif not empty.is_floating_point():
            yield name, torch.from_numpy(rng.integers(0, config.n_routed_experts, shape))
        elif name.endswith("norm.weight") or ".norm1." in name or ".norm2." in name or name.endswith("_scale"):
            yield name, torch.ones(shape, dtype=torch.float32 if name.endswith("_scale") else torch.bfloat16)
        else:
            kind = torch.float32 if any(part in name for part in WIDE) else torch.bfloat16
            yield name, torch.empty(shape, dtype=kind).normal_(0, 1 / root)


def resident_mb(name: str = "VmRSS") -> float:
    """Resident memory of this process in MB (10^6 bytes); `VmHWM`: its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"no {name} in /proc/self/status")


class Watch:
    """A curve of resident memory, sampled by a thread, with the phase it belongs to."""

    def __init__(self) -> None:
        self.phase, self.curve = "import", list[tuple[float, str, int]]()
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.curve.append((round(time.perf_counter() - self._began, 1), self.phase, round(resident_mb())))

    def stop(self) -> list[tuple[float, str, int]]:
        self._stop.set()
        self._thread.join()
        return self.curve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--answer", action="store_true")
    options = parser.parse_args()
    torch.zeros(8, 8).to(torch.bfloat16) @ torch.zeros(8, 8).to(torch.bfloat16)  # libraries that come with first use
    watch = Watch()
    before = resident_mb()
    watch.phase = "load"
    vlm = model.load(options.folder, dtype=torch.bfloat16, packed_experts=options.packed)
    tensors = [tensor for tensor in vlm.state_dict().values()]
    seen: dict[str, object] = {
        "before_mb": before,
        "peak_of_load_mb": resident_mb("VmHWM"),
        "weights_mb": sum(tensor.nbytes for tensor in tensors) / 1e6,
        "largest_mb": max(tensor.nbytes for tensor in tensors) / 1e6,
    }
    if options.answer:
        tokenizer = Tokenizer(options.folder)
        image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 80, 3), dtype=np.uint8))
        prefix, tail = tokenizer.encode_question(QUESTION)
        watch.phase = "logits"
        logits = vlm.logits(prefix + tail, [image])
        watch.phase = "generate"
        grammar = Grammar(tokenizer, vlm.config.vocab_size)
        response = generate(vlm, tokenizer, grammar, image, QUESTION, ANSWER_TOKENS)
        seen |= {
            "positions": logits.shape[0],
            "vocabulary": logits.shape[1],
            "finite": bool(logits.isfinite().all()),
            "spread": float(logits.float().std()),
            "response_tokens": len(response),
        }
    seen |= {"peak_mb": resident_mb("VmHWM"), "curve": watch.stop()}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
