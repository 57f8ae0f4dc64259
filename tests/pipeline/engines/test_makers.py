"""How a run comes by its engines, and what its answers depend on."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine import NativeEngine
from model.request import Completion, Request
from pipeline.engines.makers import ENGINES, Plan, conditions, kv_budget_bytes
from pipeline.settings import Settings
from tests.pipeline.noop import Noop
from tests.pipeline.pictures import picture


def plan(**settings: object) -> Plan:
    return Plan.of(Settings.of(settings), "run-1")


def test_the_budget_is_what_was_set_or_small_on_a_cpu() -> None:
    assert kv_budget_bytes(plan(kv_budget_mb=3, device="cpu")) == 3_000_000
    assert kv_budget_bytes(plan(device="cpu")) == 64_000_000


def test_the_native_engine_is_known_by_its_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    native = ENGINES["native"]
    here = replace(plan(kv_budget_mb=8, device="cpu"), checkpoint=str(tiny_checkpoint))
    engine = native.make(here)
    assert engine.revision == native.revision(here) == conditions(here, native).model_revision
    assert engine.stats().kv_budget_bytes == 8_000_000
    engine.close()
    with pytest.raises(ValueError, match="is not a checkpoint"):
        native.revision(replace(here, checkpoint=str(tmp_path)))


def test_a_seed_is_a_condition_only_where_something_is_drawn() -> None:
    assert conditions(plan(seed=1), Noop()) == conditions(plan(seed=2), Noop())
    assert conditions(plan(seed=1, temperature=1), Noop()) != conditions(plan(seed=2, temperature=1), Noop())


def test_any_engine_that_keeps_the_protocol_will_do() -> None:
    import asyncio

    engine = Noop().make(plan())
    (completion,) = asyncio.run(engine.answer(Request(picture(), ("How many words?",))))
    assert isinstance(completion, Completion)
    assert completion.text == "</think>3" and engine.stats().answers == 1


def test_vllm_is_known_by_its_weights_before_it_is_started_and_sees_as_its_family_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm = ENGINES["vllm"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if it were installed
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    here = plan(engine="vllm", model=str(tmp_path), gpus_per_actor=2, requests_in_flight=9, request_seconds=3)
    assert vllm.revision(here) == ENGINES["transformers"].revision(here)
    assert vllm.view(here).canvas((100, 50)) == (112, 56, False)
    assert vllm.view(replace(here, frame="json")).canvas((100, 50)) is None
    assert (here.gpus, here.requests_in_flight, here.request_seconds) == (2, 9, 3)
    with pytest.raises(ValueError, match=r"no vllm checkpoint at .*: give --model a folder"):
        vllm.revision(replace(here, checkpoint=str(tmp_path / "none")))


def test_a_missing_vllm_is_named_at_once_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[vllm\]"'):
        ENGINES["vllm"].revision(plan(engine="vllm", model=str(tmp_path)))


def test_an_engine_that_nobody_brings_is_an_error() -> None:
    with pytest.raises(ValueError, match="engine"):
        plan(engine="vlllm")


def test_the_native_engine_keeps_its_cache_in_the_format_asked_for(tiny_checkpoint: Path) -> None:
    for kind in ("auto", "fp8"):
        engine = ENGINES["native"].make(plan(model=str(tiny_checkpoint), kv_dtype=kind, device="cpu", kv_budget_mb=1))
        try:
            assert isinstance(engine, NativeEngine) and engine.cache.layout.attention.fp8 == (kind == "fp8")
        finally:
            engine.close()
