"""The engine behind an endpoint: every question is answered or explained, at the server's pace, whatever it sends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from model.request import Completion, Request, RequestError
from model.sampling import Sampling
from pipeline import pacing
from pipeline.engines.endpoint import Endpoint
from pipeline.engines.frames import frame_of
from pipeline.engines.openai_engine import OpenAIEngine
from tests.pipeline.chat_server import Answer, Asked, Server, after, completion, free_port, serving


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_FIRST_PAUSE_SECONDS", 0.02)


Ask = Callable[[OpenAIEngine, Server], Awaitable[Any]]


def request(*questions: str, size: tuple[int, int] = (90, 60), **more: Any) -> Request:
    return Request(Image.new("RGB", size, (200, 30, 30)), questions or ("how many cups?",), 16, **more)


def run(answer: Answer, ask: Ask, frame: str = "json", **settings: Any) -> Any:
    """What `ask` returns, asked of an engine in front of a server that answers so; nothing else of its loop is left."""

    async def whole() -> Any:
        async with serving(answer) as (server, url):
            engine = OpenAIEngine(Endpoint(url, "m", **settings), frame_of(frame))
            try:
                return await ask(engine, server)
            finally:
                engine.close()

    return asyncio.run(whole())


async def one(engine: OpenAIEngine, server: Server) -> Any:
    (outcome,) = await engine.answer(request())
    return outcome, server


def replies(*responses: Callable[[], web.Response]) -> Answer:
    """One response after the other, the last one again and again."""

    async def answer(asked: Asked) -> web.Response:
        return responses[min(asked.number, len(responses) - 1)]()

    return answer


def failing(status: int, **headers: str) -> Callable[[], web.Response]:
    body = {"error": {"message": f"no, {status}"}}
    return lambda: web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def good() -> web.Response:
    return completion("3")


def test_each_question_is_asked_with_the_image_at_the_size_that_the_model_will_see() -> None:
    async def ask(engine: OpenAIEngine, server: Server) -> tuple[Any, Server]:
        return await engine.answer(request("where?", "what?", size=(2000, 1000), primitives=("on", "off"))), server

    outcomes, server = run(replies(good), ask, frame="qwen2.5-vl", max_pixels=200_000)
    assert [(one.text, one.usage.prompt_tokens, one.usage.output_tokens) for one in outcomes] == [("3", 20, 5)] * 2
    assert [one.usage.pointing for one in outcomes] == [True, False]
    by_text = sorted(server.asked, key=lambda asked: len(asked.text))
    assert by_text[0].text == "what?"
    assert '"bbox_2d"' in by_text[1].text
    for asked in by_text:
        assert asked.image.size == (644, 308)  # multiples of 28 within 200,000 pixels
        assert asked.body["temperature"] == 0
        assert "seed" not in asked.body


def test_sampling_is_handed_on_and_each_question_has_a_seed_of_its_own() -> None:
    async def ask(engine: OpenAIEngine, server: Server) -> Server:
        await engine.answer(request("a", "b", sampling=Sampling(0.7, 0.9, 5)))
        return server

    server = run(replies(good), ask)
    assert sorted(asked.body["seed"] for asked in server.asked) == [5, 6]
    assert {(asked.body["temperature"], asked.body["top_p"]) for asked in server.asked} == {(0.7, 0.9)}


def test_the_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "planted")
    _, server = run(replies(good), one, key_variable="OTHER_KEY")
    assert server.asked[0].headers["Authorization"] == "Bearer planted"
    monkeypatch.delenv("OTHER_KEY")
    _, server = run(replies(good), one, key_variable="OTHER_KEY")
    assert "Authorization" not in server.asked[0].headers


def test_thinking_beside_the_answer_goes_before_it() -> None:
    outcome, _ = run(replies(lambda: completion("3", reasoning_content="one, two, three")), one)
    assert outcome.text == "one, two, three</think>3"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_body_that_says_no_is_an_error_and_never_an_answer(status: int) -> None:
    outcome, server = run(replies(failing(status)), one)
    assert isinstance(outcome, RequestError)
    assert (outcome.kind, str(outcome), outcome.attempts) == (f"http_{status}", f"HTTP {status}: no, {status}", 1)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "bad",
    [
        lambda: web.Response(text="<html>busy</html>"),
        lambda: web.json_response({"choices": []}),
        lambda: web.json_response([]),
        lambda: web.json_response({"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}),
        lambda: web.json_response({"choices": [{"message": {"content": "3"}, "finish_reason": "content_filter"}]}),
        failing(500),
        failing(503),
    ],
)
def test_garbage_and_failures_are_tried_again_a_stated_number_of_times(bad: Callable[[], web.Response]) -> None:
    outcome, server = run(replies(bad, good), one)
    assert isinstance(outcome, Completion)
    assert len(server.asked) == 2
    outcome, server = run(replies(bad), one, attempts=2)
    assert isinstance(outcome, RequestError)
    assert outcome.attempts == len(server.asked) == 2


def test_a_redirect_is_not_followed() -> None:
    outcome, server = run(replies(failing(307, Location="http://127.0.0.1:9/v1/chat/completions")), one)
    assert outcome.kind == "http_307"
    assert len(server.asked) == 1


def test_an_answer_that_does_not_come_is_cut_off() -> None:
    outcome, _ = run(lambda asked: after(30, "3"), one, timeout_s=0.05, attempts=2)
    assert (outcome.kind, outcome.attempts) == ("timeout", 2)


def test_nothing_is_sent_before_a_stated_wait_is_over() -> None:
    refused_at: list[float] = []

    async def answer(asked: Asked) -> web.Response:
        if asked.number == 3:
            refused_at.append(time.monotonic())
            return failing(429, Retry_After="0.6")()
        return await after(0.01, "3")

    async def ask(engine: OpenAIEngine, server: Server) -> tuple[list[Any], Server]:
        return await asyncio.gather(*(engine.answer(request()) for _ in range(40))), server

    outcomes, server = run(answer, ask, in_flight=2)
    assert all(isinstance(outcome, Completion) for (outcome,) in outcomes)
    later = [asked for asked in server.asked if asked.number > 3]
    # One may have been on its way when the refusal was written; then nothing until the time is over.
    assert sum(asked.at < refused_at[0] + 0.6 for asked in later) <= 1
    assert len(server.asked) == 41


def test_a_used_up_budget_is_waited_for_before_the_next_request() -> None:
    async def answer(asked: Asked) -> web.Response:
        response = completion("3")
        response.headers.update({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"})
        return response

    async def ask(engine: OpenAIEngine, server: Server) -> Server:
        for _ in range(2):
            await engine.answer(request())
        return server

    first, second = run(answer, ask).asked
    assert second.at - first.at >= 0.3


def test_a_server_that_sends_refusals_failures_and_garbage_answers_everybody_in_the_end() -> None:
    dice: dict[str, random.Random] = {}  # each question's own, so that what it meets does not hang on who asks first

    async def answer(asked: Asked) -> web.Response:
        kind = dice.setdefault(asked.text, random.Random(asked.text)).random()
        if kind < 1 / 3:
            return failing(429, Retry_After="0.01")()
        if kind < 1 / 3 + 1 / 10:
            return failing(500)()
        if kind < 1 / 3 + 1 / 10 + 1 / 20:
            return web.Response(text="garbage")
        return completion(asked.text.partition("\n")[0])

    async def ask(engine: OpenAIEngine, server: Server) -> tuple[list[Any], Server]:
        return await asyncio.gather(*(engine.answer(request(f"question {n}")) for n in range(200))), server

    outcomes, server = run(answer, ask, in_flight=16)
    assert [outcome.text for (outcome,) in outcomes] == [f"question {n}" for n in range(200)]
    assert server.most <= 16


def test_a_server_that_is_not_there_for_a_while_loses_nothing() -> None:
    port = free_port()

    async def whole() -> list[Any]:
        engine = OpenAIEngine(Endpoint(f"http://127.0.0.1:{port}/v1", "m"), frame_of("json"))
        asked = asyncio.gather(*(engine.answer(request()) for _ in range(8)))
        await asyncio.sleep(0.3)
        async with serving(replies(good), port):
            outcomes = await asked
            engine.close()
        return outcomes

    assert [type(outcome) for (outcome,) in asyncio.run(whole())] == [Completion] * 8


def test_a_server_that_never_comes_is_an_error_when_patience_is_over() -> None:
    async def whole() -> Any:
        endpoint = Endpoint(f"http://127.0.0.1:{free_port()}/v1", "m", patience_s=0.1)
        engine = OpenAIEngine(endpoint, frame_of("json"))
        (outcome,) = await engine.answer(request())
        engine.close()
        return outcome

    outcome = asyncio.run(whole())
    assert outcome.kind == "unreachable"
    assert outcome.attempts > 1


def test_a_stated_wait_beyond_patience_is_an_error_at_once() -> None:
    outcome, server = run(replies(failing(429, Retry_After="3600")), one)
    assert (outcome.kind, outcome.attempts, len(server.asked)) == ("http_429", 1, 1)


def test_waiting_for_a_turn_takes_none_of_a_requests_patience() -> None:
    async def answer(asked: Asked) -> web.Response:
        return failing(429, Retry_After="0.01")() if asked.number == 5 else await after(0.1, "3")

    async def ask(engine: OpenAIEngine, server: Server) -> list[Any]:
        return await asyncio.gather(*(engine.answer(request()) for _ in range(6)))

    outcomes = run(answer, ask, in_flight=1, patience_s=0.4)
    assert all(isinstance(outcome, Completion) for (outcome,) in outcomes)


def test_counters_add_up() -> None:
    async def ask(engine: OpenAIEngine, server: Server) -> Any:
        await engine.answer(request("a", "b"))
        return engine.stats()

    stats = run(replies(good), ask)
    assert (stats.requests, stats.answers, stats.prompt_tokens, stats.output_tokens) == (1, 2, 40, 10)


@pytest.mark.parametrize("url", ["example.com/v1", "ftp://example.com/v1", "https://key@example.com/v1", "https:///v1"])
def test_an_address_that_is_none_or_holds_a_key_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="an endpoint is http"):
        Endpoint(url, "m")
    with pytest.raises(ValueError, match="which model"):
        replace(Endpoint("https://example.com/v1", "m"), model="")
