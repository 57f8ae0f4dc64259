"""vLLM's CPU build beside us: a dense model of as many active parameters, random weights, the same lengths.

Run by path in an environment of vLLM's own, whose packages are not ours; so it imports nothing of this repository.
One argument, JSON: the fields of `Work`. The last line it prints is JSON: output tokens/s by number of requests.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Work:
    """The sizes of a Qwen3-like decoder, and what it is to generate: each of `batches` requests at once."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    head_dim: int
    intermediate_size: int
    prompt_tokens: int
    output_tokens: int
    batches: list[int]
    repeats: int
    threads: int
    dtype: str


def config_of(work: Work) -> dict[str, Any]:
    """The config.json of the model; one key/value head, as ours has."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": work.vocab_size,
        "hidden_size": work.hidden_size,
        "intermediate_size": work.intermediate_size,
        "num_hidden_layers": work.layers,
        "num_attention_heads": work.heads,
        "num_key_value_heads": 1,
        "head_dim": work.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": work.prompt_tokens + work.output_tokens,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "torch_dtype": work.dtype,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def parameters(work: Work) -> int:
    """How many weights the model has."""
    attention = work.hidden_size * work.head_dim * (2 * work.heads + 2) + 2 * work.head_dim
    layer = attention + 3 * work.hidden_size * work.intermediate_size + 2 * work.hidden_size
    return work.layers * layer + 2 * work.vocab_size * work.hidden_size + work.hidden_size


def measure(work: Work) -> dict[str, float]:
    """Output tokens/s by number of requests; medians of `repeats`, after one run that does not count."""
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config_of(work)))
        llm = LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype=work.dtype,
            max_model_len=work.prompt_tokens + work.output_tokens,
            max_num_seqs=max(work.batches),
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
    # Every request is as long as asked for, whatever the random weights say.
    sampling = SamplingParams(temperature=0.0, max_tokens=work.output_tokens, ignore_eos=True, detokenize=False)
    rates = {}
    for batch in work.batches:
        seconds = []
        for run in range(work.repeats + 1):
            prompts = [{"prompt_token_ids": _words(work, run + 7 * row)} for row in range(batch)]
            started = time.perf_counter()
            outputs = llm.generate(prompts, sampling, use_tqdm=False)
            seconds.append(time.perf_counter() - started)
            produced = sum(len(output.outputs[0].token_ids) for output in outputs)
            assert produced == batch * work.output_tokens, (produced, batch)
        rates[str(batch)] = batch * work.output_tokens / statistics.median(seconds[1:])
    return rates


def _words(work: Work, first: int) -> list[int]:
    return [(first + 13 * place) % work.vocab_size for place in range(work.prompt_tokens)]


def main(argument: str) -> None:
    work = Work(**json.loads(argument))
    # vLLM reads these when it is imported.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{work.threads - 1}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rates = measure(work)
    import vllm

    print(json.dumps({"version": vllm.__version__, "output_tokens_per_second_by_batch": rates}))


if __name__ == "__main__":
    main(sys.argv[1])
