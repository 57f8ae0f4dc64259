"""The public easy-VQA set as a suite: one drawn shape on 64x64 pixels, questions answered by a word.

The package `easy-vqa` holds its 4,000 training and 1,000 test images. A case's seed is its place in the set's list;
the train split is for training and for the blind guesser, and there is no validation split.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import NamedTuple

from PIL import Image

from model.prompt import END_THINK
from model.tasks.general import judge
from model.tasks.suite import Case, Split, Suite

NAME = "easy-vqa"
LEVEL = "given"


class _Questions(NamedTuple):
    texts: list[str]
    answers: list[str]
    images: list[int]
    paths: dict[int, str]


def suite() -> Suite:
    """The set as a suite. ValueError when its package is not installed."""
    _questions("test")
    return Suite(NAME, (LEVEL,), {"answer": 1.0}, _case, judge)


def size(split: Split) -> int:
    """How many questions a split has. ValueError for the validation split, or without the package."""
    return len(_questions(split).texts)


@cache
def _questions(split: Split) -> _Questions:
    if split not in ("train", "test"):
        raise ValueError(f"easy-VQA has the splits train and test, got {split!r}")
    if importlib.util.find_spec("easy_vqa") is None:
        raise ValueError("easy-VQA is not installed: pip install -e '.[dev]', or pip install easy-vqa")
    import easy_vqa

    texts, answers, images = easy_vqa.get_train_questions() if split == "train" else easy_vqa.get_test_questions()
    paths = easy_vqa.get_train_image_paths() if split == "train" else easy_vqa.get_test_image_paths()
    return _Questions(texts, answers, images, paths)


def _case(seed: int, level: str, split: Split) -> Case:
    every = _questions(split)
    if not 0 <= seed < len(every.texts):
        raise ValueError(f"easy-VQA has {len(every.texts)} {split} questions: a seed is below that, got {seed}")
    question, answer = every.texts[seed], every.answers[seed]
    with Image.open(every.paths[every.images[seed]]) as file:
        image = file.convert("RGB")
    return Case(NAME, level, _kind(question), image, question, answer, f"{END_THINK}{answer}")


def _kind(question: str) -> str:
    if "what" not in question:
        return "yes or no"
    return "color" if "color" in question else "shape"
