"""What answers: the protocol that every engine keeps, and how a run comes by one.

A `Maker` travels to the actors, so it is picklable. `ENGINES` are those that this project brings; a run may be given
any other.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from model.config import Config
from model.pointing import PrimitivesMode
from model.request import Completion, EngineStats, Request, RequestError
from model.sampling import Sampling
from model.weights import revision

from ..keys import Conditions
from ..settings import Settings, require_checkpoint
from .endpoint import Endpoint
from .frames import Frame, frame_of
from .views import NativeView, SentView, View

VLLM_INSTALL = 'pip install -e ".[vllm]"'
_CPU_KV_BUDGET_MB = 64


@dataclass(frozen=True)
class Plan:
    """What an actor needs to know. See the settings of the same names."""

    run_id: str
    checkpoint: str
    device: str
    dtype: str
    kv_dtype: str
    kv_budget_mb: int | None
    kv_share: float
    max_output_tokens: int
    primitives: PrimitivesMode
    sampling: Sampling
    images_in_flight: int
    image_seconds: float
    threads: int
    decoding: tuple[int, int, float]  # most bytes and pixels of an image, and seconds to decode it
    frame: str | None = None
    send_pixels: int = 1_000_000
    batch: int = 8
    endpoint: Endpoint | None = None
    gpus: int = 0
    requests_in_flight: int | None = None
    request_seconds: float = 120.0

    @staticmethod
    def of(settings: Settings, run_id: str) -> Plan:
        return Plan(
            run_id=run_id,
            checkpoint=str(Path(settings.model).expanduser().absolute()),
            device=settings.device,
            dtype=settings.dtype,
            kv_dtype=settings.kv_dtype,
            kv_budget_mb=settings.kv_budget_mb,
            kv_share=settings.kv_share,
            max_output_tokens=settings.max_output_tokens,
            primitives=settings.primitives,
            sampling=Sampling(settings.temperature, settings.top_p, settings.seed),
            images_in_flight=settings.images_in_flight,
            image_seconds=settings.image_seconds,
            threads=max(1, round(settings.cpus_per_actor)),
            decoding=(settings.max_image_bytes, settings.max_image_pixels, settings.decode_seconds),
            frame=settings.frame,
            send_pixels=settings.send_pixels,
            batch=settings.batch,
            endpoint=Endpoint.of(settings) if settings.endpoint else None,
            gpus=math.ceil(settings.gpus_per_actor),
            requests_in_flight=settings.requests_in_flight,
            request_seconds=settings.request_seconds,
        )


class Engine(Protocol):
    """Answers requests, many at a time, on any event loop."""

    name: str
    revision: str

    async def answer(self, request: Request) -> Sequence[Completion | RequestError]:
        """For each question, in order, its completion or why there is none. Raises RequestError: this request can't be
        at all; EngineDead: nothing can."""
        ...

    def stats(self) -> EngineStats: ...
    def close(self) -> None: ...


class Maker(Protocol):
    """How a run comes by its engines. `kind` names it; `revision` is what its answers depend on beside the settings,
    `view` how it sees images, both known without starting it. ValueError from them when there is nothing to start."""

    @property
    def kind(self) -> str: ...
    def revision(self, plan: Plan) -> str: ...
    def view(self, plan: Plan) -> View: ...
    def make(self, plan: Plan) -> Engine: ...


class Native:
    """The engine of this project, with a checkpoint from a folder."""

    kind = "native"

    def revision(self, plan: Plan) -> str:
        require_checkpoint(plan.checkpoint)
        return revision(plan.checkpoint)

    def view(self, plan: Plan) -> View:
        return NativeView(Config.from_file(Path(plan.checkpoint) / "config.json"))

    def make(self, plan: Plan) -> Engine:
        from model.engine import NativeEngine

        return NativeEngine(
            plan.checkpoint,
            kv_budget_bytes=kv_budget_bytes(plan),
            device=plan.device,
            dtype=plan.dtype,
            kv_dtype=plan.kv_dtype,
            max_output_tokens=plan.max_output_tokens,
        )


class OpenAI:
    """An endpoint that somebody else runs; `model` is its name there, and nobody tells its weights."""

    kind = "openai"

    def revision(self, plan: Plan) -> str:
        return _endpoint(plan).revision

    def view(self, plan: Plan) -> View:
        return SentView(_frame(plan), plan.send_pixels)

    def make(self, plan: Plan) -> Engine:
        from .openai_engine import OpenAIEngine

        return OpenAIEngine(_endpoint(plan), _frame(plan))


class _FromFolder:
    """What two makers share: a model in a folder, in the layout of transformers, with its family's frame."""

    kind: str

    def revision(self, plan: Plan) -> str:
        if not (Path(plan.checkpoint) / "config.json").is_file():
            raise ValueError(f"no {self.kind} checkpoint at {plan.checkpoint}: give --model a folder with config.json")
        return revision(plan.checkpoint)

    def view(self, plan: Plan) -> View:
        return SentView(self._frame(plan), plan.send_pixels)

    def _frame(self, plan: Plan) -> Frame:
        """As set, or that of the family that the checkpoint says it is of."""
        raw = json.loads((Path(plan.checkpoint) / "config.json").read_text(encoding="utf-8"))
        kind = str(raw.get("model_type", ""))
        return _frame(plan, next((frame for prefix, frame in _FAMILIES if kind.startswith(prefix)), "json"))


