"""Mixture of experts: routed by score, by token hash in the first layers, by `bias_vl` inside image spans.

Shapes: N tokens (of all sequences), H hidden, X experts, k experts a token. Sources: reference sections 6.1, 6.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config
from .quantization import dequantize_fp4, fp4_scale_shape


class Gate(nn.Module):
    """Chooses k experts for each token and weighs them. Biases move the choice, never the weights."""

    tid2eid: Tensor

    def __init__(self, config: Config, hashed: bool) -> None:
        super().__init__()
        self.config, self.hashed = config, hashed
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.n_routed_experts), requires_grad=False)
        self.bias_vl = nn.Parameter(torch.zeros(config.n_routed_experts), requires_grad=False)
        if hashed:
            # Spread token ids evenly; a released checkpoint brings its own table.
            visits = torch.arange(config.vocab_size * config.num_experts_per_tok, device="cpu")
            table = (visits % config.n_routed_experts).view(config.vocab_size, config.num_experts_per_tok)
            self.register_buffer("tid2eid", table)

    def forward(self, x_NH: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """Expert numbers and weights, both [N, k]; ids from vocab_size on are image tokens."""
        k, vocab = self.config.num_experts_per_tok, self.config.vocab_size
        scores_NX = F.softplus(F.linear(x_NH.float(), self.weight.float())).sqrt()
        is_image_N1 = (ids_N >= vocab)[:, None]
        chosen_Nk = (scores_NX + torch.where(is_image_N1, self.bias_vl, self.bias)).topk(k, dim=-1).indices
        if self.hashed:
            chosen_Nk = torch.where(is_image_N1, chosen_Nk, self.tid2eid[ids_N.clamp(max=vocab - 1)])
        weights_Nk = scores_NX.gather(1, chosen_Nk)
        weights_Nk = weights_Nk / (weights_Nk.sum(dim=-1, keepdim=True) + 1e-20)
        return chosen_Nk, weights_Nk * self.config.routed_scaling_factor


class Expert(nn.Module):
    """SwiGLU with clamped inputs: w2(silu(min(w1 x, limit)) * clamp(w3 x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.limit = config.swiglu_limit
        self.w1 = nn.Linear(config.hidden_size, config.moe_intermediate_size, bias=False)
        self.w2 = nn.Linear(config.moe_intermediate_size, config.hidden_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.moe_intermediate_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w1(x).clamp(max=self.limit), self.w3(x).clamp(-self.limit, self.limit)
        return self.w2(F.silu(gate) * up)


class PackedLinear(nn.Module):
    """A matrix kept in FP4, half a byte a weight, and dequantised each time it is used."""

    weight: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_features, in_features // 2, dtype=torch.uint8))
        scale_shape = fp4_scale_shape(out_features, in_features)
        self.register_buffer("scale", torch.zeros(scale_shape, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, dequantize_fp4(self.weight, self.scale, x.dtype))


class MixtureOfExperts(nn.Module):
    """k routed experts a token, and one shared by all."""

    def __init__(self, config: Config, hashed: bool) -> None:
        super().__init__()
        self.gate = Gate(config, hashed)
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.n_routed_experts))
        self.shared_experts = Expert(config)

    def pack(self) -> None:
        """Make room for the routed experts in FP4 instead: a ninth of fp32. Their weights are lost; load them anew."""
        for expert in self.experts:
            for name, matrix in list(expert.named_children()):
                assert isinstance(matrix, nn.Linear), f"{name} is a {type(matrix).__name__}, packed already?"
                setattr(expert, name, PackedLinear(matrix.in_features, matrix.out_features))

    def forward(self, x_BTH: Tensor, ids_BT: Tensor) -> Tensor:
        x_NH = x_BTH.flatten(0, 1)
        chosen_Nk, weights_Nk = self.gate(x_NH, ids_BT.flatten())
        # Sort the N * k visits by expert, so that each expert runs once over a contiguous run of rows.
        visits = chosen_Nk.flatten().argsort(stable=True)
        token_of = visits // chosen_Nk.shape[1]
        counts = chosen_Nk.flatten().bincount(minlength=len(self.experts)).tolist()
        runs = x_NH[token_of].split(counts)
        out = torch.cat([expert(run) for expert, run in zip(self.experts, runs, strict=True) if len(run)])
        weighed = out * weights_Nk.flatten()[visits, None].to(out.dtype)
        routed_NH = torch.zeros_like(x_NH).index_add(0, token_of, weighed)
        return (routed_NH + self.shared_experts(x_NH)).view_as(x_BTH)
