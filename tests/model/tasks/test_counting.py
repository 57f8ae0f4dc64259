from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.primitives import parse
from model.prompt import END_THINK
from model.tasks import counting, products, scenes, shapes
from model.tasks.counting import KINDS, SUITE, WEIGHTS, judge
from model.tasks.counting_plans import LEVELS
from model.tasks.looks import HELD_OUT_LOOKS, TRAINING_LOOKS, Look, choose_look
from model.tasks.pictograms import HELD_OUT_KINDS
from model.tasks.pictograms import KINDS as PICTOGRAMS
from model.tasks.scenes import COLORS, SHAPES, SIZES
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
NEW_LEVELS = tuple(LEVELS)
NOUNS = sorted({*PICTOGRAMS, *SHAPES, *products.KINDS}, key=len, reverse=True)


@cache
def some(level: str, count: int = 40, split: Split = "validation") -> tuple[Case, ...]:
    return tuple(SUITE.case(seed, level, split) for seed in range(count))


def word(words: Sequence[str], question: str) -> str | None:
    """The first of the words that a question names, in the singular or plural."""
    plain = f" {question.translate(str.maketrans('', '', '.?:'))} "
    return next((each for each in words if f" {each} " in plain or f" {products.plural(each)} " in plain), None)


def counted(case: Case) -> list[list[float]]:
    """The boxes of what a question is about, from its words alone."""
    question = case.question.lower()
    color, size = word(COLORS, question), word(SIZES, question)
    noun = word(NOUNS, question)
    part = re.search(r"in the ([a-z ]+) (?:half|quarter)", question)
    row = re.search(r"on the (top|middle|bottom) shelf", question)
    return [
        thing["box"] for thing in case.truth["things"]
        if (noun is None or thing["noun"] == noun) and (color is None or thing["color"] == color)
        and (size is None or thing["size"] == size) and (part is None or lies(thing["box"], part[1], case.size))
        and (row is None or thing["shelf"] == f"{row[1]} shelf")
    ]  # fmt: skip


def lies(box: list[float], part: str, size: tuple[int, int]) -> bool:
    """Whether a box lies in a part of the image, wholly; it never lies across its border."""
    spans = {"left": (0, 0), "right": (0, 1), "top": (1, 0), "bottom": (1, 1)}
    inside = []
    for axis, second in (spans[each] for each in part.split()):
        middle = size[axis] / 2
        assert box[axis + 2] < middle - 2 or box[axis] > middle + 2, (box, size)
        inside.append((box[axis] > middle) == bool(second))
    return all(inside)


@pytest.mark.parametrize("level", SUITE.levels)
def test_the_reference_response_earns_full_marks(level: str) -> None:
    for case in some(level):
        verdict = judge(case, case.response)
        assert verdict.score == 1.0 and verdict.exact and verdict.well_formed, (case.question, verdict)
        assert verdict.iou is None if not case.boxes else verdict.iou is not None and verdict.iou > 0.9


@pytest.mark.parametrize("level", SUITE.levels)
def test_the_answer_is_what_the_words_of_the_question_select(level: str) -> None:
    for split in SPLITS:
        for case in some(level, 40, split):
            boxes = counted(case)
            assert sorted(boxes) == [list(box) for box in case.boxes or ()], (case.question, case.answer)
            assert case.answer == str(len(boxes))


@pytest.mark.parametrize("level", NEW_LEVELS)
def test_every_number_comes_as_often_as_any_other_in_each_kind_of_question(level: str) -> None:
    strata = len(KINDS) * (LEVELS[level].most + 1)
    tally = Counter((case.kind, case.answer) for case in some(level, strata))
    assert tally == Counter((kind, str(number)) for kind in KINDS for number in range(LEVELS[level].most + 1))


def test_a_coarse_question_is_boxed_at_once_and_a_fine_one_scanned_thing_by_thing() -> None:
    for case in some("medium"):
        tags = [primitive.group for primitive in parse(case.response)]
        if case.kind == "coarse":
            assert len(set(tags)) <= 1
        else:
            assert len(set(tags)) == len(tags)
        assert all(primitive.part == "reasoning" for primitive in parse(case.response))
        assert f"{case.answer} in total." in case.response


def test_a_scan_names_near_misses_for_what_they_are() -> None:
    misses = [
        (case, primitive.label) for case in some("medium") if case.kind in ("attribute", "position")
        for primitive in parse(case.response) if primitive.label != case.truth["label"]
    ]  # fmt: skip
    assert len(misses) > 10
    for case, label in misses:
        assert label is not None and label.split()[0 if case.kind == "attribute" else -2] not in case.truth["label"]


