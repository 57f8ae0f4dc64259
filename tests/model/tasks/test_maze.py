from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from PIL import Image

from model.primitives import format_points, parse
from model.prompt import END_THINK, POINT, Tokenizer
from model.tasks.maze import _LEVELS, SUITE
from model.tasks.maze_carving import ALGORITHMS
from model.tasks.maze_drawing import HELD_OUT_GROUNDS, HELD_OUT_MARKS, HELD_OUT_WALLS
from model.tasks.maze_grids import TOPOLOGIES
from model.tasks.suite import SPLITS, Case, Verdict, to_frame, to_pixels
from model.tasks.suites import suite_of
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.tasks import mazes
from tests.model.tasks.mazes import DAMAGES, meets_any

ALL = dict.fromkeys(SUITE.weights, 1.0)


@cache
def cases(level: str = "easy", count: int = 90) -> tuple[Case, ...]:
    return tuple(SUITE.case(seed, level, "validation") for seed in range(count))


def judged(damage: Callable[[Case], str], solvable: bool) -> list[tuple[Case, Verdict]]:
    """The easy cases with or without a solution, each with the verdict on its damaged response."""
    return [(c, SUITE.judge(c, damage(c))) for c in cases() if c.truth["solvable"] == solvable]


# ---- the reference


@pytest.mark.parametrize("level", SUITE.levels)
def test_the_reference_response_earns_everything(level: str) -> None:
    for case in cases(level, 40):
        assert_full_marks(case)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("level", SUITE.levels)
def test_two_thousand_reference_responses_a_level_earn_everything(level: str, split: str) -> None:
    for seed in range(2000 if split == "train" else 300):
        assert_full_marks(SUITE.case(seed, level, split))  # type: ignore[arg-type]


def assert_full_marks(case: Case) -> None:
    verdict = SUITE.judge(case, case.response)
    assert verdict.score == pytest.approx(1) and verdict.parts == ALL, (case.level, case.question, verdict)
    assert verdict.exact and verdict.well_formed and verdict.iou is None
    assert verdict.path_valid is (True if case.truth["solvable"] else None)


@pytest.mark.parametrize("level", SUITE.levels)
def test_no_move_of_the_reference_meets_a_wall_in_exact_arithmetic(level: str) -> None:
    for case in cases(level, 40)[: {"easy": 40, "medium": 16}.get(level, 4)]:
        answer = [to_pixels(p.frame, case.size) for p in parse(case.response) if p.part == "answer"]
        for a, b in pairwise(answer):
            assert not meets_any(case, a, b)


