from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.tasks.icons import FAMILIES, choose
from model.tasks.path_tracing import PATH_TRACING


def test_names_are_unique_and_words() -> None:
    names = [name for family in FAMILIES.values() for name in family.names]
    assert len(names) == len(set(names))
    assert all(name == name.strip() and " " in name for name in names)


@settings(deadline=None, max_examples=60)
@given(
    family=st.sampled_from(sorted(FAMILIES)), pick=st.integers(0, 1000), seed=st.integers(0, 2**32),
    x=st.floats(20, 44), y=st.floats(20, 44), side=st.sampled_from([18.0, 22.0, 30.0]),
)  # fmt: skip
def test_an_icon_fills_the_box_it_says_around_its_middle(
    family: str, pick: int, seed: int, x: float, y: float, side: float
) -> None:
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    name = FAMILIES[family].names[pick % len(FAMILIES[family].names)]
    box = FAMILIES[family].paint(np.random.default_rng(seed), image, name, x, y, side)
    changed = np.argwhere((np.asarray(image) != 128).any(axis=2))
    drawn = [*changed.min(axis=0)[::-1], *(changed.max(axis=0)[::-1] + 1)]
    assert np.abs(np.array(drawn) - box).max() <= 1.2
    assert abs(box[0] + box[2] - 2 * x) < 1e-6 and abs(box[1] + box[3] - 2 * y) < 1e-6
    assert 0.8 * side < max(box[2] - box[0], box[3] - box[1]) <= side + 1e-6


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_two_names_of_a_family_look_different(family: str) -> None:
    def pixels(name: str) -> bytes:
        image = Image.new("RGB", (40, 40), (128, 128, 128))
        FAMILIES[family].paint(np.random.default_rng(0), image, name, 20, 20, 22)
        return image.tobytes()

    names = FAMILIES[family].names
    assert len({pixels(name) for name in names}) == len(names)


def test_no_name_stands_twice_on_an_image() -> None:
    for seed in range(200):
        starts, ends = choose(np.random.default_rng(seed), 10)
        names = [name for _, name in starts + ends]
        assert len(set(names)) == 20
        assert all(name in family.names for family, name in starts + ends)


def test_any_family_can_face_any_other() -> None:
    met = set()
    for seed in range(200):
        starts, ends = choose(np.random.default_rng(seed), 2)
        met.add((starts[0][0].names[0], ends[0][0].names[0]))
    assert len(met) == len(FAMILIES) ** 2


def test_there_are_names_enough_for_the_hardest_level() -> None:
    assert "nightmare" in PATH_TRACING.levels
    assert all(len(family.names) >= 20 for family in FAMILIES.values())
