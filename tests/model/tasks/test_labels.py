from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.labels import (
    CODE_DIGITS,
    CODE_LETTERS,
    HELD_OUT_WORDS,
    TRAINING_WORDS,
    draw_labels,
    widest_labels,
    words,
)
from model.tasks.lettering import TRAINING_FONTS, extent, widest
from model.tasks.suite import SPLITS, Split


def is_code(label: str) -> bool:
    return label[-1] in CODE_DIGITS and all(c in CODE_LETTERS + CODE_DIGITS for c in label)


def test_test_has_its_words_to_itself() -> None:
    assert words("train") == words("validation") == TRAINING_WORDS and words("test") == HELD_OUT_WORDS
    assert set(TRAINING_WORDS).isdisjoint(HELD_OUT_WORDS)
    assert len(set(TRAINING_WORDS)) == len(TRAINING_WORDS) >= 100 and len(set(HELD_OUT_WORDS)) >= 50


@settings(deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 9), longest=st.integers(4, 7), split=st.sampled_from(SPLITS))
def test_labels_differ_and_are_words_of_the_split_or_codes(seed: int, n: int, longest: int, split: Split) -> None:
    labels = draw_labels(np.random.default_rng(seed), n, longest, split)
    assert len(set(labels)) == n and max(map(len, labels)) <= longest
    assert all(label in words(split) or is_code(label) for label in labels)


def test_half_of_the_labels_are_codes_and_no_label_is_common() -> None:
    rng = np.random.default_rng(0)
    labels = [draw_labels(rng, 1, 6, "train")[0] for _ in range(2000)]
    assert 0.46 < np.mean([is_code(label) for label in labels]) < 0.54
    assert max(labels.count(label) for label in set(labels)) / 2000 < 0.015


@pytest.mark.parametrize("font", TRAINING_FONTS)
def test_no_label_is_wider_than_the_widest(font: str) -> None:
    rng = np.random.default_rng(1)
    for longest in (5, 7):
        bound = widest(widest_labels(longest, "train"), font, 9)
        assert max(extent(draw_labels(rng, 1, longest, "train")[0], font, 9)[0] for _ in range(150)) <= bound
