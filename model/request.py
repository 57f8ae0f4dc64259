"""What goes into an engine and what comes out: requests, completions, errors, counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from .pointing import PrimitivesMode
from .sampling import GREEDY, Sampling


class RequestError(ValueError):
    """This one request, or one question of it, can't be answered; others can. `kind` is a word for tables."""

    def __init__(self, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.attempts = attempts


class EngineDead(RuntimeError):
    """The engine can't go on; its process should end so that its work moves elsewhere."""


@dataclass(frozen=True)
class Request:
    """One image with its questions. `image` is RGB, upright; at most `max_output_tokens` for each response.

    `primitives`: the mode of each question; none given means on for all.
    """

    image: Image.Image
    questions: tuple[str, ...]
    max_output_tokens: int = 256
    primitives: tuple[PrimitivesMode, ...] = ()
    sampling: Sampling = GREEDY

    def __post_init__(self) -> None:
        if len(self.primitives) not in (0, len(self.questions)):
            raise ValueError(f"{len(self.primitives)} primitives modes for {len(self.questions)} questions: one each")

    @property
    def modes(self) -> tuple[PrimitivesMode, ...]:
        """The mode of each question."""
        return self.primitives or tuple("on" for _ in self.questions)


@dataclass(frozen=True)
class Usage:
    """What one answer took; None where an engine can't tell. Tokens as the model counts them; `kv_entries` = CSA
    entries of the image in one layer; `kv_bytes` = what the question's sequence held of the cache, pages shared with
    its siblings included; `shared_prefill` = the image was prefilled for an earlier question of the request;
    `pointing` = whether the answer was to point, and why."""

    image_tokens: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    kv_entries: int | None
    kv_bytes: int | None
    shared_prefill: bool
    pointing: bool = True
    pointing_reason: str = ""


@dataclass(frozen=True)
class Completion:
    """One response: thinking, `</think>`, answer, tags kept. `confidence` is the geometric mean of the probabilities
    of the tokens that the grammar left open, at temperature 1 whatever they were drawn at; None where an engine gives
    no probabilities."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    confidence: float | None
    usage: Usage


@dataclass
class EngineStats:
    """Counters since the engine started; times in seconds. Busy and idle are of the engine's own thread.

    `sequence_steps`: the questions that ran in each step, summed; by `steps`, how full the batch was.
    `images_seen`: passes through the vision tower, one for all requests in flight that show the same pixels.
    `budget_full_s`: of the busy time, that in which requests waited because the KV budget had no room for them.
    """

    busy_s: float = 0.0
    idle_s: float = 0.0
    budget_full_s: float = 0.0
    idle_reasons: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    sequence_steps: int = 0
    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    kv_budget_bytes: int = 0
    kv_peak_bytes: int = 0
    kv_bytes_predicted: int = 0
    kv_bytes_measured: int = 0
    images_in_flight_peak: int = 0
    images_seen: int = 0
