"""The engine behind an OpenAI-compatible `/v1/chat/completions`: hosted, or vLLM, SGLang, Ray Serve of one's own.

Each question is a request of its own with the image in it, at the size that the model will see. What is refused (429)
or not there (no connection) is tried again until `patience_s` is over, at a pace learnt from the server; what fails
otherwise (5xx, timeouts, a body that is no completion) `attempts` times, with growing random pauses; any other status
is an error at once, in the server's words. Redirects are not followed: the key goes to the endpoint and nowhere else.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import aiohttp

from model.pointing import Decision, decide
from model.request import Completion, EngineDead, EngineStats, Request, RequestError, Usage

from ..pacing import HostGate, pause_seconds, stated_wait_seconds
from .chat import BadResponse, Turn, body_of, data_url, shown, turn_of
from .endpoint import Endpoint
from .frames import Frame

_MAX_BODY_BYTES = 16 << 20
_TRANSIENT = {408, 409, 425, 500, 502, 503, 504, 529}


class OpenAIEngine:
    """Answers requests by asking an endpoint. All calls must come from one event loop."""

    def __init__(self, endpoint: Endpoint, frame: Frame) -> None:
        self.endpoint, self.frame = endpoint, frame
        self.name, self.revision = endpoint.model, endpoint.revision
        self._url = endpoint.url.rstrip("/") + "/chat/completions"
        self._gate = HostGate(endpoint.in_flight, endpoint.patience_s)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._stats = EngineStats()

    async def answer(self, request: Request) -> list[Completion | RequestError]:
        """For each question its completion, or why there is none."""
        if self._closed:
            raise EngineDead("the engine is closed")
        decisions = [decide(q, mode) for q, mode in zip(request.questions, request.modes, strict=True)]
        sent = self.frame.sent_size(request.image.size, self.endpoint.max_pixels)
        url = await asyncio.to_thread(data_url, request.image, sent)
        self._stats.requests += 1
        asked = (self._complete(request, url, number, decision) for number, decision in enumerate(decisions))
        return list(await asyncio.gather(*asked))

    def stats(self) -> EngineStats:
        """A copy of the counters."""
        return replace(self._stats, idle_reasons=dict(self._stats.idle_reasons))

    def close(self) -> None:
        """No more questions; what is under way fails. May be called from any thread, while the loop runs."""
        self._closed = True
        if self._session is not None and not self._session.closed:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop)

    async def _complete(self, request: Request, url: str, number: int, decision: Decision) -> Completion | RequestError:
        question = self.frame.ask(request.questions[number], decision.point)
        body = body_of(self.endpoint.model, url, question, request.max_output_tokens, request.sampling, number)
        turn = await self._turn(body)
        if isinstance(turn, RequestError):
            return turn
        self._stats.answers += 1
        self._stats.prompt_tokens += turn.prompt_tokens or 0
        self._stats.output_tokens += turn.output_tokens or 0
        usage = Usage(None, turn.prompt_tokens, turn.output_tokens, None, None, False, *decision)
        return Completion(turn.text, (), turn.finish_reason, None, usage)

    async def _turn(self, body: bytes) -> Turn | RequestError:
        """One question, asked until it is answered or there is a reason to stop."""
        failures = tries = 0
        give_up_at = math.inf
        while True:
            tries += 1
            async with self._gate as entered:
                outcome = await self._post(body)
            if isinstance(outcome, Turn):
                self._gate.succeeded()
                return outcome
            pause = pause_seconds(tries) if outcome.wait_s is None else outcome.wait_s
            if outcome.refused:
                self._gate.too_many(entered, pause)
            give_up_at = min(give_up_at, entered + self.endpoint.patience_s)  # waiting for a first turn is no fault
            failures += not outcome.waits
            last = time.monotonic() + pause > give_up_at if outcome.waits else failures >= self.endpoint.attempts
            if outcome.final or last:
                return RequestError(outcome.kind, outcome.message, tries)
            await asyncio.sleep(pause)

    async def _post(self, body: bytes) -> Turn | _Failure:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout_s)
            self._loop = asyncio.get_running_loop()
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.endpoint.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                content = await _bounded(response)
                wait_s = stated_wait_seconds(response.headers, datetime.now(UTC))
                if response.status != 200:
                    return _failure(response.status, content, wait_s)
                if wait_s is not None:  # this was the last request of a stated budget
                    self._gate.close(wait_s)
                return turn_of(content)
        except BadResponse as error:
            return _Failure("bad_response", str(error))
        except TimeoutError:
            return _Failure("timeout", f"no answer within {self.endpoint.timeout_s:g} s")
        except aiohttp.ClientConnectorError as error:
            return _Failure("unreachable", str(error), waits=True)
        except aiohttp.ClientError as error:
            return _Failure("broken_off", f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Failure:
    """Why there is no turn. `waits`: the server was not there or wanted less, which time may cure; `refused`: it said
    so; `final`: trying again can't help."""

    kind: str
    message: str
    wait_s: float | None = None
    waits: bool = False
    refused: bool = False
    final: bool = False


def _failure(status: int, content: bytes, wait_s: float | None) -> _Failure:
    refused = status == 429
    final = not refused and status not in _TRANSIENT
    return _Failure(f"http_{status}", f"HTTP {status}: {shown(content)}", wait_s, refused, refused, final)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > _MAX_BODY_BYTES:
            raise BadResponse(f"the body is longer than {_MAX_BODY_BYTES:,} bytes")
    return bytes(content)
