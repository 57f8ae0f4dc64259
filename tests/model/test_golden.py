"""The architecture against the reference data in tests/data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import attention
from model.config import Config
from model.image import TokenType, plan, span, to_patches
from model.vision import Aligner, VisionTransformer
from model.vision_language_model import VisionLanguageModel

DATA = Path(__file__).parent.parent / "data"


def test_the_image_span_equals_the_reference_token_for_token() -> None:
    cases = json.loads((DATA / "image_blocks.json").read_text())["cases"]
    assert cases
    for case in cases:
        width, height = case["image_wh"]
        geometry = plan(width, height, Config())
        assert [geometry.canvas_width, geometry.canvas_height] == case["resized_wh"]
        assert [geometry.patch_rows, geometry.patch_columns] == case["vit_grid_hw"]
        assert [geometry.rows, geometry.columns] == case["llm_grid_hw"]
        layout = span(geometry.rows, geometry.columns, case["start_position"])
        assert layout.types == case["token_types"]
        assert layout.order == case["image_order"]


def test_preprocessing_equals_the_reference_bit_for_bit_in_bf16() -> None:
    data = np.load(DATA / "preprocess.npz")
    settings = json.loads((DATA / "preprocess_config.json").read_text())
    config = Config(vision_max_n_token=settings["max_n_token"], vision_min_pixels=settings["min_pixels"])
    names = [name for name in data.files if name.startswith("pixels_")]
    assert names
    for name in names:
        number = name.removeprefix("pixels_")
        image = Image.fromarray(data[name])
        geometry = plan(*image.size, config)
        grid = [geometry.patch_rows, geometry.patch_columns, geometry.rows, geometry.columns]
        assert grid == data[f"grid_{number}"].tolist()
        assert torch.equal(to_patches(image, geometry, config), torch.from_numpy(data[f"patches_{number}"]).bfloat16())


def test_the_vision_tower_equals_the_reference() -> None:
    data = np.load(DATA / "vision_tower.npz")
    config = Config(**json.loads((DATA / "vision_tower_config.json").read_text()))
    tower, aligner = VisionTransformer(config), Aligner(config)
    for module, prefix in ((tower, "vision."), (aligner, "aligner.")):
        own = [name for name in data.files if name.startswith(prefix)]
        module.load_state_dict({name.removeprefix(prefix): torch.from_numpy(data[name]) for name in own})
    for case in range(3):
        rows, columns = data[f"case{case}.grid"].tolist()
        with torch.inference_mode():
            features = tower(torch.from_numpy(data[f"case{case}.patches"])[None], rows, columns)
            cells = aligner(features, rows, columns)
        assert (features[0] - torch.from_numpy(data[f"case{case}.vit_out"])).abs().max() <= 1e-4
        assert (cells[0] - torch.from_numpy(data[f"case{case}.aligner_out"])).abs().max() <= 1e-4


def test_the_language_model_with_an_image_span_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its scores have exact ties at 0, and the reference took those that torch.topk happened to take.
    monkeypatch.setattr(attention, "best_entries", lambda scores, count: scores.topk(count, dim=2).indices)
    data = np.load(DATA / "language_model.npz")
    raw = json.loads((DATA / "language_model_config.json").read_text())
    vision = {"vision_n_layers": 1, "vision_dim": 16, "vision_n_heads": 1, "vision_inter_dim": 8}
    model = VisionLanguageModel(Config.from_dict(raw | vision))
    weights = {name.removeprefix("weights/"): torch.from_numpy(data[name]) for name in data.files if "weights/" in name}
    missing = model.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    unused = ("vision.", "aligner.", "layers.0.ffn.gate.bias")
    assert all(name.startswith(unused) for name in missing.missing_keys)

    types, ids = torch.from_numpy(data["token_types"]), torch.from_numpy(data["token_ids"])
    ids = torch.where(types >= 0, model.config.vocab_size + types, ids)
    first = int((types >= 0).nonzero()[0])
    layout = span(3, 4, first)
    assert layout.types == types[first : first + len(layout.types)].tolist()
    assert layout.types.count(TokenType.IMAGE) == len(data["image_embeddings"])
    features = torch.from_numpy(data["image_embeddings"])[layout.order]
    with torch.inference_mode():
        embeddings = model.embed_prompt(ids[None], features[None])
        hidden, _ = model(embeddings, ids[None], torch.arange(len(ids))[None], model.empty_state(1))
        logits = model.head(hidden)[0]
    assert (logits - torch.from_numpy(data["logits"])).abs().max() <= 1e-3
