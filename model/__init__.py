"""The compressed-cache vision-language model. Needs torch, numpy, pillow, safetensors and tokenizers; no Ray."""

from .weights import load

__all__ = ["load"]
