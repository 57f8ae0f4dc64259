"""Rewards: full for a reference, less for whoever hacks them than for whoever is honest."""

from __future__ import annotations

import re

import pytest

from model.prompt import BOX, END_BOX, END_REF, END_THINK, POINT, REF
from model.tasks.suite import Case
from model.tasks.suites import SUITES, suite_of
from model.training.quality import CONTRADICTS, HOLLOW, MEANINGLESS
from model.training.rewards import WEIGHTS, format_reward, quality_reward, reward_of

ONE = f"{REF}cup{END_REF}{BOX}[[100,100,300,300]]{END_BOX}"


def cases_of(name: str, count: int = 12) -> list[Case]:
    return [suite_of(name).case(seed, "easy", "train") for seed in range(count)]


def test_the_weights_sum_to_one() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", SUITES)
def test_a_reference_earns_everything(name: str) -> None:
    for case in cases_of(name):
        reward = reward_of(case, case.response)
        assert reward.total == pytest.approx(1, abs=0.02) and reward.correct and reward.clean, case.response
        assert reward.accuracy == suite_of(name).judge(case, case.response).score


@pytest.mark.parametrize("name", SUITES)
def test_a_hacker_earns_less_than_an_honest_response_with_the_same_answer(name: str) -> None:
    for case in cases_of(name):
        thinking, answer = case.response.split(END_THINK)
        honest = reward_of(case, case.response)
        bare, chatty = (reward_of(case, f"{words}{END_THINK}{case.answer}") for words in ("", "I looked. I saw."))
        everything = f"{REF}thing{END_REF}{BOX}[[0,0,999,999]]{END_BOX}"
        mega = reward_of(case, f"{everything}{END_THINK}{case.answer}")
        assert max(bare.total, chatty.total, mega.total) < honest.total - WEIGHTS["quality"] + 1e-9
        copied = reward_of(case, f"{thinking} {thinking}{END_THINK}{answer}")
        assert copied.total < honest.total and not copied.clean


@pytest.mark.parametrize("name", SUITES)
def test_an_honest_mistake_earns_more_than_a_bare_one_and_less_than_being_right(name: str) -> None:
    for case in cases_of(name):
        wrong = "purple shoe" if case.answer != "purple shoe" else "cup"
        thinking = case.response.split(END_THINK)[0]
        mistaken, bare = (reward_of(case, f"{words}{END_THINK}{wrong}") for words in (thinking, ""))
        assert bare.total <= mistaken.total < reward_of(case, case.response).total
        assert not mistaken.correct


def test_format_wants_the_grammar_an_end_of_thinking_and_an_answer() -> None:
    assert format_reward(f"{ONE}{END_THINK}1") == 1
    assert format_reward(f"{ONE}1") == 0
    assert format_reward(f"{ONE}{END_THINK}") == 0
    assert format_reward(f"{ONE[:-3]}{END_THINK}1") == 0
    assert format_reward(f"{ONE.replace('300', '1300')}{END_THINK}1") == 0


def test_format_falls_with_the_share_of_boxes_that_copy_others() -> None:
    near, far = ONE.replace("300,300", "301,299"), ONE.replace("100,100", "500,500").replace("300,300", "700,700")
    assert format_reward(f"{ONE}{far}{END_THINK}2") == 1
    assert format_reward(f"{ONE}{near}{END_THINK}2") == pytest.approx(1 / 2)
    assert format_reward(f"{ONE}{near}{ONE}{far}{END_THINK}4") == pytest.approx(1 / 2)
    assert format_reward(f"{POINT}[[5,5],[5,5]]{re.sub('box', 'point', END_BOX)}{END_THINK}4") == 1


def test_quality_has_three_values_and_none_for_a_hack() -> None:
    assert quality_reward(()) == 1
    assert quality_reward((MEANINGLESS,)) == 0.5
    assert quality_reward((MEANINGLESS, CONTRADICTS)) == 0
    assert quality_reward((HOLLOW,)) == 0


def test_a_right_answer_by_a_way_through_walls_is_not_correct() -> None:
    case = next(case for case in cases_of("maze", 40) if case.answer == "True")
    thinking = case.response.split(END_THINK)[0]
    assert not reward_of(case, f"{thinking}{END_THINK}True").correct
    assert reward_of(case, case.response).correct
