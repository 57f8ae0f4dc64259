"""Facts say what the truth of a case says, in numbers."""

from __future__ import annotations

import pytest

from model.tasks.scenes import COLORS
from model.tasks.suites import SUITES
from model.training.facts import CHARACTERS, NOUNS, TAG, UNKNOWN, facts_of

LEVELS = [(name, level) for name, suite in SUITES.items() for level in suite.levels if level != "nightmare"]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_every_box_of_the_answer_belongs_to_a_fact(name: str, level: str) -> None:
    for seed in range(10):
        case = SUITES[name].case(seed, level, "train")
        boxes = {tuple(round(edge, 2) for edge in fact.box) for fact in facts_of(case).things}
        assert {tuple(round(edge, 2) for edge in box) for box in case.boxes or ()} <= boxes


def test_things_carry_their_noun_and_colour() -> None:
    case = SUITES["spatial"].case(3, "easy", "train")
    facts = facts_of(case).things
    said = [(NOUNS[fact.noun], COLORS[fact.color]) for fact in facts]
    assert said == [(thing["noun"], thing["color"]) for thing in case.truth["things"]]


def test_a_price_tag_tells_its_characters_and_another_tag_none() -> None:
    seen = 0
    for seed in range(20):
        case = SUITES["reading"].case(seed, "medium", "train")
        tags = [fact for fact in facts_of(case).things if NOUNS[fact.noun] == TAG]
        for product, tag in zip(case.truth["shelf"], tags, strict=True):
            text = product["text"].lstrip("$€£")
            said = "".join(CHARACTERS[which] for _, which in tag.print if which != UNKNOWN)
            assert said == (text if "." in text else "")
            ends = [end for end, _ in tag.print]
            assert ends == sorted(ends) and all(0 < end < 1 for end in ends)
            seen += bool(said)
    assert seen > 20


@pytest.mark.parametrize("seed", range(6))
def test_a_maze_has_a_passage_for_each_door_and_none_between_far_cells(seed: int) -> None:
    case = SUITES["maze"].case(seed, "easy", "train")
    facts, truth = facts_of(case), case.truth
    assert len(facts.middles) == len(truth["centres"])
    assert sum(is_open for _, _, is_open in facts.passages) == len(truth["doors"])
    assert len(facts.passages) > len(truth["doors"])  # some are closed
