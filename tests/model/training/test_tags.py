"""Tags in other colours: what is printed stays, the rest of the image too."""

from __future__ import annotations

import numpy as np
from PIL import Image

from model.tasks.suites import SUITES
from model.training.facts import TAG_NOUN, Facts, facts_of
from model.training.tags import RECOLOURED_SHARE, recoloured


def _tagged(seed: int) -> tuple[Image.Image, Facts]:
    case = SUITES["reading"].case(seed, "easy", "train")
    return case.image.convert("RGB"), facts_of(case)


def test_only_tags_change_and_about_as_often_as_said() -> None:
    changed = 0
    for seed in range(60):
        image, facts = _tagged(seed)
        before, after = np.array(image, int), np.array(recoloured(image, facts, seed), int)
        inside = np.zeros(before.shape[:2], bool)
        for x1, y1, x2, y2 in (fact.box for fact in facts.things if fact.noun == TAG_NOUN):
            inside[int(y1) : round(y2), int(x1) : round(x2)] = True
        assert (before == after)[~inside].all()
        changed += bool((before != after).any())
    assert abs(changed / 60 - RECOLOURED_SHARE) < 0.2


def test_print_keeps_its_edges_light_on_dark_as_often_as_dark_on_light() -> None:
    alike = []
    for seed in range(60):
        image, facts = _tagged(seed)
        other = recoloured(image, facts, seed)
        if other is image:
            continue
        x1, y1, x2, y2 = next(fact.box for fact in facts.things if fact.noun == TAG_NOUN)
        box = int(x1), int(y1), round(x2), round(y2)
        greys = [np.array(each.crop(box).convert("L"), float).ravel() for each in (image, other)]
        alike.append(float(np.corrcoef(greys)[0, 1]))
    assert all(abs(each) > 0.98 for each in alike)
    assert 0.25 < np.mean([each > 0 for each in alike]) < 0.75


def test_an_image_without_tags_is_left_as_it_is() -> None:
    image, _ = _tagged(0)
    assert recoloured(image, Facts(), 1) is image


def test_the_same_seed_gives_the_same_colours() -> None:
    image, facts = _tagged(3)
    first, again = (np.array(recoloured(image, facts, 5)) for _ in range(2))
    assert (first == again).all()
