from __future__ import annotations

import json
import math
import re
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.primitives import parse
from model.prompt import END_THINK
from model.tasks import spatial
from model.tasks.looks import HELD_OUT_LOOKS, TRAINING_LOOKS, Look, choose_look
from model.tasks.pictograms import HELD_OUT_KINDS
from model.tasks.scenes import COLORS
from model.tasks.spatial import KINDS, SUITE, WEIGHTS, judge
from model.tasks.spatial_chains import RELATIONS
from model.tasks.suite import SPLITS, Case, Split
from tests.model.tasks.damage import (
    answering,
    blind_score,
    doubled,
    never_ending,
    shifted,
    tag_broken,
    without,
    without_pixels,
)

SEEDS = st.integers(0, 10**9)
Thing = dict[str, Any]


@cache
def some(level: str, count: int = 40, split: Split = "validation") -> tuple[Case, ...]:
    return tuple(SUITE.case(seed, level, split) for seed in range(count))


# ---- an answer from the words of a question and the list of things, without margins


class Missing(Exception):
    """A named thing is not there."""


def answer(case: Case) -> str:
    question = case.question.lower().rstrip(".?")
    things = case.truth["things"]
    try:
        if "true" in question:
            claim = re.sub(r"^true or false: |^is it true that |\. true or false$", "", question)
            a, relation, b = re.fullmatch(rf"(.+) is ({'|'.join(RELATIONS)}) (.+)", claim).groups()  # type: ignore[union-attr]
            return str(related(relation, resolve(a, things), resolve(b, things))).lower()
        if "colour is" in question or ("colour of the" in question and question.startswith("name the colour of")):
            return str(resolve(re.sub(r"^what colour is |^name the colour of ", "", question), things)["color"])
        if question.startswith("which colour does"):
            return str(resolve(question.removeprefix("which colour does ").removesuffix(" have"), things)["color"])
        found = resolve(re.sub(r"^what is |^which thing is |^name ", "", question), things)
        by_color = len(case.truth["names"][-1].split()) > len(found["noun"].split())
        return f"{found['color']} {found['noun']}" if by_color else str(found["noun"])
    except Missing as missing:
        return f"there is no {missing}"


def resolve(words: str, things: list[Thing]) -> Thing:
    """The thing that the words refer to."""
    for prefix, side in (("the thing nearest to ", None), ("the nearest thing left of ", "left of"),
                         ("the nearest thing right of ", "right of"), ("the nearest thing above ", "above"),
                         ("the nearest thing below ", "below")):  # fmt: skip
        if words.startswith(prefix):
            start = resolve(words.removeprefix(prefix), things)
            others = [each for each in things if each is not start and (side is None or related(side, each, start))]
            return min(others, key=lambda each: math.dist(middle(each), middle(start)))
    if words.startswith("the other thing of the same colour as "):
        start = resolve(words.removeprefix("the other thing of the same colour as "), things)
        (twin,) = [each for each in things if each is not start and each["color"] == start["color"]]
        return twin
    name = words.removeprefix("the ")
    named = [each for each in things if name in (each["noun"], f"{each['color']} {each['noun']}")]
    if not named:
        raise Missing(name)
    (only,) = named
    return only


def related(relation: str, a: Thing, b: Thing) -> bool:
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a["box"], b["box"])]
    return {
        "left of": middle(a)[0] < middle(b)[0], "right of": middle(a)[0] > middle(b)[0],
        "above": middle(a)[1] < middle(b)[1], "below": middle(a)[1] > middle(b)[1],
        "larger than": area[0] > area[1], "smaller than": area[0] < area[1],
        "the same colour as": a["color"] == b["color"],
    }[relation]  # fmt: skip


def middle(thing: Thing) -> tuple[float, float]:
    x1, y1, x2, y2 = thing["box"]
    return (x1 + x2) / 2, (y1 + y2) / 2


# ---- cases


@pytest.mark.parametrize("level", SUITE.levels)
def test_the_answer_is_what_the_words_of_the_question_come_to(level: str) -> None:
    for split in SPLITS:
        for case in some(level, 40, split):
            assert answer(case) == case.answer, (case.question, case.truth)


