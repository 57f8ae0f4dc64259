"""How many images fit one KV budget at a time: compressed, and as raw entries of the same backbone.

One question an image throughout, so that nothing is shared. Uncompressed means what the backbone would keep without
compression: every token's raw entry in every layer (one shared KV head, whose keys are its values). Two pairs: entries
and raw entries in fp32, and entries in FP8 (`--kv-dtype fp8`) beside raw ones in bf16, as the released model compares.
"""

from __future__ import annotations

import asyncio
from typing import Any

import torch

from model.cache_layout import CacheLayout
from model.config import Config
from model.engine import NativeEngine, Request
from model.image import plan
from model.tasks import shapes
from model.tasks.scenes import draw

SEED = 700_000
SIDE_PIXELS = 168
THINGS = 6
QUESTION = "how many things do you see?"  # 10 tokens, with the marks behind it; its response is a long one
OUTPUT_TOKENS = 64
LONGER_CONTEXTS = (768, 4096)  # tokens of image, question and response together
FEASIBLE_IMAGES = 1000  # more than these are counted, not run
SENT_SHARE = 1.25  # of the images that fit: a queue stands behind them when the first ones finish


def capacity(checkpoint: str, budget_bytes: int) -> dict[str, Any]:
    """Images in flight under `budget_bytes` of fp32 cache: as the engine allocates, as it ran, and by formula.

    `kv_images_in_flight_measured` is the peak of a real run; None when more fit than FEASIBLE_IMAGES.
    """
    engine = NativeEngine(
        checkpoint, kv_budget_bytes=budget_bytes, device="cpu", dtype="float32", max_output_tokens=OUTPUT_TOKENS
    )
    try:
        rng = shapes.scene_rng(SEED, "test")
        scene = draw(rng, width=SIDE_PIXELS, height=SIDE_PIXELS, count=(THINGS, THINGS))
        request = Request(scene.image, (QUESTION,), OUTPUT_TOKENS)
        allocated = _as_allocated(engine, request)
        fit = allocated["compressed_images_in_flight"]
        measured = _measure(engine, request, int(fit * SENT_SHARE)) if fit <= FEASIBLE_IMAGES else None
    finally:
        engine.close()
    return {
        "kv_budget_bytes": budget_bytes,
        "kv_image_side_pixels": SIDE_PIXELS,
        "kv_output_tokens": OUTPUT_TOKENS,
        "kv_images_in_flight_measured": measured,
        "kv_by_context": [
            allocated,
            *(by_formula(engine.config, tokens, budget_bytes, torch.float32) for tokens in LONGER_CONTEXTS),
        ],
        "kv_fp8_by_context": [
            by_formula(engine.config, tokens, budget_bytes, torch.bfloat16, fp8=True)
            for tokens in (allocated["context_tokens"], *LONGER_CONTEXTS)
        ],
    }


def by_formula(config: Config, tokens: int, budget_bytes: int, dtype: torch.dtype, fp8: bool = False) -> dict[str, Any]:
    """Bytes and images in flight for sequences of `tokens` tokens, in a cache laid out for just that length."""
    compressed_bytes = CacheLayout(config, dtype, fp8).footprint(0, [tokens]).total_bytes
    return _row(config, tokens, budget_bytes, compressed_bytes, budget_bytes // compressed_bytes, dtype)


def _as_allocated(engine: NativeEngine, request: Request) -> dict[str, Any]:
    """The same for one request, as the engine's own cache is split into slots, windows and pages."""
    footprint, cache = engine.footprint(request), engine.cache
    prefix, tail = engine.tokenizer.encode_question(request.questions[0])
    geometry = plan(*request.image.size, engine.config)
    prompt = engine.model.expand(prefix + tail, [geometry], engine.tokenizer.image_id)
    room = cache.slots.count, cache.windows.count, cache.pages.count
    fit = min(count // need for count, need in zip(room, footprint.units, strict=True))
    tokens = len(prompt) + OUTPUT_TOKENS
    return _row(engine.config, tokens, cache.budget_bytes, footprint.total_bytes, fit, torch.float32)


def _row(
    config: Config, tokens: int, budget_bytes: int, compressed_bytes: int, fit: int, dtype: torch.dtype
) -> dict[str, Any]:  # fmt: skip
    uncompressed_bytes = tokens * config.num_hidden_layers * config.head_dim * dtype.itemsize
    return {
        "context_tokens": tokens,
        "compressed_bytes_per_image": compressed_bytes,
        "uncompressed_bytes_per_image": uncompressed_bytes,
        "compressed_images_in_flight": fit,
        "uncompressed_images_in_flight": budget_bytes // uncompressed_bytes,
    }


def _measure(engine: NativeEngine, request: Request, images: int) -> int:
    """The largest number of images that were in flight while `images` copies of one request were answered."""

    async def answer_all() -> None:
        await asyncio.gather(*(engine.answer(request) for _ in range(images)))

    asyncio.run(answer_all())
    return engine.stats().images_in_flight_peak
