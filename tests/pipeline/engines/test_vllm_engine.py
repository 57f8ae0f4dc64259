"""The engine around vLLM: what it asks of vLLM, and what becomes of questions that vLLM does not answer.

vLLM itself is not needed here, a stand-in with its few methods answers; the trials run the real one.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from model.request import Completion, EngineDead, Request, RequestError
from model.sampling import GREEDY, Sampling
from pipeline.engines import vllm_engine
from pipeline.engines.frames import frame_of
from pipeline.engines.vllm_engine import Shape, VllmEngine, arguments_of, prepared, sampling_of
from tests.pipeline.pictures import picture

SHAPE = Shape(max_pixels=10_000, seconds=30)


class StandIn:
    """Answers each prompt with its own text, as vLLM would; `word` may say something else, or raise."""

    refusals = (LookupError,)
    most_running, kv_bytes = 4, 1000

    def __init__(self, checkpoint: str, shape: Shape, meter: Any) -> None:
        self.dead = False
        self.meter, self.inside, self.most = meter, 0, 0
        self.asked: list[tuple[str, str, tuple[int, int]]] = []
        self.schemas: list[Any] = []
        self.word: Callable[[str], str] = lambda text: text
        self.seconds = 0.001

    async def prompt(self, text: str, image: Image.Image, name: str) -> tuple[Any, int]:
        self.asked.append((name, text, image.size))
        return text, 10

    async def generate(self, prompt: Any, choosing: dict[str, Any], schema: Any, name: str) -> Any:
        self.schemas.append(schema)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(self.seconds)
            self.meter.record(SimpleNamespace(num_running_reqs=self.inside, kv_cache_usage=0.5))
            text = self.word(prompt)
        finally:
            self.inside -= 1
        made = SimpleNamespace(text=text, token_ids=[1, 2], cumulative_logprob=-1.0, finish_reason=text.split()[-1])
        return SimpleNamespace(outputs=[made], num_cached_tokens=6, prompt_token_ids=[0] * 20)

    def close(self) -> None:
        self.dead = True


@pytest.fixture
def engine(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> VllmEngine:
    monkeypatch.setattr(vllm_engine, "_Vllm", StandIn)
    return VllmEngine(str(tiny_checkpoint), frame_of("json"), SHAPE)


def inside(engine: VllmEngine) -> StandIn:
    return cast(StandIn, engine._vllm)


def answered(engine: VllmEngine, *requests: Request) -> list[list[Completion | RequestError]]:
    async def all_at_once() -> list[list[Completion | RequestError]]:
        return await asyncio.gather(*(engine.answer(each) for each in requests))

    return asyncio.run(all_at_once())


def asking(*questions: str, width: int = 50) -> Request:
    return Request(picture(width, 40), questions, 8, tuple("off" for _ in questions))


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "1")  # to be as it was afterwards
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[vllm\]"'):
        VllmEngine(str(tiny_checkpoint), frame_of("json"), SHAPE)


def test_the_model_is_split_among_the_actors_gpus_in_its_placement_group_if_it_sits_in_one() -> None:
    split = replace(SHAPE, gpus=4)
    assert "tensor_parallel_size" not in arguments_of("m", replace(SHAPE, gpus=1), False, True)
    for in_group, backend in ((True, "ray"), (False, "mp")):
        arguments = arguments_of("m", split, False, in_group)
        assert (arguments["tensor_parallel_size"], arguments["distributed_executor_backend"]) == (4, backend)


def test_memory_is_as_set_or_vllms_own_choice_and_never_all_of_a_machines() -> None:
    assert arguments_of("m", replace(SHAPE, kv_bytes=5), True, False)["kv_cache_memory_bytes"] == 5
    assert arguments_of("m", SHAPE, False, False)["kv_cache_memory_bytes"] is None
    assert arguments_of("m", SHAPE, True, False)["kv_cache_memory_bytes"] == 1_000_000_000
    assert arguments_of("m", SHAPE, True, False)["enable_prefix_caching"] is True


@pytest.mark.parametrize(("device", "on_cpu"), [("cuda", True), ("cpu", False)])
def test_a_device_that_vllm_was_not_built_for_is_refused(device: str, on_cpu: bool) -> None:
    with pytest.raises(ValueError, match=f"--device {device}, but this vLLM was built for"):
        arguments_of("m", replace(SHAPE, device=device), on_cpu, False)
    assert arguments_of("m", replace(SHAPE, device=device), not on_cpu, False)["model"] == "m"


def test_a_cpu_build_that_would_die_of_seeds_is_not_started_with_any() -> None:
    with pytest.raises(ValueError, match="can't draw by seeds on a CPU: --temperature 0"):
        arguments_of("m", replace(SHAPE, draws=True), True, False)
    assert arguments_of("m", replace(SHAPE, draws=True), False, False)["model"] == "m"


def test_tags_are_kept_and_a_question_draws_by_a_seed_of_its_own() -> None:
    greedy = sampling_of(GREEDY, 1, 8)
    assert greedy == {"max_tokens": 8, "skip_special_tokens": False, "logprobs": 0, "temperature": 0.0}
    drawn = sampling_of(Sampling(0.7, 0.9, 3), 1, 8)
    assert (drawn["temperature"], drawn["top_p"], drawn["seed"], drawn["skip_special_tokens"]) == (0.7, 0.9, 4, False)


def test_an_image_is_known_by_the_pixels_that_are_sent() -> None:
    _, name = prepared(picture(50, 40), (50, 40))
    assert prepared(picture(50, 40).copy(), (50, 40))[1] == name
    assert prepared(picture(50, 40, (0, 0, 5, 5)), (50, 40))[1] != name
    wide, high = Image.new("RGB", (40, 20)), Image.new("RGB", (20, 40))  # the same bytes
    assert prepared(wide, wide.size)[1] != prepared(high, high.size)[1]
    small, other = prepared(picture(50, 40), (25, 20))
    assert small.size == (25, 20) and other != name


def test_images_are_sent_at_the_size_of_the_view(engine: VllmEngine) -> None:
    answered(engine, Request(picture(400, 200), ("stop",), 8))
    ((_, _, size),) = inside(engine).asked
    assert size == engine.frame.sent_size((400, 200), SHAPE.max_pixels) != (400, 200)


def test_questions_come_back_in_order_and_those_of_an_image_go_in_together(engine: VllmEngine) -> None:
    requests = [asking("first stop", "second length", "third stop", width=50 + n) for n in range(6)]
    made = answered(engine, *requests)
    for outcomes in made:
        assert [each.text for each in outcomes if isinstance(each, Completion)] == list(requests[0].questions)
        assert [each.finish_reason for each in outcomes if isinstance(each, Completion)] == ["stop", "length", "stop"]
    names = [name for name, _, _ in inside(engine).asked]
    assert len(set(names)) == 6 and names == [name for name in dict.fromkeys(names) for _ in range(3)]


def test_no_more_questions_are_in_vllm_than_it_runs_and_a_few_that_wait(engine: VllmEngine) -> None:
    answered(engine, *(asking("a stop", "b stop", width=50 + n) for n in range(20)))
    assert inside(engine).most == StandIn.most_running + 1


def test_what_an_answer_took_is_counted(engine: VllmEngine) -> None:
    ((one, _),) = answered(engine, asking("a stop", "b stop"))
    assert isinstance(one, Completion)
    usage = one.usage
    assert (usage.image_tokens, usage.prompt_tokens, usage.output_tokens, usage.shared_prefill) == (10, 20, 2, True)
    assert one.confidence == pytest.approx(math.exp(-0.5))
    stats = engine.stats()
    assert (stats.requests, stats.answers, stats.prompt_tokens, stats.output_tokens) == (1, 2, 40, 4)
    assert (stats.steps, stats.kv_budget_bytes, stats.kv_peak_bytes, stats.images_in_flight_peak) == (2, 1000, 500, 1)
    assert stats.busy_s > 0


def test_only_a_question_that_is_to_point_is_held_to_the_frames_schema(engine: VllmEngine) -> None:
    answered(engine, Request(picture(), ("Where? stop", "Describe. stop"), 8, ("on", "off")))
    assert inside(engine).schemas == [engine.frame.schema(True), None]


def test_a_question_that_fails_is_an_error_of_its_own(engine: VllmEngine) -> None:
    def picky(text: str) -> str:
        if "Which" in text:
            raise RuntimeError("generation failed") from IndexError("no such token")
        if "Long" in text:
            raise LookupError("too long a prompt")
        return text

    inside(engine).word = picky
    ((good, bad, refused, aborted),) = answered(engine, asking("a stop", "Which?", "Long", "an abort"))
    assert isinstance(good, Completion)
    errors = [(each.kind, str(each)) for each in (bad, refused, aborted) if isinstance(each, RequestError)]
    assert errors == [
        ("engine_step", "IndexError: no such token"),
        ("engine_refused", "LookupError: too long a prompt"),
        ("engine_abort", "vLLM ended this question: abort"),
    ]


def test_a_question_whose_image_vllm_lost_is_prepared_and_asked_once_more(engine: VllmEngine) -> None:
    told = iter(["an error", "a stop", "an error", "an error"])
    inside(engine).word = lambda text: next(told)
    ((healed,),) = answered(engine, asking("x"))
    ((lost,),) = answered(engine, asking("x"))
    assert isinstance(healed, Completion) and healed.text == "a stop"
    assert isinstance(lost, RequestError) and lost.kind == "engine_error"
    assert len(inside(engine).asked) == 4


def test_a_question_that_takes_too_long_is_an_error_while_others_move_on(engine: VllmEngine) -> None:
    engine._shape = replace(SHAPE, seconds=0.2)
    inside(engine).seconds = 60

    async def with_steps_meanwhile() -> list[Completion | RequestError]:
        asked = asyncio.ensure_future(engine.answer(asking("a stop")))
        await asyncio.sleep(0.1)
        engine._meter.record()
        return await asked

    (late,) = asyncio.run(with_steps_meanwhile())
    assert isinstance(late, RequestError)
    assert (late.kind, str(late)) == ("timeout", "no answer within 0.2 s (--request-seconds)")


def test_an_engine_that_makes_no_step_all_the_time_is_dead(engine: VllmEngine) -> None:
    engine._shape = replace(SHAPE, seconds=0.05)
    inside(engine).seconds = 60
    with pytest.raises(EngineDead, match=r"no step within 0.05 s"):
        answered(engine, asking("a stop"))


def test_an_engine_that_is_gone_or_closed_answers_nobody(engine: VllmEngine) -> None:
    def dying(text: str) -> str:
        inside(engine).dead = True
        raise RuntimeError("the core is gone")

    inside(engine).word = dying
    with pytest.raises(EngineDead, match="the core is gone"):
        answered(engine, asking("a stop"))
    engine.close()
    with pytest.raises(EngineDead, match="closed"):
        answered(engine, asking("a stop"))
