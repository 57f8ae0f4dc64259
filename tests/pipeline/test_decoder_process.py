"""What is said over the pipes, and a canvas that is the model's own."""

from __future__ import annotations

import io
import mmap
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.config import Config
from model.image import plan, to_canvas
from pipeline.decoder_process import Canvas, Question, answer, fitted, pack_answer, read_answer
from pipeline.engines.views import NativeView
from tests.conftest import DEFAULT_CHECKPOINT
from tests.pipeline.pictures import broken_pictures, encoded, picture

CONFIG = Config.from_file(DEFAULT_CHECKPOINT / "config.json")
SIDES = st.integers(1, 700)


@pytest.mark.parametrize("canvas", [None, Canvas(28, 14, True), Canvas(1, 1, False)])
def test_a_question_arrives_as_it_was_sent(canvas: Canvas | None) -> None:
    asked = Question(True, 5, 1 << 33, 1 << 34, 1.5, canvas)
    assert Question.read(io.BytesIO(asked.pack())) == asked
    assert Question.read(io.BytesIO(b"half")) is None


def test_an_answer_arrives_as_it_was_sent() -> None:
    said = {"error": ["decode", "corrupt", "a \ud800 b \0 ä"]}
    assert read_answer(io.BytesIO(pack_answer(said)).read) == said


def test_pixels_beyond_the_room_for_them_are_an_error() -> None:
    data = encoded(picture())
    with mmap.mmap(-1, len(data)) as shared:
        shared[:] = data
        found = answer(Question(True, len(data), len(data), 0, 1.0, None), shared, 10**6)
    assert found["error"][:2] == ("decode", "corrupt") and "(60, 40)" in found["error"][2]


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.sampled_from([CONFIG, Config(), replace(CONFIG, vision_max_n_token=40)]))
def test_the_canvas_is_the_models_own_and_the_model_takes_it_as_it_is(width: int, height: int, config: Config) -> None:
    canvas = NativeView(config).canvas((width, height))
    if canvas is None:
        return
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    put = fitted(image, canvas)
    assert put.tobytes() == to_canvas(image, plan(width, height, config)).tobytes()
    assert to_canvas(put, plan(*put.size, config)).tobytes() == put.tobytes()
    assert plan(*put.size, config).num_patches == plan(width, height, config).num_patches


def test_most_sizes_have_a_canvas() -> None:
    sizes = [(64, 64), (256, 256), (756, 756), (640, 480), (1920, 1080), (4000, 3000), (3000, 4000)]
    for config in (CONFIG, Config()):
        assert all(NativeView(config).canvas(size) for size in sizes)
    assert NativeView(Config()).canvas((100, 2000))


def test_broken_pictures_answer_with_their_errors() -> None:
    data = broken_pictures()["cut.jpg"][0]
    with mmap.mmap(-1, 1 << 20) as shared:
        shared[: len(data)] = data
        found = answer(Question(True, len(data), 1 << 20, 0, 1.0, None), shared, 10**6)
    assert found["error"][:2] == ("decode", "truncated")
