"""Renaming of pictograms on training images."""

import re

from model.tasks import pictograms
from model.tasks.suites import suite_of
from model.training.renaming import SHARE, renamed

_CASES = [suite_of(name).case(seed, "easy", "train") for name in ("counting", "spatial") for seed in range(150)]


def test_about_the_share_of_examples_is_renamed_and_the_rest_stays_as_it_is() -> None:
    question, response = "Count the robots and the hammers.", "<hammer> 1 in total."

    changed = sum(renamed(question, response, seed) != (question, response) for seed in range(2000))

    assert abs(changed / 2000 - SHARE) < 0.03


def test_a_name_changes_in_question_and_response_alike_and_becomes_one_that_is_never_drawn_in_training() -> None:
    for seed in range(500):
        question, response = renamed("how many hammers?", "I look for hammers. hammer 1. hammer 2.", seed)
        [asked] = re.findall(r"how many (.+)\?", question)
        [(looked, *found)] = re.findall(r"I look for (.+)\. (.+) 1\. (.+) 2\.", response)

        assert looked == asked
        assert found[0] == found[1]
        assert pictograms.PLURALS[found[0]] == asked
        assert found[0] == "hammer" or found[0] in pictograms.HELD_OUT_KINDS


def test_a_word_within_another_is_not_taken_for_a_pictogram() -> None:
    for seed in range(500):
        assert renamed("is the carpet handy?", "carpet", seed) == ("is the carpet handy?", "carpet")


def test_renaming_changes_nothing_but_names() -> None:
    for seed, case in enumerate(_CASES):
        question, response = renamed(case.question, case.response, seed)

        assert re.findall(r"\d+|[|<>\[\]]", response) == re.findall(r"\d+|[|<>\[\]]", case.response)
        assert renamed(case.question, case.response, seed) == (question, response)
        for kind in pictograms.HELD_OUT_KINDS:
            assert not re.search(rf"\b{kind}\b", case.question), "a training case never names a held-out kind by itself"
