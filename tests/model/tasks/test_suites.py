"""The list of suites: five, each drawing what it says, in values that JSON can write."""

from __future__ import annotations

import json

import pytest

from model.tasks.suites import SUITES, suite_of

LEVELS = [(name, level) for name, suite in SUITES.items() for level in suite.levels]


def test_there_are_the_five_suites_of_the_paper() -> None:
    assert sorted(SUITES) == ["counting", "maze", "path_tracing", "reading", "spatial"]
    assert all(suite_of(name).name == name for name in SUITES)
    with pytest.raises(ValueError, match="choose from"):
        suite_of("chess")


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_case_repeats_and_its_truth_can_be_written_as_json_and_judged_again(name: str, level: str) -> None:
    case, again = (SUITES[name].case(5, level, "validation") for _ in range(2))
    assert (case.suite, case.level, case.question, case.response) == (name, level, again.question, again.response)
    assert case.image.tobytes() == again.image.tobytes()
    assert json.loads(json.dumps(case.truth)) == case.truth
    assert SUITES[name].judge(case, case.response).score == 1.0
    assert SUITES[name].judge(case, "").score < 0.2
