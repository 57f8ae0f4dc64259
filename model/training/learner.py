"""A model that learns in rounds, from what it draws itself; all that it needs to go on is in one file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from .. import weights
from ..vision_language_model import VisionLanguageModel

_CLIP_NORM = 1.0


class Learner:
    """Begins with a checkpoint, or where the file at `path` says that it stood.

    `history`: figures of each round that is done. The vision tower stays as it is.
    """

    def __init__(self, checkpoint: Path, path: Path, learning_rate: float, device: torch.device) -> None:
        loaded = weights.load(checkpoint)
        # A model of its own: what `load` gives has forgotten which of its tensors are learnt.
        self.model, self.path, self.device = VisionLanguageModel(loaded.config), path, device
        self.model.load_state_dict(loaded.state_dict())
        self.model.to(device).vision.requires_grad_(False)
        self.history: list[dict[str, float]] = []
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, lr=learning_rate, betas=(0.9, 0.97), weight_decay=0.0)
        if path.is_file():
            self._load()

    @property
    def round(self) -> int:
        """How many rounds are done."""
        return len(self.history)

    def step(self) -> None:
        """Take a step along the gradients that were gathered, and forget them."""
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def save(self) -> None:
        """Write weights, optimizer and history, in one safetensors file that replaces the last."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{kind}.{name}"] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        save_file(copies, partial, {"history": json.dumps(self.history)})
        partial.replace(self.path)

    def _load(self) -> None:
        with safe_open(self.path, "pt") as file:
            self.history = json.loads(file.metadata()["history"])
        tensors = load_file(self.path, str(self.device))
        self.model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
        for name, parameter in self.model.named_parameters():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.step.{name}" in tensors:
                state = {kind: tensors[f"optimizer.{kind}.{name}"] for kind in kinds}
                self.optimizer.state[parameter] = state | {"step": state["step"].cpu()}
