"""The compressed-cache vision-language model. `load` reads a checkpoint folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .weights import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, imported when it is asked for: whoever reads or writes rows needs some words of ours, and no torch."""
    if name == "load":
        from .weights import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
