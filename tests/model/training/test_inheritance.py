"""A model begins with what another has learnt."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from model import weights
from model.prompt import Tokenizer
from model.training.inheritance import inherit
from model.vision_language_model import VisionLanguageModel
from tests.conftest import DEFAULT_CHECKPOINT
from tests.tiny import TINY, tiny_model


def parent(folder: Path) -> VisionLanguageModel:
    model = tiny_model(replace(TINY, vocab_size=Tokenizer(DEFAULT_CHECKPOINT).vocab_size))
    weights.save(model, folder, torch.float32)
    shutil.copy(DEFAULT_CHECKPOINT / "tokenizer.json", folder)
    return model


def test_all_is_taken_over_when_nothing_differs(tmp_path: Path) -> None:
    model = parent(tmp_path)
    child = tiny_model(model.config, seed=1)
    assert inherit(child, Tokenizer(tmp_path), tmp_path) == []
    theirs = model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in child.state_dict().items())


def test_rows_of_tokens_go_by_their_text(tmp_path: Path) -> None:
    model = parent(tmp_path)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    text = (DEFAULT_CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer(DEFAULT_CHECKPOINT)
    red, blue = (tokenizer.piece_id(word) for word in ("red", "blue"))
    # the two words change places
    text = text.replace(f'"red":{red},', f'"red":{blue},').replace(f'"blue":{blue},', f'"blue":{red},')
    (renamed / "tokenizer.json").write_text(text, encoding="utf-8")
    child = tiny_model(model.config, seed=1)
    swapped = Tokenizer(renamed)
    assert (swapped.piece_id("red"), swapped.piece_id("blue")) == (blue, red)
    inherit(child, swapped, tmp_path)
    assert torch.equal(child.embed.weight[blue], model.embed.weight[red])
    assert torch.equal(child.head.weight[red], model.head.weight[blue])


def test_a_layer_that_compresses_otherwise_begins_with_the_means_of_its_keys(tmp_path: Path) -> None:
    model = parent(tmp_path)
    config = replace(model.config, compress_ratios=(0, 16, 4, 4))
    child = tiny_model(config, seed=1)
    missing = inherit(child, Tokenizer(tmp_path), tmp_path)
    assert {name.split(".")[1] for name in missing} == {"1", "2"}
    assert all("compressor" in name or "indexer" in name for name in missing)
    attention = list(child.each_layer())[2].attn
    assert torch.equal(attention.compressor.wkv.weight, attention.wkv.weight.repeat(2, 1))
    own = list(model.each_layer())[2].attn
    assert torch.equal(attention.wkv.weight, own.wkv.weight)