class Transformers(_FromFolder):
    """Any image-text model of transformers, from a folder."""

    kind = "transformers"

    def make(self, plan: Plan) -> Engine:
        from .transformers_engine import TransformersEngine

        return TransformersEngine(
            plan.checkpoint,
            self._frame(plan),
            batch=plan.batch,
            max_pixels=plan.send_pixels,
            device=plan.device,
            dtype=plan.dtype,
        )


class Vllm(_FromFolder):
    """Any image-text model that vLLM can run, from a folder."""

    kind = "vllm"

    def revision(self, plan: Plan) -> str:
        # Said at once: an actor that can't be made is tried again for minutes.
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(f"--engine vllm needs its libraries, here and on the workers: {VLLM_INSTALL}")
        return super().revision(plan)

    def make(self, plan: Plan) -> Engine:
        from .vllm_engine import Shape, VllmEngine

        shape = Shape(
            max_pixels=plan.send_pixels,
            seconds=plan.request_seconds,
            in_flight=plan.requests_in_flight,
            kv_bytes=plan.kv_budget_mb and plan.kv_budget_mb * 1_000_000,
            gpus=plan.gpus,
            threads=plan.threads,
            device=plan.device,
            dtype=plan.dtype,
            draws=plan.sampling.temperature > 0,
        )
        return VllmEngine(plan.checkpoint, self._frame(plan), shape)


# How model types begin, in transformers' configurations, and in which frame such models answer.
_FAMILIES = (("deepseek", "deepseek"), ("qwen2_5_vl", "qwen2.5-vl"), ("qwen3_vl", "qwen3-vl"))

ENGINES: dict[str, Maker] = {maker.kind: maker for maker in (Native(), OpenAI(), Transformers(), Vllm())}


def view_of(settings: Settings) -> View:
    """How the engine that the settings name sees images. ValueError when there is nothing to start."""
    plan, maker = Plan.of(settings, ""), ENGINES[settings.engine]
    maker.revision(plan)
    return maker.view(plan)


def _frame(plan: Plan, unset: str = "json") -> Frame:
    return frame_of(plan.frame or unset)


def _endpoint(plan: Plan) -> Endpoint:
    if plan.endpoint is None:
        raise ValueError(
            "--engine openai needs an address to ask and a model there: --endpoint https://HOST/v1 --model"
        )
    return plan.endpoint


def conditions(plan: Plan, maker: Maker) -> Conditions:
    """What the run's answers depend on, as far as no row says otherwise."""
    drawn = plan.sampling.temperature > 0
    return Conditions(
        engine=maker.kind,
        frame=None if maker.kind == "native" else plan.frame,
        send_pixels=None if maker.kind == "native" else plan.send_pixels,
        model_revision=maker.revision(plan),
        max_output_tokens=plan.max_output_tokens,
        primitives=plan.primitives,
        temperature=plan.sampling.temperature,
        top_p=plan.sampling.top_p if drawn else None,
        seed=plan.sampling.seed if drawn else None,
    )


def kv_budget_bytes(plan: Plan) -> int:
    """The KV budget of one engine: as set, or a share of the GPU's free memory, or a small one for a CPU."""
    if plan.kv_budget_mb is not None:
        return plan.kv_budget_mb * 1_000_000
    if plan.device != "cpu" and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free * plan.kv_share)
    return _CPU_KV_BUDGET_MB * 1_000_000
