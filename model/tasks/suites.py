"""The suites by name: what the benchmark runs and training draws from."""

from __future__ import annotations

from model.tasks.path_tracing import PATH_TRACING
from model.tasks.suite import Suite

SUITES: dict[str, Suite] = {suite.name: suite for suite in (PATH_TRACING,)}


def suite_of(name: str) -> Suite:
    """The suite of this name. ValueError when there is none."""
    if name not in SUITES:
        raise ValueError(f"there is no suite {name!r}; choose from {', '.join(SUITES)}")
    return SUITES[name]
