"""What is wrong with thinking is told by its own words, and every suite's reference thinks without a fault."""

from __future__ import annotations

import pytest

from model.prompt import BOX, END_BOX, END_POINT, END_REF, END_THINK, POINT, REF
from model.tasks.suite import Case
from model.tasks.suites import SUITES, suite_of
from model.training.quality import CONTRADICTS, DISAGREES, HOLLOW, MEANINGLESS, MEGA, REPEATS, faults


def case_of(suite: str, kind: str = "", level: str = "easy", answer: str = "") -> Case:
    """The first training case of a kind, and with an answer, if one is asked for."""
    cases = (suite_of(suite).case(seed, level, "train") for seed in range(200))
    return next(case for case in cases if kind in ("", case.kind) and answer in ("", case.answer))


def boxed(label: str, *numbers: int) -> str:
    return f"{REF}{label}{END_REF}{BOX}[[{','.join(map(str, numbers))}]]{END_BOX}"


@pytest.mark.parametrize("name", SUITES)
def test_a_reference_has_no_fault(name: str) -> None:
    suite = suite_of(name)
    for level in suite.levels[:2]:
        for split in ("train", "test"):
            for seed in range(4):
                case = suite.case(seed, level, split)
                assert faults(case, case.response) == (), (level, split, seed, case.response)


@pytest.mark.parametrize("name", SUITES)
def test_thinking_that_points_at_nothing_is_hollow(name: str) -> None:
    case = case_of(name)
    for thinking in ("", "I looked everywhere.", " "):
        assert faults(case, f"{thinking}{END_THINK}{case.answer}") == (HOLLOW,)
    assert faults(case, case.response.replace(END_THINK, "")) == (HOLLOW,)


def test_a_maze_without_points_is_hollow_whatever_it_boxes() -> None:
    assert faults(case_of("maze"), f"{REF}maze{END_REF} closed{END_THINK}False") == (HOLLOW,)


def test_a_box_around_everything_is_told() -> None:
    case = case_of("counting", "coarse", answer="1")
    assert MEGA in faults(case, f"{boxed(case.truth['label'], 0, 5, 999, 990)} 1 in total.{END_THINK}1")
    assert MEGA not in faults(case, f"{boxed(case.truth['label'], 0, 5, 999, 500)} 1 in total.{END_THINK}1")


@pytest.mark.parametrize("name", SUITES)
def test_saying_a_thing_twice_is_told(name: str) -> None:
    case = case_of(name, **{"spatial": {"kind": "name"}}.get(name, {}))
    thinking, answer = case.response.split(END_THINK)
    assert REPEATS in faults(case, f"{thinking} {thinking}{END_THINK}{answer}")


def test_stuttering_is_told_but_not_a_word_after_each_of_many_moves() -> None:
    case = case_of("counting", "coarse", answer="2")
    start, rest = case.response.split(". ", 1)
    assert REPEATS in faults(case, f"{start} {start[-3:]} {start[-3:]} {start[-3:]}. {rest}")
    maze = next(
        each for each in (suite_of("maze").case(seed, "medium", "train") for seed in range(60))
        if each.response.count("fork") > 3
    )  # fmt: skip
    assert faults(maze, maze.response) == ()


def test_one_thing_by_two_names_contradicts() -> None:
    case = case_of("counting", "attribute", answer="1")
    label = case.truth["label"]
    twice = f"{boxed(label, 100, 100, 300, 300)} 1. {boxed('small cup', 102, 99, 300, 301)} no. 1 in total."
    apart = f"{boxed(label, 100, 100, 300, 300)} 1. {boxed('small cup', 402, 99, 600, 301)} no. 1 in total."
    assert CONTRADICTS in faults(case, f"{twice}{END_THINK}1")
    assert faults(case, f"{apart}{END_THINK}1") == ()


@pytest.mark.parametrize("label", ["qzt", "xx 12 yy", "red red cup", "cup of qzt"])
def test_a_label_of_no_known_words_means_nothing(label: str) -> None:
    case = case_of("counting", "coarse", answer="1")
    assert MEANINGLESS in faults(case, f"{boxed(label, 100, 100, 300, 300)} 1 in total.{END_THINK}1")


@pytest.mark.parametrize(("thinking", "answer"), [
    ("{box} 2 in total.", "1"),
    ("{box} 2. 1 in total.", "1"),
    ("{box} 1. 1 in total.", "2"),
])  # fmt: skip
def test_a_count_must_come_from_its_tally(thinking: str, answer: str) -> None:
    case = case_of("counting", "coarse", answer="1")
    box = boxed(case.truth["label"], 100, 100, 300, 300)
    assert DISAGREES in faults(case, f"{thinking.format(box=box)}{END_THINK}{answer}")


@pytest.mark.parametrize(("kind", "answer"), [
    ("true_false", "true"), ("true_false", "false"), ("name", "qqq"), ("colour", "qqq"), ("refusal", "qqq")
])  # fmt: skip
def test_another_answer_than_the_thoughts_disagrees_in_space(kind: str, answer: str) -> None:
    cases = (suite_of("spatial").case(seed, "easy", "train") for seed in range(200))
    case = next(each for each in cases if each.kind == kind and each.answer != answer)
    thinking = case.response.split(END_THINK)[0]
    assert DISAGREES in faults(case, f"{thinking}{END_THINK}{answer}")


def test_finding_what_is_said_to_be_missing_disagrees() -> None:
    case = case_of("spatial", "refusal")
    missing = case.answer.removeprefix("there is no ")
    said = f"{boxed(missing, 1, 1, 90, 90)}. I find no {REF}{missing}{END_REF}.{END_THINK}{case.answer}"
    assert DISAGREES in faults(case, said)


def test_a_price_must_be_the_one_read_and_a_sum_that_of_those_read() -> None:
    price = case_of("reading", "price", level="easy")
    assert DISAGREES in faults(price, f"{price.response.split(END_THINK)[0]}{END_THINK}0.07")
    total = case_of("reading", "sum", level="hard")
    assert faults(total, total.response) == ()
    assert DISAGREES in faults(total, f"{total.response.split(END_THINK)[0]}{END_THINK}0.07")


def test_a_way_must_end_where_the_exploration_did() -> None:
    case = case_of("maze", answer="True")
    thinking, _ = case.response.split(END_THINK)
    assert DISAGREES in faults(case, f"{thinking}{END_THINK}False")
    assert DISAGREES in faults(case, f"{thinking}{END_THINK}True")
    elsewhere = f"{POINT}[[1,1],[2,2]]{END_POINT}"
    assert DISAGREES in faults(case, f"{thinking}{END_THINK}True{elsewhere}")
    closed = case_of("maze", answer="False")
    assert DISAGREES in faults(closed, f"{closed.response}{elsewhere}")
    for left in ("1", "10"):
        early = closed.response.replace("dead end 0 closed", f"dead end {left} closed")
        assert early != closed.response and DISAGREES in faults(closed, early)


def test_the_last_point_must_be_at_the_icon_named() -> None:
    case = case_of("path_tracing")
    other = next(line["end"]["name"] for line in case.truth["lines"] if line["end"]["name"] != case.answer)
    thinking, _ = case.response.split(END_THINK)
    assert DISAGREES in faults(case, f"{thinking}{END_THINK}{other}")
    assert DISAGREES in faults(case, f"{POINT}[[3,4],[5,6]]{END_POINT}{END_THINK}{case.answer}")
