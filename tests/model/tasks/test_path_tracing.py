from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from model.primitives import parse
from model.prompt import END_THINK
from model.tasks import path_tracing
from model.tasks.curves import distances
from model.tasks.path_tracing import PATH_TRACING
from model.tasks.suite import SPLITS, Case, Split, Verdict, to_frame, to_pixels
from model.tasks.suites import suite_of
from model.tasks.tangles import Tangle, draw_tangle
from tests.model.tasks.damaged_traces import (
    ANSWERED,
    DAMAGES,
    FORM_ONLY,
    MISFORMED,
    answer_alone,
    answer_flipped,
    answer_made_up,
    asked,
    frames,
    gap,
    shifted,
    straight_to_another_end,
    straight_to_the_right_end,
    thinking_never_ends,
    traced,
)

LEVELS = PATH_TRACING.levels


@cache
def case(seed: int, level: str = "medium", split: Split = "train") -> Case:
    return PATH_TRACING.case(seed, level, split)


def judged(of: Case, response: str) -> Verdict:
    return PATH_TRACING.judge(of, response)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_reference_earns_full_marks(level: str, split: Split) -> None:
    for seed in range(14):
        of = PATH_TRACING.case(seed, level, split)
        verdict = judged(of, of.response)
        assert verdict.score == 1 and verdict.exact and verdict.path_valid and verdict.well_formed, (seed, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_two_thousand_references_earn_full_marks(level: str) -> None:
    for seed in range(2000):
        of = PATH_TRACING.case(seed, level, SPLITS[seed % 3])
        verdict = judged(of, of.response)
        assert verdict.score == 1 and verdict.exact and verdict.path_valid and verdict.well_formed, (seed, verdict)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damage_costs_its_parts_and_no_other(damage: Callable[[Case], str]) -> None:
    cases = [case(seed) for seed in range(16)]
    verdicts = [judged(of, damage(of)) for of in cases]
    for verdict in verdicts:
        whole = {part for part, value in verdict.parts.items() if value == 1}
        assert whole >= set(PATH_TRACING.weights) - DAMAGES[damage]
        assert verdict.exact == (damage in ANSWERED)
        assert verdict.well_formed == (damage not in MISFORMED)
    for part in DAMAGES[damage]:
        assert np.mean([verdict.parts[part] for verdict in verdicts]) < 0.9, part


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage not in FORM_ONLY], ids=lambda d: d.__name__)
def test_a_damaged_trace_is_no_valid_path(damage: Callable[[Case], str]) -> None:
    spared = {answer_flipped, answer_made_up, thinking_never_ends}  # their traces are whole
    valid = [bool(judged(case(seed), damage(case(seed))).path_valid) for seed in range(16)]
    if damage in spared:
        assert all(valid)
    else:
        assert np.mean(valid) < 0.4, valid  # a line may happen to be straight, a gap to lie where it is


def test_a_guess_without_following_is_priced_well_below() -> None:
    for level in LEVELS:
        cases = [case(seed, level) for seed in range(8)]
        lucky = np.mean([judged(of, straight_to_the_right_end(of)).score for of in cases])
        wrong = np.mean([judged(of, straight_to_another_end(of)).score for of in cases])
        bare = np.mean([judged(of, answer_alone(of)).score for of in cases])
        assert wrong < 0.4 and bare < 0.35 and lucky < 0.9, level


def test_half_a_pixel_of_noise_costs_nothing_and_more_costs_more() -> None:
    of, rng = case(3), np.random.default_rng(0)
    noise = rng.standard_normal((len(frames(of)), 2))

    def score(px: float) -> float:
        pixels = np.array([to_pixels(frame, of.size) for frame in frames(of)]) + noise * px
        return judged(of, traced([to_frame(point, of.size) for point in pixels.tolist()], of.answer)).score

    scores = [score(px) for px in (0.3, 2.0, 4.0, 8.0)]
    assert scores[0] == 1 and scores == sorted(scores, reverse=True) and scores[-1] < 0.9


@pytest.mark.parametrize(
    "response", ["", "2", END_THINK, "<｜point｜>[[", "<｜point｜>[[5000,1]]<｜/point｜>", "x" * 9999]
)
def test_nonsense_earns_nothing_and_raises_nothing(response: str) -> None:
    verdict = judged(case(0), response)
    assert verdict.score == 0 and not verdict.exact and verdict.path_valid is False


def test_case_blanks_and_a_full_stop_do_not_matter_to_the_answer() -> None:
    of = case(1)
    assert judged(of, f"{of.response.partition(END_THINK)[0]}{END_THINK} {of.answer.upper()}.").score == 1


def test_the_judge_needs_the_written_truth_alone() -> None:
    of = case(2)
    written = replace(of, truth=json.loads(json.dumps(of.truth)), image=of.image.point(lambda level: 0))
    for response in (of.response, shifted(of), gap(of)):
        assert judged(written, response) == judged(of, response)


