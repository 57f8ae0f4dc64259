"""Views: what an engine is shown, and its numbers in one form for judges, whoever wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import Config
from model.primitives import parse, well_formed
from model.tasks.suite import to_pixels
from pipeline.engines.frames import FRAMES, frame_of
from pipeline.engines.views import NativeView, SentView

sizes = st.tuples(st.integers(30, 3000), st.integers(30, 3000))
JSON = '[{"bbox_2d": [100, 200, 300, 400], "label": "red cup"}, {"bbox_2d": [500, 500, 600, 700], "label": "red cup"}]'


@given(size=sizes, name=st.sampled_from(sorted(FRAMES)))
def test_an_engine_is_sent_pictures_at_the_size_that_it_sees(size: tuple[int, int], name: str) -> None:
    view = SentView(frame_of(name), 300_000)
    canvas = view.canvas(size)
    sent = size if canvas is None else (canvas.width, canvas.height)
    assert sent == frame_of(name).sent_size(size, 300_000)
    assert canvas is None or not canvas.padded
    assert view.canvas(sent) is None  # what was brought to size stays as it is


def test_what_was_done_to_a_picture_is_said() -> None:
    view = SentView(frame_of("json"), 10_000)
    assert view.notes((50, 50)) == []
    assert view.notes((1000, 1000)) == ["reduced for the model"]
    thin = SentView(frame_of("qwen2.5-vl"), 10_000).notes((1000, 20))
    assert thin == ["reduced for the model", "squeezed for the model"]


def test_json_becomes_tags_that_a_judge_reads() -> None:
    view = SentView(frame_of("qwen3-vl"), 1_000_000)
    text = view.judged(f"{JSON}\nAnswer: 2", (800, 600))
    assert well_formed(text)
    assert text.endswith("]]<｜/box｜>") and "</think>2" in text
    first, second = parse(text)
    assert (first.label, first.group, second.item) == ("red cup", 0, 1)
    assert to_pixels(first.frame, (800, 600)) == pytest.approx((80, 120, 240, 240), abs=1)


def test_what_is_not_valid_is_not_well_formed_for_a_judge() -> None:
    view = SentView(frame_of("qwen3-vl"), 1_000_000)
    assert not well_formed(view.judged('{"bbox_2d": [900, 200, 300, 400]} Answer: 1', (800, 600)))


def test_tags_pass_to_a_judge_as_they_are_broken_ones_too() -> None:
    for text in ("<｜box｜>[[1,2,3,4]]<｜/box｜></think>1", "<｜box｜>[[1,2,3", "</think>"):
        assert SentView(frame_of("deepseek"), 1_000_000).judged(text, (80, 60)) == text
        assert NativeView(Config()).judged(text, (80, 60)) == text


@given(text=st.text(), size=sizes, name=st.sampled_from(sorted(FRAMES)))
def test_no_text_is_too_odd_for_a_judge(text: str, size: tuple[int, int], name: str) -> None:
    assert isinstance(SentView(frame_of(name), 300_000).judged(text, size), str)
