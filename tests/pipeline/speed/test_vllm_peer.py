"""The script that vLLM's python runs: it needs nothing of ours, and counts its weights right."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from pipeline.speed import vllm_peer
from pipeline.speed.vllm_peer import Work, config_of, parameters

WORK = Work(300, 64, 3, 4, 16, 48, 12, 4, [1, 8], 1, 2, "float32")


def test_it_imports_nothing_but_the_standard_library_and_vllm() -> None:
    tree = ast.parse(Path(vllm_peer.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names if name} - set(sys.stdlib_module_names) == {"vllm"}


def test_its_weights_are_those_of_the_model_that_the_config_describes() -> None:
    for work in (WORK, replace(WORK, intermediate_size=96, heads=2)):
        config = transformers.Qwen3Config(**config_of(work))
        with torch.device("meta"):
            model = transformers.Qwen3ForCausalLM(config)
        assert parameters(work) == sum(weight.numel() for weight in model.parameters())
