"""Which model a name speaks of. What the shapes come to is tested with the footprint."""

from __future__ import annotations

import pytest

from pipeline.footprint.backbones import peer_of


@pytest.mark.parametrize(
    ("model", "peer"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "8B class (Qwen3-VL-8B)"),
        ("qwen3-vl-235b-a22b", "Qwen3-VL-235B"),
        ("qwen2.5-vl-72b-instruct-awq", "70B class (Qwen2.5-VL-72B)"),
        ("Qwen3-VL-80B", None),
        ("Qwen3-VL-8BX", None),
        ("default", None),
        ("", None),
    ],
)
def test_a_models_name_finds_its_public_shape(model: str, peer: str | None) -> None:
    found = peer_of(model)
    assert (found and found.name) == peer
