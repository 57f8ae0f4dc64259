from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.tasks.products import COLORS, KINDS, aspect, paint


def pixels(seed: int, kind: str, color: str, width: int, height: int) -> NDArray[np.uint8]:
    """A product's colours and coverage, one above the other."""
    patch, coverage = paint(np.random.default_rng(seed), kind, color, width, height)
    return np.dstack([np.asarray(patch), np.asarray(coverage)])


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS), width=st.integers(8, 90), height=st.integers(8, 120))
def test_a_product_touches_all_four_sides_of_its_patch(seed: int, kind: str, width: int, height: int) -> None:
    patch, coverage = paint(np.random.default_rng(seed), kind, "red", width, height)
    assert patch.size == coverage.size == (width, height)
    assert coverage.getbbox() == (0, 0, width, height)


@pytest.mark.parametrize("kind", KINDS)
def test_a_colour_fills_more_of_its_product_than_any_other_does(kind: str) -> None:
    means = {}
    for color in COLORS:
        patch, coverage = paint(np.random.default_rng(3), kind, color, 40, 60)
        means[color] = np.median(np.asarray(patch, dtype=float)[np.asarray(coverage) == 255], axis=0)
    assert all(np.abs(means[a] - means[b]).max() > 40 for a in COLORS for b in COLORS if a < b)


def test_kinds_differ_in_outline_or_parts() -> None:
    patches = {kind: pixels(5, kind, "blue", 40, 50).astype(float) for kind in KINDS}
    assert len(KINDS) >= 8
    assert all(np.abs(patches[a] - patches[b]).mean() > 10 for a in KINDS for b in KINDS if a < b)


def test_the_same_generator_paints_the_same_product() -> None:
    one, two = (pixels(7, "cup", "pink", 33, 31).tobytes() for _ in range(2))
    assert one == two
    seen = {pixels(seed, "cup", "pink", 33, 31).tobytes() for seed in range(8)}
    assert len(seen) == 8


def test_aspects_stay_in_a_range_of_the_kind() -> None:
    rng = np.random.default_rng(0)
    wide = [aspect(rng, "bowl") for _ in range(50)]
    narrow = [aspect(rng, "bottle") for _ in range(50)]
    assert min(wide) > 1.4 and max(narrow) < 0.5 and len(set(wide)) == 50
