"""Whole sequences at once give what the model's own forward gives, and the same gradients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.attention import AttentionTrace
from model.prompt import Tokenizer
from model.training import whole
from model.training.batches import Batch, collate
from model.training.examples import encode, material
from model.vision_language_model import VisionLanguageModel
from tests.conftest import DEFAULT_CHECKPOINT
from tests.tiny import TINY, tiny_model

ALL_SEEN = replace(TINY, index_topk=1 << 20, vision_max_n_token=64)
TOKENIZER = Tokenizer(DEFAULT_CHECKPOINT)
EXACT = whole.How()


def a_batch() -> Batch:
    drawn = [encode(material("counting/easy", seed), ALL_SEEN, TOKENIZER) for seed in range(40)]
    grids = [(example.geometry.rows, example.geometry.columns) for example in drawn]
    common = max(set(grids), key=grids.count)
    return collate([e for e, grid in zip(drawn, grids, strict=True) if grid == common][:3], ALL_SEEN)


def image_tokens(model: VisionLanguageModel, batch: Batch) -> Tensor:
    rows, columns = batch.rows * 3, batch.columns * 3
    features = whole.see(model.vision, batch.patches_BN.float(), batch.seen_BN, rows, columns, EXACT)
    return whole.align(model.aligner, features, batch.rows, batch.columns, EXACT)[:, batch.order]


def test_images_that_fill_their_cells_in_part_look_as_they_do_to_the_model() -> None:
    model = tiny_model(ALL_SEEN)
    drawn = [encode(material("counting/easy", seed), ALL_SEEN, TOKENIZER) for seed in range(40)]
    uneven = [e for e in drawn if e.geometry.patch_rows % 3 and e.geometry.patch_columns % 3][:3]
    assert len(uneven) == 3
    for example in uneven:
        ours = image_tokens(model, collate([example], ALL_SEEN))
        assert torch.allclose(ours, model.see(example.patches[None], example.geometry), atol=1e-4)


def test_hidden_states_and_weights_equal_the_models_own() -> None:
    model, batch = tiny_model(ALL_SEEN), a_batch()
    embeddings = model.embed_prompt(batch.ids_BT, image_tokens(model, batch))
    hidden, looked, after = whole.forward(model, embeddings, batch.ids_BT, EXACT)
    count, length = batch.ids_BT.shape
    trace: list[AttentionTrace] = []
    inner: list[Tensor] = []
    positions = torch.arange(length).expand(count, -1)
    own, _ = model(embeddings, batch.ids_BT, positions, model.empty_state(count), trace=trace, inner=inner)
    assert torch.allclose(hidden, own, atol=2e-4), (hidden - own).abs().max()
    for seen, theirs in zip(looked, trace, strict=True):
        assert torch.allclose(seen.weights_BATK, theirs.probabilities_BATK, atol=1e-4)
        if theirs.index_scores_BTE is not None:
            assert seen.scores_BTE is not None and torch.allclose(seen.scores_BTE, theirs.index_scores_BTE, atol=1e-3)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(after, inner, strict=True))


def test_gradients_equal_the_models_own() -> None:
    model, batch = tiny_model(ALL_SEEN).requires_grad_(True), a_batch()
    count, length = batch.ids_BT.shape
    features = image_tokens(model, batch).detach()
    positions = torch.arange(length).expand(count, -1)
    direction = torch.randn(count, length, TINY.hidden_size, generator=torch.Generator().manual_seed(0))
    gradients = []
    for fast in (True, False):
        model.zero_grad()
        embeddings = model.embed_prompt(batch.ids_BT, features)
        if fast:
            hidden, _, _ = whole.forward(model, embeddings, batch.ids_BT, EXACT)
        else:
            hidden, _ = model(embeddings, batch.ids_BT, positions, model.empty_state(count))
        (hidden * direction).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for name, theirs in gradients[1].items():
        if "indexer" not in name:
            scale = theirs.abs().max().clamp(min=1e-3)
            assert ((gradients[0][name] - theirs).abs().max() / scale) < 2e-3, name


def test_the_indexers_best_entries_alone_are_seen_when_it_is_sparse() -> None:
    config = replace(ALL_SEEN, index_topk=3)
    model, batch = tiny_model(config), a_batch()
    embeddings = model.embed_prompt(batch.ids_BT, image_tokens(model, batch))
    length = batch.ids_BT.shape[1]
    for sparse in (True, False):
        _, looked, _ = whole.forward(model, embeddings, batch.ids_BT, whole.How(sparse=sparse))
        seen = looked[1]
        assert seen.scores_BTE is not None
        used = (seen.weights_BATK[:, :, :, length:] > 0).any(dim=1).sum(-1)  # entries of each token
        visible = (torch.arange(length) + 1) // 4
        if sparse:
            ties = (seen.scores_BTE == 0).sum(-1)  # ReLU's zeros are seen together
            assert bool((used <= torch.minimum(visible.expand_as(used), 3 + ties)).all())
        else:
            assert torch.equal(used, visible.expand_as(used))


def test_tokens_are_counted_by_the_expert_they_chose_text_and_image_apart() -> None:
    model, batch = tiny_model(ALL_SEEN), a_batch()
    embeddings = model.embed_prompt(batch.ids_BT, image_tokens(model, batch))
    _, looked, _ = whole.forward(model, embeddings, batch.ids_BT, EXACT)
    image = int((batch.ids_BT >= TINY.vocab_size).sum())
    for seen in looked:
        assert seen.load_2X.sum(dim=1).tolist() == [2 * (batch.ids_BT.numel() - image), 2 * image]
