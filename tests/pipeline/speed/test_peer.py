"""transformers beside us: the same tokens, and a clear word when it is missing. Logits: tests/model/test_parity.py."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from pipeline.speed.peer import peer_generate, peer_of
from pipeline.speed.rates import native_generate
from tests.tiny import TINY, tiny_model


@pytest.mark.parametrize("scaled", [True, False])
def test_both_generate_the_same_tokens_far_beyond_the_window(scaled: bool) -> None:
    model = tiny_model(TINY if scaled else replace(TINY, rope_scaling=None))
    ids = torch.randint(TINY.vocab_size, (3, 21), generator=torch.Generator().manual_seed(7))
    ours = native_generate(model, ids, 40)
    assert ours.shape == (3, 40) and len(ours.unique()) > 10
    assert torch.equal(ours, peer_generate(peer_of(model), ids, 40))


def test_a_missing_transformers_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install -e \.\[dev\]"):
        peer_of(tiny_model(TINY))


def test_two_hca_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[8, 16\]"):
        peer_of(tiny_model(replace(TINY, compress_ratios=(8, 4, 16, 4))))
