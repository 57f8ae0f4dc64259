"""What an actor that answers reserves of Ray: CPUs and GPUs of one node, or a placement group for a model in parts.

vLLM splits a model among workers of its own, one for each GPU; they take the GPUs, the actor beside them none.
"""

from __future__ import annotations

import math
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from .runtime import reserved_cpus
from .settings import Settings


class Placement:
    """Where the actors of one run go. `close` gives back what Ray would keep for as long as the driver lives."""

    def __init__(self, settings: Settings) -> None:
        self._cpus = reserved_cpus(settings)
        self._gpus = settings.gpus_per_actor
        self._is_split = settings.engine == "vllm" and self._gpus > 1
        self._groups: list[PlacementGroup] = []

    def arguments(self) -> dict[str, Any]:
        """What `map_batches` is told of it."""
        if not self._is_split:
            return {"num_cpus": self._cpus, "num_gpus": self._gpus or None}
        return {"num_cpus": self._cpus, "num_gpus": 0, "ray_remote_args_fn": self._in_a_group}

    def close(self) -> None:
        for group in self._groups:
            remove_placement_group(group)
        self._groups.clear()

    def _in_a_group(self) -> dict[str, Any]:
        """For one more actor: as many bundles as GPUs, on one node if one has them, with the actor in the first."""
        bundles: list[dict[str, float]] = [{"GPU": 1} for _ in range(math.ceil(self._gpus))]
        bundles[0]["CPU"] = self._cpus
        group = placement_group(bundles, strategy="PACK")
        self._groups.append(group)
        here: Any = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        return {"scheduling_strategy": here}
