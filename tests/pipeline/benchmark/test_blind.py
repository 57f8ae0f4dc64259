"""The blind guesser on the cases of a benchmark."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from model.tasks.general import GENERAL
from model.tasks.suite import Case, Split
from pipeline.benchmark.blind import blind_figures
from pipeline.benchmark.cases import Asked
from tests.squares import SQUARES


def test_a_suites_guesser_learns_from_training_cases_and_is_tried_on_these() -> None:
    asked = [Asked(str(seed), SQUARES.case(seed, "few", "test"), SQUARES) for seed in range(60)]
    figures = blind_figures(asked, 200)
    assert figures["blind_learnt_from"] == "training cases"
    # Two kinds: 0, 1 or 2 squares; yes or no.
    assert 30 <= figures["blind_exact_percent"] <= 55
    assert 0 < figures["blind_score"] < 0.6


def test_only_training_cases_teach_the_guesser() -> None:
    drawn: list[tuple[str, str, int]] = []

    def draw(seed: int, level: str, split: Split) -> Case:
        drawn.append((level, split, seed))
        return SQUARES.draw(seed, level, split)

    blind_figures([Asked("a", SQUARES.case(5, "many", "test"), replace(SQUARES, draw=draw))], 4)
    assert drawn == [("many", "train", seed) for seed in range(4)]


def test_other_peoples_cases_are_their_own_teachers() -> None:
    image = Image.new("RGB", (9, 9))
    cases = [Case("theirs", "given", "open", image, "What?", answer, "") for answer in ("a", "a", "a", "b")]
    figures = blind_figures([Asked(str(n), case, GENERAL) for n, case in enumerate(cases)], 10)
    assert figures == {"blind_exact_percent": 75.0, "blind_score": 0.75, "blind_learnt_from": "these cases"}


def test_a_level_that_a_suite_does_not_draw_has_no_training_cases() -> None:
    case = SQUARES.case(0, "few", "test")
    given = Case(case.suite, "theirs", case.kind, case.image, case.question, case.answer, "", case.boxes, case.truth)
    assert blind_figures([Asked("a", given, SQUARES)], 10)["blind_learnt_from"] == "these cases"
