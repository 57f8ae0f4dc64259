"""The language model: the layers, top to bottom.

Shapes: B sequences, T new tokens, S residual streams, H hidden, V vocabulary. Tensor names are the official ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .attention import Attention, AttentionTrace, LayerState, Tokens, describe_tokens
from .config import Config
from .experts import MixtureOfExperts
from .hyper_connections import close_block, collapse, open_block
from .layers import RMSNorm


class Layer(nn.Module):
    """Attention, then experts, each between an opening and a closing of the residual streams."""

    def __init__(self, config: Config, index: int) -> None:
        super().__init__()
        self.config = config
        self.attn = Attention(config, config.compress_ratios[index])
        self.ffn = MixtureOfExperts(config, hashed=index < config.num_hash_layers)
        self.attn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        mixing, width = (2 + config.hc_mult) * config.hc_mult, config.hc_mult * config.hidden_size
        self.hc_attn_fn = nn.Parameter(torch.zeros(mixing, width))
        self.hc_attn_base = nn.Parameter(torch.zeros(mixing))
        self.hc_attn_scale = nn.Parameter(torch.ones(3))
        self.hc_ffn_fn = nn.Parameter(torch.zeros(mixing, width))
        self.hc_ffn_base = nn.Parameter(torch.zeros(mixing))
        self.hc_ffn_scale = nn.Parameter(torch.ones(3))

    def forward(
        self, streams: Tensor, tokens: Tokens, state: LayerState, trace: list[AttentionTrace] | None
    ) -> tuple[Tensor, LayerState]:
        read, post, mix = open_block(streams, self.hc_attn_fn, self.hc_attn_base, self.hc_attn_scale, self.config)
        out, state = self.attn(self.attn_norm(read), tokens, state, trace)
        streams = close_block(streams, out, post, mix)
        read, post, mix = open_block(streams, self.hc_ffn_fn, self.hc_ffn_base, self.hc_ffn_scale, self.config)
        return close_block(streams, self.ffn(self.ffn_norm(read), tokens.ids_BT), post, mix), state


class LanguageModel(nn.Module):
    """Embeddings in, hidden states out, with a state for each layer that prefill, decode and fork all use."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        # Drawn as Embedding would, but a draw in place on "meta", where `load` builds models, imports torch's compiler.
        drawn = torch.randn(config.vocab_size, config.hidden_size)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size, _weight=drawn)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        streams = config.hc_mult
        self.hc_head_fn = nn.Parameter(torch.zeros(streams, streams * config.hidden_size))
        self.hc_head_base = nn.Parameter(torch.zeros(streams))
        self.hc_head_scale = nn.Parameter(torch.ones(1))

    def empty_state(self, batch: int) -> list[LayerState]:
        """The state of `batch` sequences before their first token."""
        return [layer.attn.empty_state(batch, self.embed.weight) for layer in self.each_layer()]

    def keep_in_fp8(self) -> None:
        """Round the entries that attention keeps, from now on, as the released model does."""
        for layer in self.each_layer():
            layer.attn.keep_in_fp8()

    def each_layer(self) -> Iterator[Layer]:
        """The layers, in order, as what they are."""
        for layer in self.layers:
            assert isinstance(layer, Layer), f"a {type(layer).__name__} among the layers"
            yield layer

    def forward(
        self,
        embeddings_BTH: Tensor,
        ids_BT: Tensor,
        positions_BT: Tensor,
        state: list[LayerState],
        trace: list[AttentionTrace] | None = None,
        inner: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[LayerState]]:
        """Run T new tokens; returns normed hidden states [B, T, H] and the next state.

        T = 1: each sequence may stand at its own position (decode). T > 1: all B start at one position (prefill), and
        an image span must lie whole within the T tokens. `ids_BT` holds vocab_size + TokenType inside image spans.
        `trace` collects what each layer attended to, `inner` the streams [B, T, S, H] after each layer.
        """
        tokens = describe_tokens(ids_BT, positions_BT, self.config)
        streams = embeddings_BTH[:, :, None].expand(-1, -1, self.config.hc_mult, -1)
        after = []
        for layer, layer_state in zip(self.each_layer(), state, strict=True):
            streams, layer_state = layer(streams, tokens, layer_state, trace)
            after.append(layer_state)
            if inner is not None:
                inner.append(streams)
        return self.norm(collapse(streams, self.hc_head_fn, self.hc_head_base, self.hc_head_scale, self.config)), after
