"""Primitives mode: which questions are answered by pointing, and what a checkpoint is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.pointing import SIDE_FILE, Trigger, decide
from tests.conftest import DEFAULT_CHECKPOINT

QUESTIONS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "pointing_questions.jsonl").open(encoding="utf-8")
]


def right(part: str) -> tuple[float, float]:
    """Shares of a part's questions decided right: by `decide`, and by the better of always and never."""
    asked = [row for row in QUESTIONS if row["part"] == part]
    hits = sum(decide(row["question"], "auto").point == row["point"] for row in asked)
    pointing = sum(row["point"] for row in asked)
    return hits / len(asked), max(pointing, len(asked) - pointing) / len(asked)


def test_there_are_three_hundred_questions_and_no_two_alike() -> None:
    assert len({row["question"].lower() for row in QUESTIONS}) == len(QUESTIONS) >= 300


@pytest.mark.parametrize("part", ["development", "held out"])
def test_auto_decides_at_least_95_percent_of_the_labelled_questions_right(part: str) -> None:
    share, constant = right(part)
    assert share >= 0.95
    assert constant < 0.70


def test_every_kind_of_question_is_mostly_decided_right() -> None:
    for why in {row["why"] for row in QUESTIONS}:
        asked = [row for row in QUESTIONS if row["why"] == why]
        hits = sum(decide(row["question"], "auto").point == row["point"] for row in asked)
        assert hits / len(asked) >= 0.85, why


@pytest.mark.parametrize(
    ("question", "point", "reason"),
    [
        ("How many cups are there?", True, "asks to count"),
        ("WHERE'S the cup", True, "asks where"),
        ("Which cup is full?", True, "asks which one"),
        ("What does the label say?", True, "asks to read"),
        ("Follow the red line.", True, "asks to trace"),
        ("Is there a way out of the maze?", True, "asks to navigate"),
        ("Is there a cup?", True, "asks whether a thing is there"),
        ("Describe the cup.", False, "asks about the whole image"),
        ("Is the image blurry?", False, "yes or no on the whole image"),
        ("", False, "nothing in it to point at"),
    ],
)
def test_the_reason_is_the_rule_that_decided(question: str, point: bool, reason: str) -> None:
    assert decide(question, "auto") == (point, reason)


@pytest.mark.parametrize("question", ["How many?", "Describe it."])
def test_on_and_off_are_obeyed_whatever_is_asked(question: str) -> None:
    assert decide(question, "on") == (True, "as asked")
    assert decide(question, "off") == (False, "as asked")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="choose on, off or auto"):
        decide("How many?", "sometimes")  # type: ignore[arg-type]


def test_the_words_that_trigger_pointing_are_the_checkpoints(tmp_path: Path) -> None:
    assert Trigger.of_checkpoint(tmp_path).words("How many {x}?", True) == "How many {x}?"
    (tmp_path / SIDE_FILE).write_text('{"on": "{question} Mark what you see.", "off": "Just say: {question}"}')
    trigger = Trigger.of_checkpoint(tmp_path)
    assert trigger.words("How many {x}?", True) == "How many {x}? Mark what you see."
    assert trigger.words("What is it?", False) == "Just say: What is it?"
    assert trigger.decide("Describe it.", "auto").point is False


def test_a_checkpoint_that_always_points_says_so() -> None:
    decision = Trigger.of_checkpoint(DEFAULT_CHECKPOINT).decide("Describe it.", "off")
    assert decision == (True, "this checkpoint always points")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ('{"trigger": "{question}"}', "trigger = "),
        ('{"on": "Mark it."}', "lacks {question}"),
        ('{"always": "yes"}', "always = 'yes'"),
        ('{"on": true}', "on = True"),
        ('["on"]', "may hold on and off"),
    ],
)
def test_a_side_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / SIDE_FILE).write_text(content)
    with pytest.raises(ValueError, match=said) as refused:
        Trigger.of_checkpoint(tmp_path)
    assert SIDE_FILE in str(refused.value)