@pytest.mark.parametrize("level", LEVELS)
def test_a_case_asks_for_the_end_of_one_of_its_lines(level: str) -> None:
    for seed in range(5):
        of = case(seed, level)
        line = asked(of)
        assert (of.suite, of.level) == ("path_tracing", level) and of.boxes is None
        assert line["start"]["name"] in of.question and line["end"]["name"] == of.answer
        names = [icon["name"] for each in of.truth["lines"] for icon in (each["start"], each["end"])]
        assert len(set(names)) == len(names)
        for each in of.truth["lines"]:
            for icon, point in ((each["start"], each["points"][0]), (each["end"], each["points"][-1])):
                x1, y1, x2, y2 = icon["box"]
                assert abs((x1 + x2) / 2 - point[0]) < 0.02 and abs((y1 + y2) / 2 - point[1]) < 0.02


def test_a_reference_begins_and_ends_in_its_icons_and_grows_with_the_level() -> None:
    points = {level: [frames(case(seed, level)) for seed in range(8)] for level in LEVELS}
    mean = {level: np.mean([len(each) for each in points[level]]) for level in LEVELS}
    assert 6 <= mean["easy"] <= 10 and sorted(LEVELS, key=lambda level: mean[level]) == list(LEVELS)
    assert max(len(each) for each in points["nightmare"]) > 30
    for of in (case(seed, level) for level in LEVELS for seed in range(4)):
        labels = [p.label for p in parse(of.response)]
        assert labels[0] == asked(of)["start"]["name"] and labels[-1] == of.answer and not any(labels[1:-1])


def test_levels_have_their_number_of_lines() -> None:
    counts = {level: {len(case(seed, level).truth["lines"]) for seed in range(12)} for level in LEVELS}
    assert counts == {"easy": {2, 3}, "medium": {4}, "hard": {5, 6}, "nightmare": {8, 9, 10}}


def test_the_place_of_the_end_is_balanced_over_any_run_of_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []

    def recorded(*given: Any) -> Tangle:
        tangle = draw_tangle(*given)
        drawn.append(tangle.leads_to)
        return tangle

    monkeypatch.setattr(path_tracing, "draw_tangle", recorded)
    places: Counter[tuple[int, int]] = Counter()
    for seed in range(200, 300):
        start = PATH_TRACING.case(seed, "easy", "train").truth["asked"]
        places[len(drawn[-1]), drawn[-1][start]] += 1
    assert places == dict.fromkeys([(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)], 20)


def chosen_by(of: Case, rule: Callable[[np.ndarray, np.ndarray], int]) -> bool:
    """Whether the end that a rule picks, from the start's middle [2] and the ends' [n, 2], is the right one."""
    start, ends = np.array(asked(of)["points"][0]), np.array([line["points"][-1] for line in of.truth["lines"]])
    return rule(start, ends) == of.truth["asked"]


def nearest(start: np.ndarray, ends: np.ndarray) -> int:
    return int(np.hypot(*(ends - start).T).argmin())


def farthest(start: np.ndarray, ends: np.ndarray) -> int:
    return int(np.hypot(*(ends - start).T).argmax())


def straight_across(start: np.ndarray, ends: np.ndarray) -> int:
    """The end that is least off the level or the upright through the start."""
    return int(np.abs(ends - start).min(axis=1).argmin())


@pytest.mark.slow
@pytest.mark.parametrize("rule", [nearest, farthest, straight_across])
@pytest.mark.parametrize("level", LEVELS)
def test_where_things_stand_does_not_tell_the_end(level: str, rule: Callable[[np.ndarray, np.ndarray], int]) -> None:
    cases = [case(seed, level) for seed in range(600)]
    chance = np.mean([1 / len(of.truth["lines"]) for of in cases])
    right = np.mean([chosen_by(of, rule) for of in cases])
    assert abs(right - chance) < 3.5 * np.sqrt(chance * (1 - chance) / len(cases)), (right, chance)


def test_no_case_of_one_split_is_a_case_of_another() -> None:
    drawn = [PATH_TRACING.case(seed, "easy", split) for split in SPLITS for seed in range(6)]
    assert len({of.image.tobytes() for of in drawn}) == len(drawn)
    again = PATH_TRACING.case(3, "easy", "validation")
    assert again.image.tobytes() == drawn[9].image.tobytes() and again.response == drawn[9].response


def test_the_suite_is_found_by_its_name() -> None:
    assert suite_of("path_tracing") is PATH_TRACING
    with pytest.raises(ValueError, match="easy, medium, hard, nightmare"):
        PATH_TRACING.case(0, "trivial", "train")


def test_the_line_in_the_truth_is_the_line_on_the_image() -> None:
    """Pixels far from every line and icon are ground: in a tangle of one grey style, nothing else is as dark."""
    of = next(c for c in map(case, range(40)) if c.kind == "one style")
    pixels = np.asarray(of.image).astype(int)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    strange = np.argwhere(np.abs(pixels - ground).max(axis=2) > 50)[:, ::-1].astype(np.float64) + 0.5
    lines = [np.array(line["points"]) for line in of.truth["lines"]]
    boxes = [line[side]["box"] for line in of.truth["lines"] for side in ("start", "end")]
    off = np.min([distances(strange, line) for line in lines], axis=0)
    for x1, y1, x2, y2 in boxes:
        inside = (strange >= (x1 - 2, y1 - 2)).all(axis=1) & (strange <= (x2 + 2, y2 + 2)).all(axis=1)
        off[inside] = 0
    assert len(strange) > 500 and off.max() < 5
