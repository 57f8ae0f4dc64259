"""Strangers on training images: things in disguise, under names that no training picture bears."""

import re
from dataclasses import replace
from functools import partial

import numpy as np

from model.tasks import pictograms
from model.tasks.suite import Case
from model.tasks.suites import suite_of
from model.training.examples import material
from model.training.facts import NOUNS, STRANGER, facts_of
from model.training.strangers import ASKED_SHARE, BESIDE_SHARE, with_stranger

_SEEDS = range(240)


def case(name: str, seed: int) -> Case:
    return suite_of(name).case(seed, "easy", "train")


def drawn(name: str) -> list[tuple[Case, Case, str, str, str | None]]:
    """The plain case of each seed, and what became of it."""
    return [(case(name, seed), *with_stranger(partial(case, name, seed), seed)) for seed in _SEEDS]


def test_about_the_shares_of_examples_have_a_stranger_and_the_rest_stay_as_they_are() -> None:
    of_counting = drawn("counting")
    strange = [each for each in of_counting if each[4] is not None]
    assert 0.15 < len(strange) / len(of_counting) < ASKED_SHARE + BESIDE_SHARE + 0.05
    for plain, after, question, response, kind in of_counting:
        if kind is None:
            assert (question, response) == (plain.question, plain.response)
            assert after.image.tobytes() == plain.image.tobytes()


def test_a_stranger_that_is_asked_for_goes_by_a_name_that_training_never_draws() -> None:
    asked = 0
    for name in ("counting", "spatial"):
        for _, after, question, response, kind in drawn(name):
            if kind is None:
                continue
            spoken = re.compile(rf"\b({kind}|{pictograms.PLURALS[kind]})\b")
            assert not spoken.search(question + response)
            forms = [form for each in pictograms.HELD_OUT_KINDS for form in (each, pictograms.PLURALS[each])]
            named = [form for form in forms if form in question]
            assert bool(named) == bool(spoken.search(after.question))
            assert re.findall(r"\d+|[|<>\[\]]", response) == re.findall(r"\d+|[|<>\[\]]", after.response)
            asked += bool(named)
    assert asked > 50


def test_a_stranger_that_only_the_response_would_name_is_none() -> None:
    asked = replace(case("counting", 1), question="how many hammers?", response="hammer 1.</think>1")
    after = replace(asked, question="how many anchors?")
    for seed in _SEEDS:
        drawn_in_turn = iter((asked, after))
        found = with_stranger(partial(next, drawn_in_turn), seed)
        assert found[3] != "hammer" and found[2] == asked.response


def test_a_stranger_looks_like_no_kind_and_its_dense_target_says_so() -> None:
    seen = 0
    for seed in _SEEDS:
        plain, made = case("counting", seed), material("counting/easy", seed)
        assert made.facts is not None
        nouns = [NOUNS[fact.noun] for fact in made.facts.things]
        if STRANGER in nouns:
            seen += 1
            assert made.image.tobytes() != plain.image.tobytes()
            before = [NOUNS[fact.noun] for fact in facts_of(plain).things]
            assert len({old for old, new in zip(before, nouns, strict=True) if new == STRANGER}) == 1
    assert seen > 20


def test_a_disguise_ends_with_its_block_and_fits_the_side_that_is_asked() -> None:
    plain = pictograms.mask("hammer", 40).tobytes()
    for number in range(30):
        with pictograms.disguised({"hammer": number}):
            strange = pictograms.mask("hammer", 40)
            assert max(strange.size) == 40 and strange.size == pictograms.extent("hammer", 40)
            assert np.asarray(strange).any() and strange.tobytes() != plain
            assert pictograms.mask("anchor", 40).tobytes() != strange.tobytes()
        assert pictograms.mask("hammer", 40).tobytes() == plain


def test_each_number_is_a_chimera_of_its_own() -> None:
    looks = {pictograms.chimera(number).tobytes() for number in range(200)}
    assert len(looks) == 200
    assert pictograms.chimera(7).tobytes() == pictograms.chimera(7).tobytes()
