"""What an actor reserves: its node's CPUs and GPUs, or a placement group that is given back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import get_current_placement_group, placement_group_table

from model.request import Completion, Request
from pipeline.engines.makers import Engine, Plan
from pipeline.placement import Placement
from pipeline.settings import Settings
from tests.pipeline.noop import Noop, NoopEngine
from tests.pipeline.tables import answers, ran_noop, write_catalog


@pytest.mark.parametrize("settings", [{}, {"engine": "vllm", "gpus_per_actor": 1}, {"gpus_per_actor": 2}])
def test_an_actor_whose_model_is_whole_reserves_its_gpus_itself(settings: dict[str, Any]) -> None:
    arguments = Placement(Settings(cpus_per_actor=4, **settings)).arguments()
    assert arguments == {"num_cpus": 3.5, "num_gpus": settings.get("gpus_per_actor")}


class _Sitting(NoopEngine):
    async def answer(self, request: Request) -> list[Completion]:
        group = get_current_placement_group()
        gpus = [bundle.get("GPU", 0) for bundle in group.bundle_specs] if group else []
        own = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
        (made,) = await super().answer(request)
        return [Completion(f"</think>{gpus} {own}", made.token_ids, "stop", 1.0, made.usage)]


@dataclass(frozen=True)
class _Seat(Noop):
    def make(self, plan: Plan) -> Engine:
        return _Sitting()


@pytest.mark.slow
def test_an_actor_whose_model_is_in_parts_sits_beside_its_gpus_and_the_run_gives_them_back(tmp_path: Path) -> None:
    assert not ray.is_initialized(), "a Ray with GPUs, if only in name, of its own"
    ray.init(address="local", num_cpus=4, num_gpus=4, include_dashboard=False, log_to_driver=False)
    try:
        catalog = write_catalog(tmp_path / "c.parquet", 40, ["Where?"])
        ran_noop(catalog, tmp_path / "out", _Seat(), engine="vllm", gpus_per_actor=2, actors=2)
        assert {row["answer"] for row in answers(tmp_path / "out")} == {"[1.0, 1.0] 0"}
        groups = placement_group_table().values()
        assert len(groups) == 2 and {group["state"] for group in groups} == {"REMOVED"}
    finally:
        ray.shutdown()
