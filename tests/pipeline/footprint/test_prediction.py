"""What an image costs: the released model's figures to the byte, and the engine's own counters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.compression import NO_ENTRY
from model.config import Config
from model.engine import NativeEngine, Request
from model.image import plan
from pipeline.footprint.backbones import PEERS
from pipeline.footprint.command import model_config
from pipeline.footprint.prediction import IMAGE_POSITION, Workload, as_record, cost, entry_bytes
from tests.tiny import TINY, tiny_model

RELEASED = model_config("deepseek-v4-flash-vision")
PAGE = Workload(text_tokens=64, output_tokens=0, questions=1, cache="fp8")
SIZES = ((80, 80), (168, 168), (320, 240), (100, 300), (641, 203), (1000, 90), (33, 700))


def test_the_bundled_configuration_is_the_released_one() -> None:
    assert Config() == RELEASED


def test_a_page_sized_image_costs_what_the_released_model_counts() -> None:
    record = as_record(cost(RELEASED, 756, 756, PAGE), PEERS, memory_bytes=None)
    wanted = {
        "patches": 2916, "image_tokens": 324, "span_tokens": 346, "csa_entries": 86, "csa_entries_image_only": 81,
        "request_tokens": 411, "sliding_bytes": 3_214_336, "csa_bytes": 1_250_928, "indexer_bytes": 282_744,
        "hca_bytes": 35_040, "total_bytes": 4_783_048, "uncompressed_bf16_bytes": 18_097_152,
        "image_alone_bytes": 1_293_096 + 31_573,
    }  # fmt: skip
    assert {name: record[name] for name in wanted} == wanted
    same_tokens = {peer["name"][:3]: peer["bytes_at_same_tokens"] for peer in record["peers"]}
    assert same_tokens == {"Qwe": 79_122_432, "8B ": 60_604_416, "70B": 134_676_480}


def test_a_request_shorter_than_the_window_is_charged_for_its_tokens_only() -> None:
    spent = cost(RELEASED, 80, 80, Workload(5, 0, 1, "fp8"))
    assert spent.request_tokens == 120 < RELEASED.sliding_window
    assert spent.shared.sliding_bytes == 43 * 120 * 584
    assert spent.shared.hca_bytes == 0


def test_entries_in_bf16_cost_what_the_released_model_counts() -> None:
    assert entry_bytes(RELEASED, "fp8") == (584, 132)
    in_bf16 = cost(RELEASED, 756, 756, Workload(64, 0, 1, "bf16"))
    assert in_bf16.shared.total_bytes == 8_439_296


@pytest.mark.parametrize(
    ("size", "canvas", "patches", "image_tokens", "span_tokens", "entries"),
    [
        ((80, 80), (392, 392), 784, 100, 114, (28, 25)),
        ((640, 480), (644, 490), 1610, 192, 206, (51, 48)),
        ((1024, 1024), (756, 756), 2916, 324, 346, (86, 81)),
        ((1920, 1080), (1036, 588), 3108, 350, 366, (91, 88)),
        ((4000, 3000), (882, 658), 2961, 336, 354, (88, 84)),
        ((4000, 500), (2016, 252), 2592, 288, 298, (74, 72)),
        ((500, 4000), (252, 2016), 2592, 288, 338, (84, 72)),
    ],
)
def test_sizes_become_the_tokens_and_entries_of_the_reference(
    size: tuple[int, int],
    canvas: tuple[int, int],
    patches: int,
    image_tokens: int,
    span_tokens: int,
    entries: tuple[int, int],
) -> None:
    spent = cost(RELEASED, *size, PAGE)
    assert (spent.canvas_width, spent.canvas_height) == canvas
    assert (spent.patches, spent.image_tokens, spent.span_tokens) == (patches, image_tokens, span_tokens)
    assert (spent.csa_entries, spent.csa_entries_image_only) == entries


def test_peers_count_image_tokens_by_their_own_rules() -> None:
    qwen3, _, qwen2_5 = PEERS
    assert qwen3.image_tokens(756, 756) == 24 * 24 + 2
    assert qwen3.image_tokens(80, 80) == 8 * 8 + 2  # enlarged to the least area
    assert qwen3.image_tokens(8000, 6000) * 32 * 32 <= 16_777_216  # reduced to the largest
    assert qwen2_5.image_tokens(756, 756) == 27 * 27 + 2
    assert [peer.bytes_per_token for peer in PEERS] == [192_512, 147_456, 327_680]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(2, 300), st.integers(0, 300), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_sharing_saves_the_images_compressed_entries_and_its_raw_ones_where_no_window_slides_past_them(
    width: int, height: int, text: int, output: int, questions: int
) -> None:
    spent = cost(RELEASED, width, height, Workload(text, output, questions, "fp8"))
    once = cost(RELEASED, width, height, Workload(text, output, 1, "fp8"))
    assert spent.unshared.total_bytes == questions * once.shared.total_bytes
    saved = spent.unshared.total_bytes - spent.shared.total_bytes
    prefix = spent.prefix_tokens
    raw = 43 * prefix * 584 if spent.request_tokens <= 128 else 0
    assert saved == (questions - 1) * (21 * (prefix // 4) * (584 + 132) + 20 * (prefix // 128) * 584 + raw)


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Iterator[NativeEngine]:
    engine = NativeEngine(
        tiny_checkpoint, kv_budget_bytes=4_000_000, device="cpu", dtype="float32", max_output_tokens=64
    )
    yield engine
    engine.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("questions", "output_tokens"), [(1, 1), (3, 9), (5, 40)])
def test_the_engine_allocates_what_was_predicted_to_the_byte(
    engine: NativeEngine, size: tuple[int, int], questions: int, output_tokens: int
) -> None:
    question = "how many red circles are there?"
    prefix, tail = engine.tokenizer.encode_question(question)
    assert prefix.index(engine.tokenizer.image_id) == IMAGE_POSITION
    load = Workload(IMAGE_POSITION + len(tail), output_tokens, questions, "fp32")
    predicted = cost(engine.config, *size, load).allocated_bytes
    before = engine.stats()
    request = Request(Image.new("RGB", size), (question,) * questions, output_tokens)
    asyncio.run(engine.answer(request))
    after = engine.stats()
    assert predicted == after.kv_bytes_measured - before.kv_bytes_measured
    assert predicted == after.kv_bytes_predicted - before.kv_bytes_predicted


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text_tokens", [3, 17, 40])
def test_the_live_bytes_are_those_that_a_prefill_leaves_behind(size: tuple[int, int], text_tokens: int) -> None:
    model = tiny_model(TINY)
    geometry = plan(*size, TINY)
    tail = [5] * (text_tokens - IMAGE_POSITION)
    ids = model.expand([1, 2, model.config.vocab_size - 1, *tail], [geometry], model.config.vocab_size - 1)
    ids_BT = torch.tensor([ids])
    rows = torch.zeros(1, sum(token == TINY.vocab_size + 2 for token in ids), TINY.hidden_size)
    embeddings = model.embed_prompt(ids_BT, rows)
    _, state = model(embeddings, ids_BT, torch.arange(len(ids))[None], model.empty_state(1))
    spent = cost(TINY, *size, Workload(text_tokens, 0, 1, "fp32"))
    assert len(ids) == spent.request_tokens

    window = sum(int((layer.window_positions_BW >= 0).sum()) for layer in state) * TINY.head_dim * 4
    by_ratio = {4: 0, 16: 0}
    indexer = unfinished = 0
    for ratio, layer in zip(TINY.compress_ratios, state, strict=True):
        for kept in (layer.compressed, layer.index):
            if kept is None:
                continue
            entries = int((kept.numbers_BE != NO_ENTRY).sum()) * kept.entries_BED.shape[2] * 4
            indexer += entries if kept is layer.index else 0
            by_ratio[ratio] += entries if kept is layer.compressed else 0
            unfinished += kept.sums_B3W.nbytes + kept.before_B3D.nbytes
    live = spent.shared
    assert (live.sliding_bytes, live.csa_bytes, live.indexer_bytes) == (window, by_ratio[4], indexer)
    assert (live.hca_bytes, live.unfinished_window_bytes) == (by_ratio[16], unfinished)


def test_what_fits_counts_the_unfinished_windows_and_names_what_limits_it() -> None:
    fit = as_record(cost(RELEASED, 756, 756, PAGE), PEERS, memory_bytes=10**9)["fit"]
    assert fit["requests_sharing_the_image"] == 10**9 // (4_783_048 + 606_720)
    assert fit["requests_without_unfinished_windows"] == 10**9 // 4_783_048
    assert fit["limited_by"] == "sliding"


@pytest.mark.parametrize("broken", [{"text_tokens": 1}, {"output_tokens": -1}, {"questions": 0}])
def test_a_workload_that_can_not_be_is_refused(broken: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(broken))} must be at least"):
        Workload(**broken)  # type: ignore[arg-type]
