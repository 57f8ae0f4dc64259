"""Other looks for training images: what has a name keeps its place and its colour."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from model.tasks.suites import SUITES
from model.training.facts import Facts, facts_of
from model.training.repainting import REPAINTED_SHARE, UNNAMED, repainted


def _case(suite: str, seed: int) -> tuple[Image.Image, Facts]:
    case = SUITES[suite].case(seed, "easy", "train")
    return case.image.convert("RGB"), facts_of(case)


@pytest.mark.parametrize("suite", ["maze", "counting"])
def test_an_image_is_repainted_about_as_often_as_said_and_the_same_for_the_same_seed(suite: str) -> None:
    changed = 0
    for seed in range(60):
        image, facts = _case(suite, seed)
        other = repainted(image, facts, suite, seed)
        assert other.size == image.size
        assert other.tobytes() == repainted(image, facts, suite, seed).tobytes()
        changed += other.tobytes() != image.tobytes()
    assert abs(changed / 60 - REPAINTED_SHARE) < 0.2


@pytest.mark.parametrize("suite", list(SUITES))
def test_what_has_a_name_changes_by_its_light_alone(suite: str) -> None:
    strayed = []
    for seed in range(40):
        image, facts = _case(suite, seed)
        before, after = (np.array(each, int) for each in (image, repainted(image, facts, suite, seed)))
        for x1, y1, x2, y2 in (fact.box for fact in facts.things):
            named = slice(math.floor(y1), math.ceil(y2)), slice(math.floor(x1), math.ceil(x2))
            strayed.append(int(np.abs(before[named] - after[named]).max()))
    # A power of at most 1.18 and a tint of 6 %; two of the eight colours lie 60 levels apart or more.
    assert 0 < max(strayed) < 40


@pytest.mark.parametrize("suite", UNNAMED)
def test_walls_and_lines_take_other_colours_and_stay_where_they_are(suite: str) -> None:
    distances, alike = [], []
    for seed in range(60):
        image, facts = _case(suite, seed)
        other = repainted(image, facts, suite, seed)
        if other is image:
            continue
        before, after = np.array(image, float), np.array(other, float)
        distances.append(float(np.abs(before - after).mean()))
        edges = [np.abs(np.diff(each.mean(-1), axis=1)).ravel() for each in (before, after)]
        alike.append(float(np.corrcoef(edges)[0, 1]))
    assert np.median(distances) > 20  # another colour, not another light
    assert np.median(alike) > 0.8  # by far most of what was an edge is one
