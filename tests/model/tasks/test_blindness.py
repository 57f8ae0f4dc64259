"""What can be scored without looking: the best constant answers, and a prior that should know no more than they."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.tasks.blindness import advantage, best_guesses, guessed, unseen
from model.tasks.general import GENERAL
from model.tasks.suite import Case, Suite, Verdict, stratum
from model.tasks.suites import SUITES
from tests.squares import SQUARES

CASES, ERROR_BARS = 1500, 3.0


def case(answer: str, kind: str = "open", question: str = "What?", size: tuple[int, int] = (90, 60)) -> Case:
    return Case("theirs", "given", kind, Image.new("RGB", size), question, answer, f"</think>{answer}")


def test_the_guesser_gives_each_kind_its_commonest_answer() -> None:
    sample = [case("3"), case("3"), case("2"), case("no", "exists"), case("yes", "exists"), case("no", "exists")]
    guesses = best_guesses(GENERAL, sample)
    assert {kind: guess.exact for kind, guess in guesses.items()} == {"open": "3", "exists": "no"}
    assert guessed(GENERAL, case("3"), guesses)[0].exact and not guessed(GENERAL, case("2"), guesses)[0].exact
    assert not guessed(GENERAL, case("3", "another kind"), guesses)[0].exact


def test_the_best_guess_for_the_score_is_not_always_the_one_most_often_right() -> None:
    def near(one: Case, response: str) -> Verdict:
        off = abs(int(response.removeprefix("</think>")) - int(one.answer))
        return Verdict(1 / (1 + off), off == 0, True, {})

    suite = Suite("near", ("given",), {"answer": 1.0}, GENERAL.draw, near)
    guesses = best_guesses(suite, [case(answer) for answer in ("0", "0", "0", "4", "5", "5", "6", "6")])
    assert (guesses["open"].exact, guesses["open"].score) == ("0", "5")


def test_an_unseen_case_keeps_all_but_its_pixels() -> None:
    seen = SQUARES.case(3, "many", "train")
    blank = unseen(seen)
    assert blank.size == seen.size and blank.image.convert("L").getextrema() == (0, 0)
    assert SQUARES.judge(blank, seen.response) == SQUARES.judge(seen, seen.response)


def test_a_prior_that_can_know_nothing_does_not_beat_the_guesser() -> None:
    rng = np.random.default_rng(5)
    cases = [case(str(rng.integers(4)), size=(int(rng.integers(50, 90)), 60)) for _ in range(600)]
    found = advantage(cases)
    assert found.cases == 600 and 10 < found.guesser_percent < 40
    assert found.difference_percent <= ERROR_BARS * found.standard_error_percent


def test_answers_balanced_over_every_run_leave_both_at_chance() -> None:
    cases = [case(str(stratum(seed, 20)), question=f"What is {'ab'[seed % 2]}?") for seed in range(1000)]
    found = advantage(cases)
    assert found.guesser_percent == pytest.approx(5, abs=1.5) and found.prior_percent == pytest.approx(5, abs=2)


@pytest.mark.parametrize("leak", ["size", "words"])
def test_a_prior_finds_what_the_size_or_the_words_give_away(leak: str) -> None:
    cases = []
    for number in range(300):
        answer = ("yes", "no")[number % 2]
        told = number % 3 == 0  # of a third of the cases
        size = (60 if answer == "yes" else 120, 60) if leak == "size" and told else (90, 60)
        word = f"{answer}ish " if leak == "words" and told else ""
        cases.append(case(answer, question=f"Is it {word}there?", size=size))
    found = advantage(cases)
    assert found.difference_percent > 10 and found.difference_percent > ERROR_BARS * found.standard_error_percent


def test_too_few_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="needs at least two folds"):
        advantage([case("1")] * 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "level"), [(name, level) for name, suite in SUITES.items() for level in suite.levels])
def test_nothing_can_be_read_from_the_size_and_the_question_alone(name: str, level: str) -> None:
    cases = [unseen(SUITES[name].case(seed, level, "test")) for seed in range(CASES)]
    found = advantage(cases)
    assert found.difference_percent <= ERROR_BARS * found.standard_error_percent, found
