"""How fast the job, the engine, the reference and decoding alone are, on the same work. All in fp32 on the CPU."""

from __future__ import annotations

import asyncio
import gc
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from model.cache import Cache
from model.cache_layout import CacheLayout
from model.engine import Completion, NativeEngine, Request
from model.grammar import Grammar
from model.prompt import Tokenizer
from model.reference import generate
from model.runner import Feed, runner_of
from model.vision_language_model import VisionLanguageModel

from ..run import run
from ..settings import Settings
from .peer import peer_generate

if TYPE_CHECKING:
    from transformers import DeepseekV4ForCausalLM

Result = TypeVar("Result")

REPEATS = 3
PATIENCE_SECONDS = 20.0  # what has taken longer is not repeated
REFERENCE_QUESTIONS = 24
SHARED_QUESTIONS = 8
PROMPT_TOKENS = 128
BATCHES = (1, 8, 32, 64, 128, 256, 512, 1024)  # sequences that decode together
GIVEN_UP_SHARE = 0.8  # of a side's best rate: below it, larger batches are not tried


def repeat(work: Callable[[], Result]) -> list[tuple[float, Result]]:
    """Seconds and result of REPEATS calls, or of fewer once they have taken PATIENCE_SECONDS together."""
    timed: list[tuple[float, Result]] = []
    while len(timed) < REPEATS and sum(seconds for seconds, _ in timed) < PATIENCE_SECONDS:
        started = time.perf_counter()
        result = work()
        timed.append((time.perf_counter() - started, result))
    return timed


def job_speed(requests: Sequence[Request], checkpoint: str, kv_budget_mb: int, threads: int) -> dict[str, Any]:
    """Answers/s of whole runs on Ray over a Parquet catalog: from the moment the engine is ready, and all in all."""
    answers = sum(len(request.questions) for request in requests)
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog.parquet"
        write_catalog(requests, catalog)
        settings = Settings(
            catalog=str(catalog),
            output=str(Path(folder) / "answers"),
            overwrite=True,
            model=checkpoint,
            device="cpu",
            dtype="float32",
            kv_budget_mb=kv_budget_mb,
            max_output_tokens=requests[0].max_output_tokens,
            cpus_per_actor=threads,
        )
        timed = repeat(lambda: run(settings, io.StringIO(), io.StringIO()))
    for _, record in timed:
        assert record["counts"]["ok"] == answers, f"{record['counts']} where {answers} were due: {record['errors']}"
    return {
        "job_answers_per_second": median(record["answers_per_second"] for _, record in timed),
        "job_with_startup_answers_per_second": median(answers / seconds for seconds, _ in timed),
        "job_with_startup_seconds": median(seconds for seconds, _ in timed),
        "job_images": len(requests),
        "job_engine_busy_share": median(record["engines"]["busy_share"] for _, record in timed),
        "job_process_peak_bytes": max(record["engines"]["process_peak_bytes"] for _, record in timed),
    }


def write_catalog(requests: Sequence[Request], path: Path) -> None:
    """A catalog of the requests' images, as PNG, with their questions."""
    rows = []
    for index, request in enumerate(requests):
        buffer = io.BytesIO()
        request.image.save(buffer, "PNG")
        rows.append({"image_id": f"{index:05}", "image": buffer.getvalue(), "questions": list(request.questions)})
    pq.write_table(pa.Table.from_pylist(rows), path)


