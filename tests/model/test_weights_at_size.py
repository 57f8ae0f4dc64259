"""Loading where memory counts: a gigabyte within its bound, and one full-width slice of the released model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.config import Config
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.at_size import ANSWER_TOKENS, write_random_checkpoint

ROOT = Path(__file__).parents[2]
TOKENIZER = DEFAULT_CHECKPOINT / "tokenizer.json"
GIGABYTE = Config(
    vocab_size=64_000,
    hidden_size=1024,
    num_hidden_layers=3,
    num_attention_heads=16,
    head_dim=128,
    q_lora_rank=512,
    o_lora_rank=256,
    compress_ratios=(0, 4, 128),
    index_n_heads=16,
    n_routed_experts=128,
    num_hash_layers=1,
    vision_n_layers=4,
)
# Layers 0, 2 and 3 of the released model: hash and sliding, hash and CSA, scored and HCA. Nothing else is made smaller.
SLICE = replace(Config(), num_hidden_layers=3, compress_ratios=(0, 4, 128), num_hash_layers=2)

pytestmark = pytest.mark.slow


def watched(folder: Path, *flags: str) -> dict[str, Any]:
    """What a load in a process of its own saw."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.at_size", str(folder), *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("size") / "gigabyte"
    assert write_random_checkpoint(folder, GIGABYTE, TOKENIZER, max_shard_bytes=200_000_000) > 10**9
    yield folder
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("flags", [(), ("--packed",)])
def test_loading_takes_the_weights_and_little_more_than_the_largest_tensor(
    gigabyte: Path, flags: tuple[str, ...]
) -> None:
    seen = watched(gigabyte, *flags)
    taken = seen["peak_of_load_mb"] - seen["before_mb"]
    print({name: value for name, value in seen.items() if name != "curve"}, "taken", round(taken))
    assert taken <= seen["weights_mb"] + 1.2 * seen["largest_mb"]
    assert taken >= 0.95 * seen["weights_mb"]  # else nothing was measured


def test_a_full_width_slice_of_the_released_model_answers_on_a_24_gb_machine(tmp_path: Path) -> None:
    folder = tmp_path / "slice"
    on_disk = write_random_checkpoint(folder, SLICE, TOKENIZER, max_shard_bytes=2_000_000_000)
    try:
        seen = watched(folder, "--packed", "--answer")
    finally:
        for path in folder.iterdir():
            path.unlink()
    curve = seen.pop("curve")
    print(f"{on_disk / 1e9:.1f} GB on disk", seen)
    print("seconds, phase, resident MB:", *curve[:: max(len(curve) // 40, 1)], sep="\n")
    assert seen["weights_mb"] < 15_000  # the experts stayed packed: they alone would be 38 GB in bf16
    assert seen["peak_mb"] < 20_000  # which leaves something for the machine
    assert (seen["vocabulary"], seen["response_tokens"]) == (129_280, ANSWER_TOKENS)
    assert seen["positions"] > 114  # the span of the smallest image, and the text
    assert seen["finite"] and seen["spread"] > 1e-3