def test_a_case_can_be_written_as_json() -> None:
    for level in SUITE.levels:
        for case in some(level):
            assert json.loads(json.dumps([case.truth, case.boxes])) is not None


def test_what_training_sees_holds_no_kind_that_is_kept_for_the_test_split() -> None:
    nouns = {
        split: {
            thing["noun"] for level in NEW_LEVELS for case in some(level, 40, split) for thing in case.truth["things"]
        }
        for split in SPLITS
    }
    assert not (nouns["train"] | nouns["validation"]) & set(HELD_OUT_KINDS)
    assert len(nouns["test"] & set(HELD_OUT_KINDS)) > 10 and len(nouns["test"] - set(HELD_OUT_KINDS)) > 40


@pytest.mark.parametrize("split", SPLITS)
def test_a_case_has_the_looks_of_its_split(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[Look] = set()

    def recorded(rng: np.random.Generator, of: Split) -> Look:
        seen.add(look := choose_look(rng, of))
        return look

    monkeypatch.setattr(counting, "choose_look", recorded)
    for seed in range(30):
        SUITE.case(seed, "easy", split)
    assert len(seen) > 2 and seen <= set(HELD_OUT_LOOKS if split == "test" else TRAINING_LOOKS)


def test_no_two_splits_or_levels_share_an_image_and_a_seed_gives_the_same_case() -> None:
    cases = [SUITE.case(seed, level, split) for level in SUITE.levels for split in SPLITS for seed in range(5)]
    assert len({case.image.tobytes() for case in cases}) == len(cases)
    again = SUITE.case(2, "hard", "test")
    assert (again.image.tobytes(), again.question, again.response) == next(
        (case.image.tobytes(), case.question, case.response) for case in some("hard", 3, "test")[2:]
    )


def test_images_are_of_the_size_of_photos_on_a_page() -> None:
    for level in SUITE.levels:
        for case in some(level):
            assert min(case.size) >= 160 and max(case.size) <= 336
            for x1, y1, x2, y2 in case.boxes or ():
                assert x1 >= 0 and y1 >= 0 and x2 <= case.size[0] and y2 <= case.size[1] and max(x2 - x1, y2 - y1) >= 15


# ---- what each damage costs

DAMAGED = settings(deadline=None, max_examples=25)
CASES = st.builds(lambda seed, level: SUITE.case(seed, level, "train"), SEEDS, st.sampled_from(SUITE.levels))


def targets_of(case: Case) -> list[int]:
    """Which of the response's boxes count towards the answer."""
    return [i for i, each in enumerate(parse(case.response)) if each.label == case.truth["label"]]


def pick(case: Case, share: float) -> tuple[int, int] | None:
    """One of the boxes that count, and how many do; None where none does."""
    targets = targets_of(case)
    return (targets[int(share * len(targets))], len(targets)) if targets else None


SHARES = st.floats(0, 1, exclude_max=True)


@DAMAGED
@given(CASES, SHARES)
def test_a_shifted_box_costs_its_part_of_the_boxes(case: Case, share: float) -> None:
    if (picked := pick(case, share)) is not None:
        verdict = judge(case, shifted(case.response, picked[0]))
        assert verdict.parts["boxes"] == pytest.approx(1 - 1 / picked[1])
        assert verdict.score == pytest.approx(1 - WEIGHTS["boxes"] / picked[1])
        assert verdict.exact and verdict.iou is not None and verdict.iou < 1 - 0.4 / picked[1]


@DAMAGED
@given(CASES, SHARES)
def test_a_duplicate_box_costs_boxes_tally_and_form(case: Case, share: float) -> None:
    if (picked := pick(case, share)) is not None:
        parts = judge(case, doubled(case.response, picked[0])).parts
        assert parts == {"count": 1, "boxes": pytest.approx(1 - 1 / (picked[1] + 1)), "tally": 0, "form": 0}


@DAMAGED
@given(CASES, SHARES)
def test_a_missing_box_costs_boxes_and_tally(case: Case, share: float) -> None:
    if (picked := pick(case, share)) is not None:
        parts = judge(case, without(case.response, picked[0])).parts
        assert parts == {"count": 1, "boxes": pytest.approx(1 - 1 / picked[1]), "tally": 0, "form": 1}


@DAMAGED
@given(CASES, st.integers(1, 4))
def test_a_wrong_number_costs_by_how_wrong_it_is(case: Case, off: int) -> None:
    verdict = judge(case, answering(case.response, str(int(case.answer) + off)))
    curve = math.exp(-3 * off / (int(case.answer) + 1))
    assert verdict.parts == {"count": pytest.approx(curve), "boxes": 1, "tally": 0, "form": 1}
    assert not verdict.exact


@DAMAGED
@given(CASES, st.integers(0, 200))
def test_a_broken_tag_costs_the_form(case: Case, which: int) -> None:
    verdict = judge(case, tag_broken(case.response, which))
    assert verdict.parts["form"] == 0 and not verdict.well_formed and verdict.score <= 1 - WEIGHTS["form"] + 1e-9


@DAMAGED
@given(CASES)
def test_a_response_that_never_ends_its_thinking_has_no_answer(case: Case) -> None:
    verdict = judge(case, never_ending(case.response))
    assert verdict.parts == {"count": 0, "boxes": 1, "tally": 0, "form": 0} and not verdict.exact


def test_a_near_miss_boxed_as_a_target_costs_boxes_and_tally() -> None:
    case = next(c for c in some("medium") if c.kind == "attribute" and len(parse(c.response)) > int(c.answer) > 0)
    miss = next(each.label for each in parse(case.response) if each.label != case.truth["label"])
    parts = judge(case, case.response.replace(f"｜>{miss}<｜", f"｜>{case.truth['label']}<｜")).parts
    assert parts["boxes"] < 1 and parts["tally"] == 0 and parts["count"] == 1


def test_boxes_count_under_the_plural_or_without_a_label() -> None:
    case = next(c for c in some("medium") if c.kind == "coarse" and int(c.answer) > 1)
    label = case.truth["label"]
    assert judge(case, case.response.replace(f"｜>{label}<｜", f"｜>{case.truth['plural'].title()}<｜")).score == 1.0
    assert judge(case, case.response.replace(f"<｜ref｜>{label}<｜/ref｜>", "")).score == 1.0


@pytest.mark.parametrize(
    ("answer", "right"),
    [("{n}", True), (" {n}.\n", True), ("There are {n} cups.", True), ("{n} or 3", False), ("many", False), ("", False),
     ("{n}" * 12, False)],
)  # fmt: skip
def test_an_answer_is_the_one_number_in_it(answer: str, right: bool) -> None:
    case = next(c for c in some("hard") if c.answer == "7")
    verdict = judge(case, answering(case.response, answer.format(n=7)))
    assert verdict.exact is right and verdict.parts["count"] == float(right)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(
    ["<｜ref｜>", "<｜/ref｜>", "<｜box｜>", "<｜/box｜>", END_THINK, "[[1,2,30,40]]", "[", "]", "7", ",", "cup", "999"]
)))  # fmt: skip
def test_whatever_a_model_writes_is_judged(pieces: list[str]) -> None:
    verdict = judge(some("medium")[0], "".join(pieces))
    assert 0.0 <= verdict.score <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("level", SUITE.levels)
