"""The public easy-VQA set, counted and asked as a suite."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from model.primitives import parse
from pipeline.benchmark import easy_vqa

pytest.importorskip("easy_vqa", reason="easy-vqa is a dev extra: pip install -e '.[dev]'")


def test_its_own_figures_come_out() -> None:
    assert (easy_vqa.size("test"), easy_vqa.size("train")) == (9_673, 38_575)
    assert len(easy_vqa._questions("test").paths) == 1_000
    assert len(easy_vqa._questions("train").paths) == 4_000
    asked = set(easy_vqa._questions("test").images)
    assert asked == set(easy_vqa._questions("test").paths)


def test_every_test_question_is_of_a_kind_that_its_answer_fits() -> None:
    every = easy_vqa._questions("test")
    kinds: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for text, answer in zip(every.texts, every.answers, strict=True):
        kinds.setdefault(easy_vqa._kind(text), set()).add(answer)
        counts[easy_vqa._kind(text)] += 1
    assert counts["yes or no"] == 7_136
    assert kinds["yes or no"] == {"yes", "no"} and kinds["shape"] == {"circle", "rectangle", "triangle"}
    assert len(kinds["color"]) == 8


def test_a_case_is_a_question_with_its_image_and_its_reference_scores_full() -> None:
    suite = easy_vqa.suite()
    first, last = (suite.case(seed, easy_vqa.LEVEL, "test") for seed in (0, 9_672))
    assert (first.question, first.answer, first.size) == ("what is the red shape?", "triangle", (64, 64))
    for case in (first, last):
        assert suite.judge(case, case.response).score == 1
        assert suite.judge(case, "</think>purple").score == 0


def test_a_reference_points_at_what_is_asked_for_or_says_that_there_is_none() -> None:
    suite, pointing, kinds = easy_vqa.suite(), 0, set()
    for seed in range(0, 9_000, 45):
        case = suite.case(seed, easy_vqa.LEVEL, "test")
        thinking, _, answer = case.response.partition("</think>")
        assert answer == case.answer
        if not thinking:
            continue
        words, boxes = case.question.rstrip("?").split(), parse(case.response)
        (label,) = re.findall("<｜ref｜>(.*?)<｜/ref｜>", thinking)
        if case.answer not in ("yes", "no"):
            color, shape = label.split()
            assert color in easy_vqa.COLORS and shape in easy_vqa.SHAPES and case.answer in (color, shape) and boxes
        else:
            assert label in case.question and (bool(boxes) or thinking.endswith("none"))
            assert (case.answer == "yes") is (bool(boxes) is not bool({"no", "not"} & set(words)))
            kinds.add((bool(boxes), case.answer))
        # Its own colour fills at least half of the box (a triangle's), and nothing of what lies around it.
        for box in boxes:
            pointing += 1
            x1, y1, x2, y2 = (round(v * 64 / 999) for v in box.frame)
            pixels = np.asarray(case.image, dtype=float)
            out = np.abs(pixels - np.median(np.concatenate([pixels[0], pixels[-1]]), axis=0)).sum(axis=2) > 60
            assert out[y1:y2, x1:x2].mean() > 0.4 and out.sum() == out[y1:y2, x1:x2].sum()
    assert pointing > 60 and len(kinds) == 4


def test_train_and_test_show_different_images() -> None:
    suite = easy_vqa.suite()
    images = {split: suite.case(0, easy_vqa.LEVEL, split).image.tobytes() for split in ("train", "test")}
    assert images["train"] != images["test"]


def test_what_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="has the splits train and test, got 'validation'"):
        easy_vqa.size("validation")
    with pytest.raises(ValueError, match="9673 test questions"):
        easy_vqa.suite().case(9_673, easy_vqa.LEVEL, "test")
