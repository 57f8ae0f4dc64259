"""Loops over packed tokens, compiled for the CPU at hand by numba: what the packed forward pass does between products.

Each is one pass over its tokens, in fp32, without the GIL, so that a thread can run one for each core. They are the
formulas of `model/` once more, written out; tests hold them against it. Shapes: N tokens of all sequences, one after
the other, R rows (the tokens whose outputs are wanted), B sequences, S streams, H hidden, A heads, D head width.
"""

from __future__ import annotations

import contextlib
from pathlib import Path


def forget_stale(folder: Path) -> None:
    """Remove what numba compiled before any source in `folder` was last changed.

    It looks at the file of each function alone, not at those of the functions that are called from there.
    """
    changed = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for compiled in folder.glob("__pycache__/*.nb[ci]"):
        with contextlib.suppress(OSError):  # of another process that does the same, of a folder that is not ours
            if compiled.stat().st_mtime < changed:
                compiled.unlink()


forget_stale(Path(__file__).parent)
