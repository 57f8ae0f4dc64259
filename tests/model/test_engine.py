"""The engine: the same tokens as the reference, under its budget, and honest when it can't."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import primitives
from model.dense import DenseRunner
from model.engine import Completion, EngineDead, NativeEngine, Request, RequestError
from model.packed import PackedRunner
from model.pointing import PrimitivesMode
from model.reference import generate
from model.sampling import Sampling
from pipeline.settings import BUNDLED_MODEL as DEFAULT
from pipeline.speed.command import draw_requests

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
    assert first.confidence is not None
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
    pointing, plain = (completion.usage.prompt_tokens or 0 for completion in completions)
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


def test_equal_images_in_flight_are_seen_once_and_others_are_not(engine: NativeEngine) -> None:
    before = engine.stats().images_seen
    same, other = request_number(0), request_number(4)
    copy = replace(same, image=same.image.copy(), questions=("where is the star?",))
    pixels = np.array(same.image)
    pixels[5, 5] ^= 255
    nearly = replace(same, image=Image.fromarray(pixels))
    answers = ask(engine, same, copy, nearly, other, same)
    assert engine.stats().images_seen - before == 3
    patience = 500
    while engine.pictures.held and (patience := patience - 1):  # the engine's thread lets go after it has answered
        time.sleep(0.01)
    assert not engine.pictures.held  # nothing keeps the pixels of what is answered
    assert [one.token_ids for one in answers[0]] == [one.token_ids for one in answers[4]]
    wanted = generate(engine.model, engine.tokenizer, engine.grammar, copy.image, "where is the star?", 16)
    assert list(answers[1][0].token_ids) == wanted


def test_tokens_that_the_grammar_forces_take_no_step_of_their_own(engine: NativeEngine) -> None:
    before = engine.stats()
    requests = [request_number(index, 60) for index in range(6)]
    completions = [one for each in ask(engine, *requests) for one in each]
    after = engine.stats()
    forced = free = 0
    for completion in completions:
        place = engine.grammar.start("thinking")
        for number, token in enumerate(completion.token_ids):
            is_forced = engine.grammar.choice(place, 60 - number).only is not None
            forced, free = forced + is_forced, free + (not is_forced)
            place = engine.grammar.advance(place, token)
        ended = completion.finish_reason == "stop"
        free += ended and engine.grammar.choice(place, 60 - len(completion.token_ids)).only is None
    assert forced > 5
    # One for each choice: the first comes with the prompt, and after the last there is nothing to read.
    assert after.sequence_steps - before.sequence_steps == free


def test_without_numba_the_dense_runner_gives_the_same_answers(
    engine: NativeEngine, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request_number(index) for index in range(6)]
    wanted = [[c.token_ids for c in each] for each in ask(engine, *requests)]
    assert isinstance(engine.runner, PackedRunner)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plain = NativeEngine(tiny_checkpoint, kv_budget_bytes=BUDGET, device="cpu", max_output_tokens=40)
    assert isinstance(plain.runner, DenseRunner)
    assert [[c.token_ids for c in each] for each in ask(plain, *requests)] == wanted
    plain.close()


@pytest.mark.slow
def test_300_mixed_requests_to_the_shipped_checkpoint_get_the_tokens_of_the_reference() -> None:
    engine = NativeEngine(DEFAULT, kv_budget_bytes=12_000_000, device="cpu", dtype="float32", max_output_tokens=96)
    requests = []
    for index, drawn in enumerate(draw_requests(300, 4, 96)):
        limit, questions = (96, 24, 7)[index % 3], drawn.questions[: 1 + (index % 7 == 0) + 2 * (index % 11 == 0)]
        modes: tuple[PrimitivesMode, ...] = (("on", "auto", "off")[index % 3],) * len(questions)
        requests.append(Request(drawn.image, questions, limit, modes))
    answers = ask(engine, *requests)
    assert engine.stats().budget_full_s > 0
    for request, completions in zip(requests, answers, strict=True):
        for question, completion in zip(request.questions, completions, strict=True):
            wanted = generate(
                engine.model, engine.tokenizer, engine.grammar, request.image, question, request.max_output_tokens,
                completion.usage.pointing,
            )  # fmt: skip
            assert list(completion.token_ids) == wanted, (question, request.image.size)
    engine.cache.check_integrity()
    engine.close()
