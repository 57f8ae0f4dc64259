"""The engine: the same tokens as the reference, under its budget, and honest when it can't."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import primitives
from model.engine import Completion, EngineDead, NativeEngine, Request, RequestError
from model.reference import generate
from model.sampling import Sampling

SIZES = ((168, 168), (320, 240), (100, 300), (64, 64), (640, 200))
QUESTIONS = ("how many red circles are there?", "where is the star?", "is there a ring?", "Count.")
BUDGET = 600_000


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Iterator[NativeEngine]:
    engine = NativeEngine(tiny_checkpoint, kv_budget_bytes=BUDGET, device="cpu", max_output_tokens=40)
    yield engine
    engine.close()


def request_number(index: int, max_output_tokens: int = 16) -> Request:
    width, height = SIZES[index % len(SIZES)]
    pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Request(Image.fromarray(pixels), QUESTIONS[: 1 + index % len(QUESTIONS)], max_output_tokens)


def ask(engine: NativeEngine, *requests: Request) -> list[list[Completion]]:
    async def together() -> list[list[Completion]]:
        return await asyncio.gather(*(engine.answer(request) for request in requests))

    return asyncio.run(together())


def test_mixed_requests_get_the_tokens_of_the_reference(engine: NativeEngine) -> None:
    requests = [request_number(index, 8 + 4 * (index % 3)) for index in range(12)]
    for request, completions in zip(requests, ask(engine, *requests), strict=True):
        assert len(completions) == len(request.questions)
        for question, completion in zip(request.questions, completions, strict=True):
            wanted = generate(
                engine.model, engine.tokenizer, engine.grammar, request.image, question, request.max_output_tokens
            )
            assert list(completion.token_ids) == wanted
            assert primitives.well_formed(completion.text)


def test_what_was_predicted_is_what_was_held_and_never_passes_the_budget(engine: NativeEngine) -> None:
    ask(engine, *(request_number(index) for index in range(30)))
    stats = engine.stats()
    assert 0 < stats.kv_peak_bytes <= stats.kv_budget_bytes == BUDGET
    assert stats.kv_bytes_measured == stats.kv_bytes_predicted > 0
    assert stats.images_in_flight_peak > 1
    engine.cache.check_integrity()


def test_a_budget_for_few_makes_the_others_wait_and_changes_no_answer(
    engine: NativeEngine, tiny_checkpoint: Path
) -> None:
    requests = [request_number(index) for index in range(8)]
    tight = NativeEngine(tiny_checkpoint, kv_budget_bytes=80_000, device="cpu", max_output_tokens=40)
    narrow = ask(tight, *requests)
    tight.close()
    assert tight.stats().images_in_flight_peak < 8
    assert tight.stats().kv_peak_bytes <= 80_000
    wide = ask(engine, *requests)
    assert [[c.token_ids for c in each] for each in narrow] == [[c.token_ids for c in each] for each in wide]


def test_a_request_larger_than_the_whole_budget_is_an_error_at_once(engine: NativeEngine) -> None:
    huge = Request(request_number(0).image, QUESTIONS * 40, 40)
    with pytest.raises(RequestError, match="KV cache") as caught:
        ask(engine, huge)
    assert caught.value.kind == "kv_budget"
    assert ask(engine, request_number(1))  # and the engine goes on


def test_a_failed_step_fails_its_requests_and_not_the_engine(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_choose", lambda questions, logits: 1 / 0)
        with pytest.raises(RequestError, match="ZeroDivisionError"):
            ask(engine, request_number(2))
    assert ask(engine, request_number(2))
    engine.cache.check_integrity()


def test_an_engine_that_fails_every_step_says_so_and_dies(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = NativeEngine(tiny_checkpoint, kv_budget_bytes=BUDGET, device="cpu", max_output_tokens=40)
    monkeypatch.setattr(broken, "step", lambda: 1 / 0)
    with pytest.raises((RequestError, EngineDead)):
        ask(broken, request_number(0))
    with pytest.raises(EngineDead):
        ask(broken, request_number(0))
    broken.close()


def test_a_closed_engine_refuses(tiny_checkpoint: Path) -> None:
    closed = NativeEngine(tiny_checkpoint, kv_budget_bytes=BUDGET, device="cpu", max_output_tokens=40)
    closed.close()
    with pytest.raises(EngineDead):
        ask(closed, request_number(0))


def test_a_response_cut_by_length_is_well_formed_and_says_so(engine: NativeEngine) -> None:
    for limit in (1, 2, 5, 11):
        ((completion, *_),) = ask(engine, request_number(0, limit))
        assert len(completion.token_ids) <= limit
        assert primitives.well_formed(completion.text)
        if completion.finish_reason == "length":
            assert len(completion.token_ids) == limit


def test_usage_counts_the_image_once_and_its_entries(engine: NativeEngine) -> None:
    ((first, second),) = ask(engine, request_number(1))
    assert (first.usage.shared_prefill, second.usage.shared_prefill) == (False, True)
    assert first.usage.image_tokens == 26  # 320x240: 4 rows of 5 image tokens and a newline, START, END
    assert first.usage.kv_entries == 6
    assert 0 < first.confidence <= 1


def test_an_unknown_dtype_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        NativeEngine(tiny_checkpoint, kv_budget_bytes=BUDGET, dtype="float8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_tokens_of_the_cpu_in_fp32(engine: NativeEngine, tiny_checkpoint: Path) -> None:
    gpu = NativeEngine(tiny_checkpoint, kv_budget_bytes=BUDGET, device="cuda", dtype="float32", max_output_tokens=40)
    requests = [request_number(index) for index in range(8)]
    on_gpu, on_cpu = ask(gpu, *requests), ask(engine, *requests)
    gpu.close()
    assert [[c.token_ids for c in each] for each in on_gpu] == [[c.token_ids for c in each] for each in on_cpu]


def test_each_question_points_as_its_mode_says_and_the_reference_agrees(engine: NativeEngine) -> None:
    questions = ("how many red circles are there?", "describe the image.", "describe the image.", "where is it?")
    request = Request(request_number(1).image, questions, 24, ("auto", "auto", "on", "off"))
    (completions,) = ask(engine, request)
    usage = [(completion.usage.pointing, completion.usage.pointing_reason) for completion in completions]
    assert usage == [
        (True, "asks to count"), (False, "asks about the whole image"), (True, "as asked"), (False, "as asked"),
    ]  # fmt: skip
    for question, completion in zip(questions, completions, strict=True):
        wanted = generate(
            engine.model, engine.tokenizer, engine.grammar, request.image, question, 24, completion.usage.pointing
        )
        assert list(completion.token_ids) == wanted
        if not completion.usage.pointing:
            assert not primitives.parse(completion.text)


def test_the_checkpoints_trigger_stands_in_the_prompt_and_in_the_footprint(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "triggered"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "primitives.json").write_text('{"on": "{question} Mark each thing that you count with a box."}')
    engine = NativeEngine(folder, kv_budget_bytes=BUDGET, device="cpu", max_output_tokens=40)
    request = Request(request_number(0).image, ("how many?",) * 2, 8, ("on", "off"))
    (completions,) = ask(engine, request)
    pointing, plain = (completion.usage.prompt_tokens for completion in completions)
    words = engine.tokenizer.encode_plain("how many? Mark each thing that you count with a box.")
    assert pointing - plain == len(words) - len(engine.tokenizer.encode_plain("how many?"))
    assert engine.footprint(request).total_bytes == engine.stats().kv_bytes_measured
    engine.close()


def test_modes_that_do_not_match_the_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 primitives modes for 1 questions"):
        Request(request_number(0).image, ("how many?",), 8, ("on", "off"))


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_batch(engine: NativeEngine) -> None:
    def sampled(index: int, seed: int) -> Request:
        return replace(request_number(index), sampling=Sampling(1.0, 0.95, seed))

    together = ask(engine, *(sampled(index, 7) for index in range(6)), *(request_number(index) for index in range(6)))
    for index, completions in enumerate(together[:6]):
        (alone,) = ask(engine, sampled(index, 7))
        assert [c.token_ids for c in alone] == [c.token_ids for c in completions]
        for number, (question, completion) in enumerate(zip(sampled(index, 7).questions, completions, strict=True)):
            image, limit = request_number(index).image, request_number(index).max_output_tokens
            wanted = generate(
                engine.model, engine.tokenizer, engine.grammar, image, question, limit,
                sampling=Sampling(1.0, 0.95, 7), number=number,
            )  # fmt: skip
            assert list(completion.token_ids) == wanted
            assert primitives.well_formed(completion.text)
    (other,) = ask(engine, sampled(3, 8))
    assert [c.token_ids for c in other] != [c.token_ids for c in together[3]]
    assert together[6:] != together[:6]
