"""Compiled loops are those of the sources at hand."""

from __future__ import annotations

import os
from pathlib import Path

from model.kernels import forget_stale


def test_what_was_compiled_before_any_source_changed_is_removed(tmp_path: Path) -> None:
    compiled = tmp_path / "__pycache__"
    compiled.mkdir()
    for name, age in (("one.py", 50), ("two.py", 10)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    for name, age in (("one.f-1.nbi", 30), ("one.f-1.1.nbc", 30), ("two.g-1.nbi", 5), ("two.cpython-311.pyc", 40)):
        (compiled / name).touch()
        os.utime(compiled / name, (1000 - age, 1000 - age))
    forget_stale(tmp_path)
    assert sorted(path.name for path in compiled.iterdir()) == ["two.cpython-311.pyc", "two.g-1.nbi"]