def test_easy_responses_are_short() -> None:
    tokenizer = Tokenizer(DEFAULT_CHECKPOINT)
    lengths = sorted(len(tokenizer.encode(case.response)) for case in cases())
    assert lengths[len(lengths) * 9 // 10] < 150 and lengths[-1] < 220


# ---- damage


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_wrong_answer_earns_as_much_as_a_right_one_without_thinking(damage: Callable[[Case], str]) -> None:
    for solvable in (True, False):
        for _, verdict in judged(damage, solvable):
            assert verdict.exact or verdict.score < SUITE.weights["answer"]


@pytest.mark.parametrize("damage", [mazes.no_path, mazes.wrong_end, mazes.wrong_start])
def test_a_path_that_does_not_lead_there_costs_the_path_alone(damage: Callable[[Case], str]) -> None:
    for case, verdict in judged(damage, solvable=True):
        assert verdict.parts == ALL | {"path": 0.0}, (case.question, verdict)
        assert verdict.exact and verdict.path_valid is False


@pytest.mark.parametrize("damage", [mazes.straight, mazes.invented_path])
def test_a_path_through_walls_costs_the_path_alone(damage: Callable[[Case], str]) -> None:
    walled = 0
    for case, verdict in judged(damage, solvable=True):
        start, goal = (case.truth["centres"][case.truth[end]] for end in ("start", "goal"))
        walled += meets_any(case, start, goal)
        assert verdict.exact and (verdict.path_valid is False or not meets_any(case, start, goal))
        assert verdict.parts == ALL | {"path": float(verdict.path_valid is True)}
    assert walled > 40


def test_a_gap_in_the_path_costs_the_path_where_a_wall_is_in_between() -> None:
    broken = 0
    for case, verdict in judged(mazes.gap, solvable=True):
        answer = [to_pixels(p.frame, case.size) for p in parse(mazes.gap(case)) if p.part == "answer"]
        blocked = any(meets_any(case, a, b) for a, b in pairwise(answer))
        assert verdict.parts == ALL | {"path": verdict.parts["path"]}
        assert verdict.path_valid is False or not blocked, case.question
        broken += blocked
    assert broken > 30


@pytest.mark.parametrize("damage", [mazes.flipped, mazes.endless])
@pytest.mark.parametrize("solvable", [True, False])
def test_without_the_right_answer_there_is_no_path_either(damage: Callable[[Case], str], solvable: bool) -> None:
    for _, verdict in judged(damage, solvable):
        assert verdict.parts == ALL | {"answer": 0.0, "path": 0.0}
        assert not verdict.exact and verdict.path_valid is (False if solvable else None)


@pytest.mark.parametrize("damage", [mazes.through_the_wall, mazes.teleport])
@pytest.mark.parametrize("solvable", [True, False])
def test_thinking_through_a_wall_costs_what_comes_after_it(damage: Callable[[Case], str], solvable: bool) -> None:
    walled = 0
    for case, verdict in judged(damage, solvable):
        first = [to_pixels(p.frame, case.size) for p in parse(case.response) if p.group == 0]
        goal = case.truth["centres"][case.truth["goal"]]
        if case.response.partition(END_THINK)[0].count(POINT) == 1 or not meets_any(case, first[-1], goal):
            continue  # the first move was all, or the goal is straight ahead: no damage done
        walled += 1
        assert verdict.parts["answer"] == 1 and verdict.parts["walls"] < 1
        assert verdict.parts["progress"] == verdict.parts["completeness"] < 1
        assert verdict.parts["path"] == (1.0 if solvable else verdict.parts["completeness"])
    assert walled > 30


def test_exploring_half_earns_half_and_not_the_proof_that_there_is_no_way() -> None:
    for _, verdict in judged(mazes.half, solvable=False):
        assert verdict.parts["path"] == verdict.parts["progress"] == verdict.parts["completeness"] < 1
    for _, verdict in judged(mazes.half, solvable=True):
        assert verdict.parts["progress"] < 1 and verdict.parts["path"] == 1


@pytest.mark.parametrize("solvable", [True, False])
def test_a_missing_tag_is_caught_as_form_and_costs_no_part(solvable: bool) -> None:
    for _, verdict in judged(mazes.broken_tag, solvable):
        assert not verdict.well_formed and verdict.parts == ALL


def test_a_bare_constant_answer_is_worth_its_answer_half_of_the_time() -> None:
    for guess, right in ((mazes.always_true, True), (mazes.always_false, False)):
        for solvable in (True, False):
            for _, verdict in judged(guess, solvable):
                due = 1.0 if solvable == right else 0.0
                assert verdict.parts == dict.fromkeys(ALL, 0.0) | {"answer": due}


def test_a_false_that_names_a_way_contradicts_itself() -> None:
    for _, verdict in judged(lambda case: case.response + "<｜point｜>[[5,5]]<｜/point｜>", solvable=False):
        assert verdict.parts == ALL | {"path": 0.0}


def test_naming_every_cell_in_a_row_is_not_exploring() -> None:
    scores = []
    for case in cases("medium", 36):
        points = [to_frame(case.truth["centres"][cell], case.size) for cell in case.truth["reachable"]]
        scores.append(SUITE.judge(case, f"{format_points(points)}{END_THINK}{case.answer}").score)
    assert sum(scores) / len(scores) < SUITE.weights["answer"] + 0.1


# ---- cases


def test_answers_topologies_and_algorithms_come_in_all_combinations_equally_often() -> None:
    counts = Counter((case.answer, case.kind, case.truth["algorithm"]) for case in cases())
    assert len(counts) == 2 * len(TOPOLOGIES) * len(ALGORITHMS) and set(counts.values()) == {5}


@pytest.mark.parametrize("level", SUITE.levels)
def test_images_and_corridors_keep_to_their_level(level: str) -> None:
    for case in cases(level, 40):
        low, high = _LEVELS[level].sides
        assert all(low <= side <= high for side in case.size) and case.truth["size"] == list(case.size)
        assert case.truth["pitch"] - case.truth["thickness"] >= _LEVELS[level].corridor


def test_a_case_is_judged_by_its_truth_alone_and_the_truth_survives_json() -> None:
    for case in cases():
        bare = replace(
            case, truth=json.loads(json.dumps(case.truth)), image=Image.new("RGB", (1, 1)), response="", boxes=None
        )
        assert dict(bare.truth) == dict(case.truth)
        for text in (case.response, mazes.teleport(case), mazes.flipped(case)):
            assert SUITE.judge(bare, text) == SUITE.judge(case, text)


def test_seeds_decide_everything_and_splits_never_meet() -> None:
    one, same = (SUITE.case(7, "medium", "train") for _ in range(2))
    assert one.image.tobytes() == same.image.tobytes() and one.response == same.response
    images = {SUITE.case(7, "medium", split).image.tobytes() for split in SPLITS}
    assert len(images) == len(SPLITS)


def test_looks_of_the_test_split_are_never_trained_on() -> None:
    held_out = {*HELD_OUT_WALLS, *HELD_OUT_GROUNDS, *HELD_OUT_MARKS}
    for seed in range(120):
        for split in SPLITS:
            look = SUITE.case(seed, "easy", split).truth["look"]
            assert set(look) <= held_out if split == "test" else not set(look) & held_out


def test_the_question_names_both_marks_and_gives_nothing_away() -> None:
    asked: dict[str, Counter[str]] = {}
    for case in cases("easy", 360):
        template = " ".join(word for word in case.question.lower().split() if word in COMMON)
        asked.setdefault(template, Counter())[case.answer] += 1
        assert all(shape in case.question for shape in case.truth["look"][2:])
    assert len(asked) == 8
    assert all(min(counts["True"], counts["False"]) > 5 for counts in asked.values()), asked


COMMON = {"is", "there", "does", "can", "you", "find", "solve", "true", "a", "path", "be", "reached", "within"}


def test_the_suite_is_registered_and_knows_its_levels() -> None:
    assert suite_of("maze") is SUITE
    with pytest.raises(ValueError, match="easy, medium, hard, nightmare"):
        SUITE.case(0, "simple", "train")
