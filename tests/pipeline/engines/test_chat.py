"""One turn of chat: bodies that are no completion are told apart whatever is in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from model.sampling import GREEDY
from pipeline.engines.chat import BadResponse, body_of, data_url, shown, turn_of

values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)
near_misses = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"message": values | st.fixed_dictionaries({"content": values})},
                optional={"finish_reason": st.sampled_from(["stop", "length", "tool_calls"]) | values},
            )
            | values
        )
        | values
    },
    optional={"usage": values},
)


@given(body=st.binary() | (values | near_misses).map(lambda value: json.dumps(value).encode()))
@example(body=json.dumps({"choices": [{"message": {}, "finish_reason": ["why"] * 200}]}).encode())
def test_whatever_a_body_holds_it_is_a_turn_or_a_bad_response(body: bytes) -> None:
    try:
        turn = turn_of(body)
    except BadResponse as error:
        assert len(str(error)) < 500
    else:
        assert isinstance(turn.text, str)
        assert turn.finish_reason in ("stop", "length")


def test_the_servers_own_words_are_shown_and_long_ones_cut() -> None:
    assert shown(b'{"error": {"message": "too big"}}') == "too big"
    assert shown(b'{"error": "too big"}') == "too big"
    assert shown(b"<html>") == "<html>"
    assert len(shown(b"x" * 10_000)) < 400


def test_questions_with_broken_characters_can_be_asked() -> None:
    assert b'"max_tokens": 5' in body_of("m", "data:", "what \ud800?", 5, GREEDY, 0)


@pytest.mark.parametrize("size", [(30, 20), (15, 10)])
def test_an_image_travels_at_the_size_asked_for(size: tuple[int, int]) -> None:
    assert data_url(Image.new("RGB", (30, 20)), size).startswith("data:image/jpeg;base64,/9j/")