@pytest.mark.parametrize("level", SUITE.levels)
def test_the_reference_response_earns_full_marks(level: str) -> None:
    for case in some(level):
        verdict = judge(case, case.response)
        assert verdict.score == 1.0 and verdict.exact and verdict.well_formed, (case.question, verdict)
        assert verdict.iou is None if not case.boxes else verdict.iou is not None and verdict.iou > 0.9


@pytest.mark.parametrize("level", SUITE.levels)
def test_kinds_truths_and_colours_come_equally_often(level: str) -> None:
    cases = some(level)[:32]
    assert Counter(case.kind for case in cases) == dict.fromkeys(KINDS, 8)
    assert Counter(case.answer for case in cases if case.kind == "true_false") == {"true": 4, "false": 4}
    assert Counter(case.answer for case in cases if case.kind == "colour") == dict.fromkeys(COLORS, 1)


def test_the_level_says_how_many_relations_a_question_chains() -> None:
    for level, hops in (("easy", 1), ("medium", 2), ("hard", 3)):
        for case in some(level):
            assert len(case.truth["hops"]) + bool(case.truth["relation"]) == hops


def test_the_thinking_points_at_each_thing_it_comes_to_and_at_no_other() -> None:
    for level in SUITE.levels:
        for case in some(level):
            boxes = parse(case.response)
            assert [each.label for each in boxes] == case.truth["names"] and len(boxes) == len(case.boxes or ())
            assert all(each.part == "reasoning" for each in boxes)
            there = {f"{each['color']} {each['noun']}" for each in case.truth["things"]}
            assert all(any(name == one or one.endswith(f" {name}") for one in there) for name in case.truth["names"])


def test_a_refusal_names_what_is_asked_for_and_not_there_in_questions_of_every_form() -> None:
    refusals = [case for level in SUITE.levels for case in some(level) if case.kind == "refusal"]
    for case in refusals:
        name = case.answer.removeprefix("there is no ")
        assert f"the {name}" in case.question.lower() and f"I find no <｜ref｜>{name}<｜/ref｜>." in case.response
        things = [(each["noun"], f"{each['color']} {each['noun']}") for each in case.truth["things"]]
        assert all(name not in names for names in things)
    assert {case.truth["form"] for case in refusals} == {"true_false", "name", "colour"}
    assert any(case.boxes for case in refusals) and any(not case.boxes for case in refusals)


def test_some_hard_scenes_have_one_noun_in_two_colours() -> None:
    nouns = [Counter(each["noun"] for each in case.truth["things"]) for case in some("hard")]
    assert 2 < sum(max(tally.values()) == 2 for tally in nouns) < 30
    for case in some("easy"):
        assert len({each["noun"] for each in case.truth["things"]}) == len(case.truth["things"])


def test_what_training_sees_holds_no_kind_that_is_kept_for_the_test_split() -> None:
    nouns = {
        split: {each["noun"] for case in some("hard", 40, split) for each in case.truth["things"]} for split in SPLITS
    }
    assert not (nouns["train"] | nouns["validation"]) & set(HELD_OUT_KINDS)
    assert len(nouns["test"] & set(HELD_OUT_KINDS)) > 10


