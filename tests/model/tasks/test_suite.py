"""What all suites share: generators that never meet, strata that balance, answers compared as people would."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.prompt import END_THINK
from model.tasks.suite import (
    SPLITS,
    Case,
    Split,
    Suite,
    Verdict,
    final_answer,
    rng_of,
    same_answer,
    stratum,
    to_frame,
    to_pixels,
    verdict,
)

sizes = st.tuples(st.integers(30, 2000), st.integers(30, 2000))


def _draw(seed: int, level: str, split: Split) -> Case:
    return Case("words", level, "only", Image.new("RGB", (9, 9)), "what?", str(seed), f"{END_THINK}{seed}")


def _judge(case: Case, response: str) -> Verdict:
    exact = same_answer(final_answer(response), case.answer)
    return verdict(WORDS, response, {"answer": float(exact), "form": 1.0}, exact=exact)


WORDS = Suite("words", ("easy", "hard"), {"answer": 0.75, "form": 0.25}, _draw, _judge)


def test_no_two_of_suite_level_split_and_seed_share_a_generator() -> None:
    drawn = [
        rng_of(suite, level, split, seed).integers(1 << 60)
        for suite in ("counting", "maze")
        for level in ("easy", "hard")
        for split in SPLITS
        for seed in range(20)
    ]
    assert len(set(drawn)) == len(drawn)
    assert rng_of("maze", "easy", "test", 3).integers(1 << 60) == rng_of("maze", "easy", "test", 3).integers(1 << 60)


@given(first=st.integers(0, 10_000), strata=st.integers(1, 40), rounds=st.integers(1, 4))
def test_strata_come_equally_often_over_whole_rounds_of_seeds(first: int, strata: int, rounds: int) -> None:
    start = first * strata
    counts = Counter(stratum(seed, strata) for seed in range(start, start + rounds * strata))
    assert counts == dict.fromkeys(range(strata), rounds)


def test_the_order_of_strata_changes_from_round_to_round() -> None:
    rounds = {tuple(stratum(seed, 6) for seed in range(start, start + 6)) for start in range(0, 120, 6)}
    assert len(rounds) > 10


@given(size=sizes, shares=st.lists(st.floats(0, 1), min_size=2, max_size=4).filter(lambda v: len(v) % 2 == 0))
def test_pixels_come_back_from_the_frame_within_its_rounding(size: tuple[int, int], shares: list[float]) -> None:
    pixels = [share * size[axis % 2] for axis, share in enumerate(shares)]
    back = to_pixels(to_frame(pixels, size), size)
    for axis, (before, after) in enumerate(zip(pixels, back, strict=True)):
        assert abs(before - after) <= size[axis % 2] / 999 / 2 + 1e-9


def test_what_lies_off_the_image_is_put_on_its_edge() -> None:
    assert to_frame((-5.0, 70.0), (50, 50)) == (0, 999)


@pytest.mark.parametrize(
    ("response", "answer"),
    [(f"thinking{END_THINK}3", "3"), (f"{END_THINK} Yes. ", "Yes."), ("3", None), (f"{END_THINK}", "")],
)
def test_the_final_answer_follows_the_thinking_and_there_is_none_without_its_end(
    response: str, answer: str | None
) -> None:
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("given_", "due", "same"),
    [("Yes.", "yes", True), (" 3 ", "3", True), ("red star", "Red Star", True), ("33", "3", False), (None, "3", False)],
)
def test_answers_are_the_same_but_for_case_blanks_and_a_full_stop(given_: str | None, due: str, same: bool) -> None:
    assert same_answer(given_, due) is same


def test_a_score_weighs_the_parts_and_parts_are_checked() -> None:
    case = WORDS.case(7, "easy", "train")
    assert WORDS.judge(case, case.response).score == 1.0
    assert WORDS.judge(case, f"{END_THINK}8").score == 0.25
    with pytest.raises(AssertionError):
        verdict(WORDS, "", {"answer": 1.0}, exact=True)
    with pytest.raises(AssertionError):
        verdict(WORDS, "", {"answer": 1.5, "form": 0.0}, exact=True)
    with pytest.raises(AssertionError):
        Suite("words", ("easy",), {"answer": 0.5}, _draw, _judge)


def test_levels_splits_and_seeds_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="levels easy, hard; got 'harder'"):
        WORDS.case(0, "harder", "train")
    with pytest.raises(ValueError, match="split must be one of"):
        rng_of("words", "easy", "exam", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 or more"):
        rng_of("words", "easy", "test", -1)
