"""A chat completions server on loopback for tests: it answers as it is told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from PIL import Image

Answer = Callable[["Asked"], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as the server saw it. `number` counts them from 0; `at` is time.monotonic()."""

    number: int
    at: float
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def text(self) -> str:
        return str(self.body["messages"][0]["content"][1]["text"])

    @property
    def image(self) -> Image.Image:
        url = self.body["messages"][0]["content"][0]["image_url"]["url"]
        assert url.startswith("data:image/jpeg;base64,"), url[:40]
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@dataclass
class Server:
    """`answer` decides what each request gets; `most` is the largest number that was open at once."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    most: int = 0

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            asked = Asked(len(self.asked), time.monotonic(), await request.json(), dict(request.headers))
            self.asked.append(asked)
            return await self.answer(asked)
        finally:
            self.open -= 1


def completion(text: str, **more: Any) -> web.Response:
    """What an endpoint answers; `more` replaces or adds fields of the message."""
    message = {"role": "assistant", "content": text} | more
    usage = {"prompt_tokens": 20, "completion_tokens": 5}
    return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


@asynccontextmanager
async def serving(answer: Answer, port: int = 0) -> AsyncIterator[tuple[Server, str]]:
    """The server, and its address up to /v1."""
    server = Server(answer)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", server.respond)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@contextmanager
def beside(answer: Answer) -> Iterator[tuple[Server, str]]:
    """The same on a thread of its own, for clients in other processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    served = serving(answer)
    try:
        yield asyncio.run_coroutine_threadsafe(served.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(served.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def free_port() -> int:
    """A port that nothing listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def after(seconds: float, text: str) -> web.Response:
    await asyncio.sleep(seconds)
    return completion(text)
