from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.tasks import pictograms
from model.tasks.products import COLORS, KINDS, OWN_KINDS, aspect, kinds, paint, plural


def pixels(seed: int, kind: str, color: str, width: int, height: int) -> NDArray[np.uint8]:
    """A product's colours and coverage, one above the other."""
    patch, coverage = paint(np.random.default_rng(seed), kind, color, width, height)
    return np.dstack([np.asarray(patch), np.asarray(coverage)])


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10_000), kind=st.sampled_from(OWN_KINDS), width=st.integers(8, 90), height=st.integers(8, 120)
)
def test_a_product_touches_all_four_sides_of_its_patch(seed: int, kind: str, width: int, height: int) -> None:
    patch, coverage = paint(np.random.default_rng(seed), kind, "red", width, height)
    assert patch.size == coverage.size == (width, height)
    assert coverage.getbbox() == (0, 0, width, height)


@settings(deadline=None, max_examples=100)
@given(kind=st.sampled_from(KINDS), room=st.floats(14, 120))
def test_a_product_drawn_at_its_aspect_comes_out_at_that_size(kind: str, room: float) -> None:
    rng = np.random.default_rng(0)
    ratio = aspect(rng, kind)
    patch, coverage = paint(rng, kind, "red", math.floor(room * ratio), math.floor(room))
    assert abs(patch.width - room * ratio) <= 1.5 and abs(patch.height - room) <= 1.5
    assert coverage.getbbox() == (0, 0, *patch.size), "ink on all four sides"


@pytest.mark.parametrize("kind", KINDS)
def test_a_colour_fills_more_of_its_product_than_any_other_does(kind: str) -> None:
    means = {}
    for color in COLORS:
        patch, coverage = paint(np.random.default_rng(3), kind, color, 40, 60)
        means[color] = np.median(np.asarray(patch, dtype=float)[np.asarray(coverage) == 255], axis=0)
    assert all(np.abs(means[a] - means[b]).max() > 40 for a in COLORS for b in COLORS if a < b)


def test_kinds_differ_in_outline_or_parts() -> None:
    patches = {kind: pixels(5, kind, "blue", 40, 50).astype(float) for kind in OWN_KINDS}
    assert len(OWN_KINDS) >= 8
    assert all(np.abs(patches[a] - patches[b]).mean() > 10 for a in OWN_KINDS for b in OWN_KINDS if a < b)


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


def test_test_alone_sells_what_training_never_shows() -> None:
    assert set(kinds("train")) == set(kinds("validation")) < set(kinds("test")) == set(KINDS)
    assert len(set(KINDS)) == len(KINDS) and len(set(kinds("test")) - set(kinds("train"))) >= 10
    goods = set(KINDS) - set(OWN_KINDS)
    assert goods <= set(pictograms.KINDS)
    assert goods & set(kinds("train")) <= set(pictograms.TRAINING_KINDS)
    assert set(KINDS) - set(kinds("train")) <= set(pictograms.HELD_OUT_KINDS)


def test_plurals() -> None:
    assert [plural(kind) for kind in ("box", "cup", "headset", "wine glass")] == [
        "boxes", "cups", "headsets", "wine glasses",
    ]  # fmt: skip


def test_a_product_that_there_is_not_is_refused() -> None:
    for kind, color in (("unicorn", "red"), ("cup", "mauve")):
        with pytest.raises(ValueError, match=re.escape(f"got {color!r} {kind!r}")):
            paint(np.random.default_rng(0), kind, color, 20, 20)
