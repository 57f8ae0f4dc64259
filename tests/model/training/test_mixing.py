"""Streams spelt out are those of the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.hyper_connections import close_block, open_block
from model.training.mixing import close_streams, open_streams
from tests.tiny import TINY


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_opening_and_closing_equal_the_models_own(streams: int) -> None:
    config = replace(TINY, hc_mult=streams)
    generator = torch.Generator().manual_seed(streams)
    mixing = (2 + streams) * streams
    x = torch.randn(2, 5, streams, config.hidden_size, generator=generator)
    fn = torch.randn(mixing, streams * config.hidden_size, generator=generator) * 0.2
    base, scale = torch.randn(mixing, generator=generator), torch.randn(3, generator=generator)
    out = torch.randn(2, 5, config.hidden_size, generator=generator)
    read, post, mix = open_streams(x, fn, base, scale, config)
    own_read, own_post, own_mix = open_block(x, fn, base, scale, config)
    assert torch.allclose(read, own_read, atol=1e-5)
    assert torch.allclose(torch.cat(post, dim=-1), own_post, atol=1e-5)
    ours = torch.stack([torch.cat(row, dim=-1) for row in mix], dim=-2)
    assert torch.allclose(ours, own_mix, atol=1e-5)
    assert torch.allclose(close_streams(x, out, post, mix), close_block(x, out, own_post, own_mix), atol=1e-5)