def engine_speed(
    requests: Sequence[Request], checkpoint: str, kv_budget_mb: int
) -> tuple[dict[str, Any], list[list[Completion]]]:
    """Answers/s of the engine with all requests sent at once, images decoded; and the completions of each request.

    Beside it the same images with SHARED_QUESTIONS questions each, and as many copies of each image with one question:
    copies differ in a pixel, or the engine would see them once. Half of the images, so that the batch stays full.
    """
    engine = NativeEngine(
        checkpoint,
        kv_budget_bytes=kv_budget_mb * 1_000_000,
        device="cpu",
        dtype="float32",
        max_output_tokens=requests[0].max_output_tokens,
    )
    few = requests[: max(1, len(requests) // 2)]
    shared = [replace(request, questions=questions_of(request, SHARED_QUESTIONS)) for request in few]
    separate = [
        replace(request, image=_marked(request.image, number), questions=(question,))
        for request in shared
        for number, question in enumerate(request.questions)
    ]
    gc.freeze()  # as in an actor
    try:
        timed = repeat(lambda: asyncio.run(_answer_all(engine, requests)))
        before = engine.stats()
        together = median(seconds for seconds, _ in repeat(lambda: asyncio.run(_answer_all(engine, shared))))
        one_each = median(seconds for seconds, _ in repeat(lambda: asyncio.run(_answer_all(engine, separate))))
    finally:
        engine.close()
        gc.unfreeze()
    seconds, completions = median(seconds for seconds, _ in timed), timed[0][1]
    every = [completion for of_image in completions for completion in of_image]
    figures = {
        "engine_answers_per_second": len(every) / seconds,
        "engine_output_tokens_per_second": sum(len(one.token_ids) for one in every) / seconds,
        "engine_sequences_per_step": before.sequence_steps / before.steps,
        "engine_kv_allocated_to_predicted_ratio": before.kv_bytes_measured / before.kv_bytes_predicted,
        "shared_image_questions": SHARED_QUESTIONS,
        "shared_image_answers_per_second": len(separate) / together,
        "separate_images_answers_per_second": len(separate) / one_each,
        "shared_to_separate_ratio": one_each / together,
    }
    return figures, completions


async def _answer_all(engine: NativeEngine, requests: Sequence[Request]) -> list[list[Completion]]:
    return await asyncio.gather(*(engine.answer(request) for request in requests))


def questions_of(request: Request, count: int) -> tuple[str, ...]:
    """`count` questions: the request's own, over and over."""
    return tuple(request.questions[number % len(request.questions)] for number in range(count))


def _marked(image: Image.Image, number: int) -> Image.Image:
    copy = image.copy()
    copy.putpixel((0, 0), (number, number, number))
    return copy


def reference_speed(
    requests: Sequence[Request], completions: list[list[Completion]], checkpoint: str, model: VisionLanguageModel
) -> dict[str, Any]:
    """Answers/s of the reference, one question at a time, on a spread of the questions; and whether it agrees."""
    tokenizer = Tokenizer(checkpoint)
    grammar = Grammar(tokenizer, model.config.vocab_size)
    every = [(row, number) for row, request in enumerate(requests) for number in range(len(request.questions))]
    step = max(1, len(every) // REFERENCE_QUESTIONS)
    chosen = every[::step][:REFERENCE_QUESTIONS]

    def answer(row: int, number: int) -> list[int]:
        request = requests[row]
        return generate(model, tokenizer, grammar, request.image, request.questions[number], request.max_output_tokens)

    timed = repeat(lambda: [answer(row, number) for row, number in chosen])
    responses = timed[0][1]
    seconds = median(seconds for seconds, _ in timed)
    equal = [
        list(completions[row][number].token_ids) == response
        for (row, number), response in zip(chosen, responses, strict=True)
    ]
    return {
        "reference_questions": len(chosen),
        "reference_answers_per_second": len(chosen) / seconds,
        "reference_output_tokens_per_second": sum(map(len, responses)) / seconds,
        "reference_equals_engine_share": sum(equal) / len(equal),
    }


def decode_speed(model: VisionLanguageModel, peer: DeepseekV4ForCausalLM, new_tokens: int) -> dict[str, Any]:
    """Output tokens/s of text alone, greedy, of our batch decoding and of transformers' `generate`, by batch size.

    Both prefill PROMPT_TOKENS random tokens a sequence, which is part of the time. They take turns at each size. Names
    say bf16 when the weights are; the plain ones are of fp32.
    """
    ours: dict[int, float] = {}
    theirs: dict[int, float] = {}
    equal = compared = 0
    for batch in BATCHES:
        generator = torch.Generator().manual_seed(batch)
        ids_BP = torch.randint(model.config.vocab_size, (batch, PROMPT_TOKENS), generator=generator)
        our_tokens = _rate(ours, batch, new_tokens, partial(native_generate, model, ids_BP, new_tokens))
        their_tokens = _rate(theirs, batch, new_tokens, partial(peer_generate, peer, ids_BP, new_tokens))
        if our_tokens is not None and their_tokens is not None:
            equal, compared = equal + int((our_tokens == their_tokens).sum()), compared + batch * new_tokens
    kind = "" if model.embed.weight.dtype == torch.float32 else "_bf16"
    return {
        "decode_prompt_tokens": PROMPT_TOKENS,
        "decode_output_tokens": new_tokens,
        **_best(f"decode{kind}", ours),
        **_best(f"transformers{kind}", theirs),
        f"decode{kind}_equals_transformers_tokens_share": equal / compared,
    }


def _rate(rates: dict[int, float], batch: int, new_tokens: int, work: Callable[[], Tensor]) -> Tensor | None:
    """Takes the rate at this batch into `rates`; the tokens, or None when the last batch was too far below the best."""
    if rates and rates[max(rates)] < GIVEN_UP_SHARE * max(rates.values()):
        return None
    timed = repeat(work)
    rates[batch] = batch * new_tokens / median(seconds for seconds, _ in timed)
    return timed[0][1]


def _best(name: str, tokens_per_second: dict[int, float]) -> dict[str, Any]:
    batch = max(tokens_per_second, key=tokens_per_second.__getitem__)
    return {
        f"{name}_output_tokens_per_second": tokens_per_second[batch],
        f"{name}_best_batch_sequences": batch,
        f"{name}_output_tokens_per_second_by_batch": {str(size): rate for size, rate in tokens_per_second.items()},
    }


@torch.inference_mode()
def native_generate(model: VisionLanguageModel, ids_BP: Tensor, new_tokens: int) -> Tensor:
    """`new_tokens` greedy tokens [B, new_tokens] after B text prompts of one length, as the engine's runner decodes."""
    batch, prompt = ids_BP.shape
    layout = CacheLayout(model.config, model.embed.weight.dtype)
    footprint = layout.footprint(0, [prompt + new_tokens] * batch)
    spare = batch * layout.slot_bytes  # a cache has two slots for each sequence
    budget = footprint.total_bytes + spare
    cache = Cache(model.config, budget, model.embed.weight.dtype, ids_BP.device, prompt + new_tokens)
    runner = runner_of(model, cache, torch.get_num_threads())
    sequences = cache.reserve(footprint)
    chosen = [ids_BP]
    for _ in range(new_tokens):
        due = chosen[-1].tolist()
        logits = runner.run([Feed(sequence, ids) for sequence, ids in zip(sequences, due, strict=True)])
        # By way of numpy, whose argmax over rows is many times faster.
        chosen.append(torch.from_numpy(logits.numpy().argmax(axis=1))[:, None])
    runner.close()
    return torch.cat(chosen[1:], dim=1)