def test_over_two_thousand_cases_references_are_perfect_and_answers_balance(level: str) -> None:
    cases = [without_pixels(SUITE.case(seed, level, "train")) for seed in range(2000)]
    assert all(judge(case, case.response).score == 1.0 for case in cases)
    for kind in {case.kind for case in cases}:
        of_kind = [case for case in cases if case.kind == kind]
        blind, commonest = blind_score(of_kind)
        assert blind < commonest + 0.06, (kind, blind, commonest)  # a tenth of 250 has a deviation of 0.02
        if level != "shapes":
            shares = Counter(case.answer for case in of_kind)
            even = 1 / (LEVELS[level].most + 1)
            assert all(abs(count / len(of_kind) - even) < 0.02 for count in shares.values()), (kind, shares)
            assert len(shares) == LEVELS[level].most + 1


@pytest.mark.slow
def test_the_shapes_level_has_the_answers_of_the_lesson() -> None:
    lesson: Counter[str] = Counter()
    for seed in range(1500):
        rng = shapes.scene_rng(seed, "test")
        scene = scenes.draw(rng, width=168, height=168, count=(1, 6), layouts=shapes.layouts("test"))
        lesson[shapes.pose(scene, rng, ["count"]).answer] += 1
    drawn = Counter(case.answer for case in some("shapes", 1500, "test"))
    assert all(abs(lesson[answer] - drawn[answer]) / 1500 < 0.05 for answer in "0123456")
