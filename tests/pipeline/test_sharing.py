"""Equal questions about equal bytes are asked once, at the same time or later, and everybody gets an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from model.engine import Completion, Usage
from pipeline.sharing import Asked, SharedAnswers


class Engine:
    """Answers a question with its own words, and remembers what it was asked."""

    def __init__(self, fails: int = 0) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._fails = fails

    async def ask(self, asked: tuple[Asked, ...]) -> list[Completion]:
        self.asked.append(tuple(one.question for one in asked))
        await asyncio.sleep(0)
        if len(self.asked) <= self._fails:
            raise ValueError("broken")
        return [
            Completion(f"{one.question}/{one.mode}", (1,), "stop", 0.5, Usage(1, 1, 1, 1, 1, False)) for one in asked
        ]


def asked(*questions: str, mode: Any = "auto") -> tuple[Asked, ...]:
    return tuple(Asked(question, mode, place) for place, question in enumerate(questions))


def together(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)

    return asyncio.run(run())


def test_a_duplicate_under_way_and_a_later_one_get_the_first_ones_answers() -> None:
    async def run() -> list[Any]:
        engine, answers = Engine(), SharedAnswers(sampled=False)
        first, second = await asyncio.gather(
            answers.get("aa", asked("a", "b"), engine.ask), answers.get("aa", asked("b", "c"), engine.ask)
        )
        later = await answers.get("aa", asked("c"), engine.ask)
        return [engine.asked, first, second, later]

    got, first, second, later = asyncio.run(run())
    assert got == [("a", "b"), ("c",)]
    assert [(one.completion.text, one.was_shared) for one in first] == [("a/auto", False), ("b/auto", False)]
    assert [(one.completion.text, one.was_shared) for one in second] == [("b/auto", True), ("c/auto", False)]
    assert [(one.completion.text, one.was_shared) for one in later] == [("c/auto", True)]


def test_other_bytes_questions_or_modes_are_asked() -> None:
    engine, answers = Engine(), SharedAnswers(sampled=False)
    together(
        lambda: answers.get("aa", asked("a"), engine.ask),
        lambda: answers.get("bb", asked("a"), engine.ask),
        lambda: answers.get("aa", asked("A"), engine.ask),
        lambda: answers.get("aa", asked("a", mode="off"), engine.ask),
    )
    assert len(engine.asked) == 4


def test_a_question_that_stands_twice_is_asked_once() -> None:
    engine, answers = Engine(), SharedAnswers(sampled=False)
    (got,) = together(lambda: answers.get("aa", asked("a", "b", "a"), engine.ask))
    assert engine.asked == [("a", "b")]
    assert [(one.completion.text, one.was_shared) for one in got] == [
        ("a/auto", False), ("b/auto", False), ("a/auto", True),
    ]  # fmt: skip


def test_when_answers_are_drawn_only_whole_lists_are_shared() -> None:
    async def run() -> list[tuple[str, ...]]:
        engine, answers = Engine(), SharedAnswers(sampled=True)
        for questions in (("a", "b"), ("b",), ("a", "b"), ("a", "a")):
            await answers.get("aa", asked(*questions), engine.ask)
        return engine.asked

    assert asyncio.run(run()) == [("a", "b"), ("b",), ("a", "a")]


def test_an_error_reaches_all_who_wait_and_is_not_remembered() -> None:
    async def run() -> Any:
        engine, answers = Engine(fails=1), SharedAnswers(sampled=False)
        both = await asyncio.gather(
            *(answers.get("aa", asked("a"), engine.ask) for _ in range(2)), return_exceptions=True
        )
        return both, await answers.get("aa", asked("a"), engine.ask), engine.asked

    both, later, got = asyncio.run(run())
    assert [str(error) for error in both] == ["broken", "broken"]
    assert later[0].completion.text == "a/auto" and not later[0].was_shared and len(got) == 2


def test_who_is_cut_off_leaves_nobody_waiting() -> None:
    async def run() -> Any:
        answers, never = SharedAnswers(sampled=False), asyncio.Event()

        async def hangs(_: tuple[Asked, ...]) -> list[Completion]:
            await never.wait()
            return []

        first = asyncio.create_task(answers.get("aa", asked("a"), hangs))
        await asyncio.sleep(0)
        second = asyncio.create_task(answers.get("aa", asked("a"), hangs))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    with pytest.raises(RuntimeError, match="cut off"):
        asyncio.run(run())


def test_no_more_is_remembered_than_was_promised() -> None:
    async def run() -> tuple[int, list[tuple[str, ...]]]:
        engine, answers = Engine(), SharedAnswers(sampled=False, remembered=3)
        for question in ("a", "b", "c", "a", "d", "a", "b"):
            await answers.get("aa", asked(question), engine.ask)
        return len(answers._answers), engine.asked

    held, got = asyncio.run(run())
    assert held == 3 and got == [("a",), ("b",), ("c",), ("d",), ("b",)]
