"""The public easy-VQA set as a suite: one drawn shape on 64x64 pixels, questions answered by a word.

The package `easy-vqa` holds its 4,000 training and 1,000 test images. A case's seed is its place in the set's list;
the train split is for training and for the blind guesser, and there is no validation split.

A reference response points at what a question asks for, or says that there is none, and then answers: of "is there not
a teal shape?" and "what is the blue shape?"

    <｜ref｜>teal shape<｜/ref｜>none</think>yes
    <｜ref｜>blue triangle<｜/ref｜><｜box｜>[[500,484,702,656]]<｜/box｜></think>triangle

The set has no boxes and no facts. The box is that of the pixels that stand out; name and colour are what all questions
on an image say together, and where they leave one open (one image in ten) the response is the bare answer.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from model.primitives import format_boxes
from model.prompt import END_REF, END_THINK, REF
from model.tasks.general import judge
from model.tasks.matching import Box
from model.tasks.suite import Case, Split, Suite, to_frame

NAME = "easy-vqa"
LEVEL = "given"
COLORS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})
SHAPES = frozenset({"circle", "rectangle", "triangle"})
_STANDS_OUT = 60.0  # of red, green and blue together: the ground's noise is less, and the faintest shape more
_DENIES = re.compile(r"\b(no|not)\b")


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
    response = _thinking(question, answer, _shown(split)[every.images[seed]], image) + f"{END_THINK}{answer}"
    return Case(NAME, level, _kind(question), image, question, answer, response)


def _kind(question: str) -> str:
    if "what" not in question:
        return "yes or no"
    return "color" if "color" in question else "shape"


def _thinking(question: str, answer: str, shown: tuple[str, str] | None, image: Image.Image) -> str:
    if shown is None:
        return ""
    label = " ".join(shown)
    if answer in ("yes", "no"):
        (asked,) = {*question.rstrip("?").split()} & (COLORS | SHAPES)
        label = f"{asked} shape" if asked in COLORS else asked
        if (answer == "yes") is bool(_DENIES.search(question)):
            return f"{REF}{label}{END_REF}none"
    return format_boxes(label, [to_frame(_box(image), image.size)])


@cache
def _shown(split: Split) -> dict[int, tuple[str, str] | None]:
    """Colour and shape of each image of a split; None where its questions leave either open."""
    every = _questions(split)
    true: dict[int, set[str]] = {image: set() for image in every.paths}
    false: dict[int, set[str]] = {image: set() for image in every.paths}
    for text, answer, image in zip(every.texts, every.answers, every.images, strict=True):
        denied = answer in ("yes", "no") and (answer == "no") is not bool(_DENIES.search(text))
        words = {*text.rstrip("?").split(), answer} & (COLORS | SHAPES)
        (false if denied else true)[image].update(words)

    def the_one(image: int, of: frozenset[str]) -> str | None:
        left = true[image] & of or of - false[image]
        return next(iter(left)) if len(left) == 1 else None

    pairs = {image: (the_one(image, COLORS), the_one(image, SHAPES)) for image in every.paths}
    return {image: (color, shape) if color and shape else None for image, (color, shape) in pairs.items()}


def _box(image: Image.Image) -> Box:
    """Around the pixels that stand out from the ground, in pixels."""
    pixels = np.asarray(image, dtype=np.float64)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    rows, columns = (np.abs(pixels - np.median(edge, axis=0)).sum(axis=2) > _STANDS_OUT).nonzero()
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
