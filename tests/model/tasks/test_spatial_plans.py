from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks.scenes import COLORS
from model.tasks.spatial_chains import BACK, chains, holds
from model.tasks.spatial_plans import LEVELS, Question, arrange_scene, choose, search

KINDS = ("true_false", "name", "colour", "refusal")
SIZE = (280, 240)


def asked(kind: str, level: str, count: int = 200) -> list[Question]:
    return [choose(np.random.default_rng(seed), kind, LEVELS[level]) for seed in range(count)]


@pytest.mark.parametrize("level", LEVELS)
def test_no_question_gives_its_answer_away_or_leads_straight_back(level: str) -> None:
    for question in (each for kind in KINDS for each in asked(kind, level)):
        assert len(question.hops) + bool(question.relation) == LEVELS[level].hops
        for one, two in zip(question.hops, question.hops[1:], strict=False):
            assert BACK.get(one) != two
        about_color = question.form == "colour" or question.relation == "the same colour as" or "twin" in question.hops
        assert not (question.by_color and about_color)
        if question.form == "colour":
            assert question.hops[-1] != "twin"
        if question.relation == "the same colour as":
            assert "twin" not in question.hops


def test_a_refusal_has_any_form_and_something_absent_and_the_others_do_not() -> None:
    refusals = asked("refusal", "medium")
    forms = Counter(each.form for each in refusals)
    assert set(forms) == {"true_false", "name", "colour"} and min(forms.values()) > 45
    assert all(each.absent for each in refusals) and {each.absent for each in refusals} == {"base", "other"}
    assert not any(each.absent for kind in KINDS[:3] for each in asked(kind, "medium"))


def test_scenes_have_things_of_different_names_and_most_colours_twice() -> None:
    question = Question("name", ("nearest",), "", False, "")
    twice = Counter[int]()
    for seed in range(60):
        placed = arrange_scene(np.random.default_rng(seed), question, LEVELS["hard"], *SIZE, "train").placed
        assert len({each.item.noun for each in placed}) == len(placed)
        twice.update(Counter(each.item.color for each in placed).values())
    assert twice[2] > 0.4 * twice.total()


def test_things_named_by_colour_differ_in_noun_or_colour_and_what_is_gone_is_not_there() -> None:
    question = Question("name", ("nearest",), "", True, "base")
    hard = 0
    for seed in range(60):
        scene = arrange_scene(np.random.default_rng(seed), question, LEVELS["hard"], *SIZE, "train")
        names = [question.name(each.item) for each in scene.placed]
        assert scene.gone is not None and len({*names, question.name(scene.gone)}) == len(names) + 1
        hard += any(each.item.noun == scene.gone.noun for each in scene.placed)
    assert 10 < hard < 50


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(("true_false", "name", "colour")), st.integers(0, 7))
def test_what_is_found_is_true_of_the_scene_that_is_painted_mirrored_or_not(seed: int, kind: str, value: int) -> None:
    rng = np.random.default_rng(seed)
    question = choose(rng, kind, LEVELS["medium"])
    scene = arrange_scene(rng, question, LEVELS["medium"], *SIZE, "train")
    found = search(rng, question, scene, value, SIZE)
    if found is None:
        return
    placed = found.scene.placed
    assert tuple(placed.index(each) for each in found.chain) in chains(question.hops, found.scene.steps)
    assert all(x1 >= 0 and y1 >= 0 and x2 <= SIZE[0] and y2 <= SIZE[1] for x1, y1, x2, y2 in (p.box for p in placed))
    if kind == "true_false":
        assert found.beside in placed and found.beside is not None
        assert holds(question.relation, found.chain[-1], found.beside) is (value % 2 == 0)
        assert found.answer == ("true" if value % 2 == 0 else "false")
    elif kind == "colour":
        assert found.answer == COLORS[value] == found.chain[-1].item.color
    else:
        assert found.answer == found.chain[-1].item.noun


def test_a_question_about_what_is_gone_is_refused_at_once_or_when_the_thinking_comes_to_it() -> None:
    for absent, pointed in (("base", False), ("other", True)):
        question = Question("true_false", ("nearest",), "left of", False, absent)
        for seed in range(40):
            rng = np.random.default_rng(seed)
            scene = arrange_scene(rng, question, LEVELS["medium"], *SIZE, "train")
            found = search(rng, question, scene, 0, SIZE)
            if found is not None:
                assert scene.gone is not None and found.answer == f"there is no {scene.gone.noun}"
                assert bool(found.chain) is pointed and found.beside is None
                assert scene.gone in (found.base, found.other)


def test_without_a_chain_nothing_is_found() -> None:
    question = Question("name", ("nearest",), "", False, "")
    scene = arrange_scene(np.random.default_rng(0), question, LEVELS["easy"], *SIZE, "train")
    alone = replace(scene, placed=scene.placed[:1])
    assert search(np.random.default_rng(0), question, alone, 0, SIZE) is None