@pytest.mark.parametrize("split", SPLITS)
def test_a_case_has_the_looks_of_its_split(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[Look] = set()

    def recorded(rng: np.random.Generator, of: Split) -> Look:
        seen.add(look := choose_look(rng, of))
        return look

    monkeypatch.setattr(spatial, "choose_look", recorded)
    for seed in range(30):
        SUITE.case(seed, "easy", split)
    assert len(seen) > 2 and seen <= set(HELD_OUT_LOOKS if split == "test" else TRAINING_LOOKS)


def test_no_two_splits_or_levels_share_an_image_and_a_seed_gives_the_same_case() -> None:
    cases = [SUITE.case(seed, level, split) for level in SUITE.levels for split in SPLITS for seed in range(5)]
    assert len({case.image.tobytes() for case in cases}) == len(cases)
    one, two = SUITE.case(7, "hard", "test"), SUITE.case(7, "hard", "test")
    assert (one.image.tobytes(), one.question, one.response) == (two.image.tobytes(), two.question, two.response)


def test_a_case_can_be_written_as_json() -> None:
    for case in some("hard"):
        assert json.loads(json.dumps([case.truth, case.boxes])) is not None


# ---- what each damage costs

DAMAGED = settings(deadline=None, max_examples=20)
CASES = st.builds(lambda seed, level: SUITE.case(seed, level, "train"), SEEDS, st.sampled_from(SUITE.levels))
SHARES = st.floats(0, 1, exclude_max=True)


@DAMAGED
@given(CASES, SHARES)
def test_a_shifted_or_a_missing_box_costs_its_part_of_the_boxes(case: Case, share: float) -> None:
    if due := len(case.boxes or ()):
        for damage in (shifted, without):
            verdict = judge(case, damage(case.response, int(share * due)))
            assert verdict.parts == {"answer": 1, "boxes": pytest.approx(1 - 1 / due), "form": 1}
            assert verdict.score == pytest.approx(1 - WEIGHTS["boxes"] / due)


@DAMAGED
@given(CASES, SHARES)
def test_a_duplicate_box_costs_boxes_and_form(case: Case, share: float) -> None:
    if due := len(case.boxes or ()):
        verdict = judge(case, doubled(case.response, int(share * due)))
        assert verdict.parts == {"answer": 1, "boxes": pytest.approx(1 - 1 / (due + 1)), "form": 0}


@DAMAGED
@given(CASES, SHARES)
def test_a_box_with_another_name_costs_its_part_of_the_boxes(case: Case, share: float) -> None:
    if due := len(case.boxes or ()):
        name = case.truth["names"][int(share * due)]
        verdict = judge(case, case.response.replace(f"<｜ref｜>{name}<｜/ref｜>", "<｜ref｜>unicorn<｜/ref｜>"))
        assert verdict.parts["boxes"] == pytest.approx(1 - 1 / due) and verdict.parts["form"] == 1


@DAMAGED
@given(CASES)
def test_a_wrong_answer_costs_the_answer(case: Case) -> None:
    wrong = {"true": "false", "false": "true"}.get(case.answer, "there is no unicorn")
    verdict = judge(case, answering(case.response, wrong))
    assert verdict.parts == {"answer": 0, "boxes": 1, "form": 1} and not verdict.exact
    assert judge(case, answering(case.response, f" {case.answer.capitalize()}.")).score == 1.0


@DAMAGED
@given(CASES, st.integers(0, 50))
def test_a_broken_tag_costs_the_form(case: Case, which: int) -> None:
    verdict = judge(case, tag_broken(case.response, which))
    assert verdict.parts["form"] == 0 and not verdict.well_formed and verdict.score <= 1 - WEIGHTS["form"] + 1e-9


@DAMAGED
@given(CASES)
def test_a_response_that_never_ends_its_thinking_has_no_answer(case: Case) -> None:
    verdict = judge(case, never_ending(case.response))
    assert verdict.parts == {"answer": 0, "boxes": 1, "form": 0} and not verdict.exact


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(
    ["<｜ref｜>", "<｜/ref｜>", "<｜box｜>", "<｜/box｜>", END_THINK, "[[1,2,30,40]]", "[", "true", ",", "cup", "999"]
)))  # fmt: skip
def test_whatever_a_model_writes_is_judged(pieces: list[str]) -> None:
    verdict = judge(some("medium")[0], "".join(pieces))
    assert 0.0 <= verdict.score <= 1.0


# ---- over many seeds


@pytest.mark.slow
@pytest.mark.parametrize("level", SUITE.levels)
def test_over_two_thousand_cases_references_are_perfect_answers_balance_and_nothing_shows_from_outside(
    level: str,
) -> None:
    cases = [without_pixels(SUITE.case(seed, level, "train")) for seed in range(2000)]
    assert all(judge(case, case.response).score == 1.0 and answer(case) == case.answer for case in cases)
    values = {"true_false": 2, "colour": len(COLORS)}
    for kind in KINDS:
        of_kind = [case for case in cases if case.kind == kind]
        shares = Counter(case.answer for case in of_kind)
        even = 1 / values.get(kind, len(shares))
        assert all(abs(count / len(of_kind) - even) < 0.03 for count in shares.values()), (kind, shares)
        blind, commonest = blind_score(of_kind)
        assert blind < commonest + 0.07, (kind, blind, commonest)  # a half of 250 has a deviation of 0.03
