"""What answers: the protocol that every engine keeps, and how a run comes by one.

A `Maker` travels to the actors, so it is picklable. `ENGINES` are those that this project brings; a run may be given
any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from model.config import Config
from model.pointing import PrimitivesMode
from model.request import Completion, EngineStats, Request
from model.sampling import Sampling
from model.weights import revision

from .keys import Conditions
from .settings import Settings, require_checkpoint

_CPU_KV_BUDGET_MB = 64


@dataclass(frozen=True)
class Plan:
    """What an actor needs to know. See the settings of the same names."""

    run_id: str
    checkpoint: str
    device: str
    dtype: str
    kv_budget_mb: int | None
    kv_share: float
    max_output_tokens: int
    primitives: PrimitivesMode
    sampling: Sampling
    images_in_flight: int
    image_seconds: float
    threads: int
    decoding: tuple[int, int, float]  # most bytes and pixels of an image, and seconds to decode it

    @staticmethod
    def of(settings: Settings, run_id: str) -> Plan:
        return Plan(
            run_id=run_id,
            checkpoint=str(Path(settings.model).expanduser().absolute()),
            device=settings.device,
            dtype=settings.dtype,
            kv_budget_mb=settings.kv_budget_mb,
            kv_share=settings.kv_share,
            max_output_tokens=settings.max_output_tokens,
            primitives=settings.primitives,
            sampling=Sampling(settings.temperature, settings.top_p, settings.seed),
            images_in_flight=settings.images_in_flight,
            image_seconds=settings.image_seconds,
            threads=max(1, round(settings.cpus_per_actor)),
            decoding=(settings.max_image_bytes, settings.max_image_pixels, settings.decode_seconds),
        )


class Engine(Protocol):
    """Answers requests, many at a time, on any event loop. `config` knows the frame of the numbers that it gives."""

    name: str
    revision: str
    config: Config

    async def answer(self, request: Request) -> list[Completion]:
        """One completion for each question, in order. RequestError: this request can't be; EngineDead: nothing can."""
        ...

    def stats(self) -> EngineStats: ...
    def close(self) -> None: ...


class Maker(Protocol):
    """How a run comes by its engines. `kind` names it; `revision` is what its answers depend on beside the settings,
    known without starting it. ValueError from `revision` when there is nothing to start."""

    @property
    def kind(self) -> str: ...
    def revision(self, plan: Plan) -> str: ...
    def make(self, plan: Plan) -> Engine: ...


class Native:
    """The engine of this project, with a checkpoint from a folder."""

    kind = "native"

    def revision(self, plan: Plan) -> str:
        require_checkpoint(plan.checkpoint)
        return revision(plan.checkpoint)

    def make(self, plan: Plan) -> Engine:
        from model.engine import NativeEngine

        return NativeEngine(
            plan.checkpoint,
            kv_budget_bytes=kv_budget_bytes(plan),
            device=plan.device,
            dtype=plan.dtype,
            max_output_tokens=plan.max_output_tokens,
        )


ENGINES: dict[str, Maker] = {maker.kind: maker for maker in (Native(),)}


def conditions(plan: Plan, maker: Maker) -> Conditions:
    """What the run's answers depend on, as far as no row says otherwise."""
    drawn = plan.sampling.temperature > 0
    return Conditions(
        engine=maker.kind,
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
