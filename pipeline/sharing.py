"""Equal questions about equal bytes, asked once: the others get the same completion, or the same error.

Kept in an actor's memory for the last questions only. Duplicates that lie further apart, or that Ray gives to
different actors, are asked again: that costs time, never a wrong or missing row.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from model.pointing import PrimitivesMode
from model.request import Completion, RequestError

REMEMBERED = 4096  # questions with their completions: some kB each


class Asked(NamedTuple):
    """One question of an image, with its place in the image's list."""

    question: str
    mode: PrimitivesMode
    place: int


class Shared(NamedTuple):
    """A completion, or why there is none, and whether it was made for another row of the same bytes."""

    completion: Completion | RequestError
    was_shared: bool


class _Key(NamedTuple):
    image_sha256: str
    asked: Asked
    beside: tuple[Asked, ...]


class SharedAnswers:
    """The last answers by (hash of the bytes, question), those under way too. On one event loop.

    `sampled`: what is drawn for a question depends on its place among the others, so only whole lists are shared.
    """

    def __init__(self, sampled: bool, remembered: int = REMEMBERED) -> None:
        self._sampled = sampled
        self._remembered = remembered
        self._answers: OrderedDict[_Key, asyncio.Future[Completion | RequestError]] = OrderedDict()

    async def get(
        self,
        image_sha256: str,
        asked: tuple[Asked, ...],
        ask: Callable[[tuple[Asked, ...]], Awaitable[Sequence[Completion | RequestError]]],
    ) -> list[Shared]:
        """The completions of an image's questions, in order. `ask` is called for those that nobody asked lately;
        what it raises is raised here, and to all who wait for the same."""
        if self._sampled:
            keys = [_Key(image_sha256, one, asked) for one in asked]
        else:
            keys = [_Key(image_sha256, one._replace(place=0), ()) for one in asked]
        mine: dict[_Key, Asked] = {}
        for key, one in zip(keys, asked, strict=True):
            if key not in self._answers:
                mine.setdefault(key, one)
        new_future = asyncio.get_running_loop().create_future
        futures = {key: self._answers.get(key) or new_future() for key in keys}
        for key in keys:
            self._answers[key] = futures[key]
            self._answers.move_to_end(key)
        while len(self._answers) > self._remembered:
            self._answers.popitem(last=False)
        if mine:
            await self._make(mine, futures, ask)
        # A question that stands twice in one list is asked once as well, for its first place.
        authors = {id(one) for one in mine.values()}
        return [Shared(await futures[key], id(one) not in authors) for key, one in zip(keys, asked, strict=True)]

    async def _make(
        self,
        mine: dict[_Key, Asked],
        futures: dict[_Key, asyncio.Future[Completion | RequestError]],
        ask: Callable[[tuple[Asked, ...]], Awaitable[Sequence[Completion | RequestError]]],
    ) -> None:
        try:
            completions = await ask(tuple(mine.values()))
        except BaseException as error:
            for key in mine:
                if self._answers.get(key) is futures[key]:
                    del self._answers[key]  # not remembered: a later row may have more luck
                futures[key].set_exception(error if isinstance(error, Exception) else RuntimeError("was cut off"))
                futures[key].exception()  # seen, even when nobody else waits
            raise
        for key, completion in zip(mine, completions, strict=True):
            futures[key].set_result(completion)
            if isinstance(completion, RequestError) and self._answers.get(key) is futures[key]:
                del self._answers[key]
