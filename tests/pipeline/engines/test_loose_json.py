"""JSON in loose text: found between words and in fences, and what is not JSON stays prose."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.loose_json import prose_of, values_in

words = st.text(alphabet="abc .:\n")
values = st.recursive(
    st.integers() | st.text() | st.booleans() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
).filter(lambda value: isinstance(value, list | dict))


@given(before=words, value=values, between=words, other=values, after=words)
def test_values_are_found_wherever_they_stand(
    before: str, value: object, between: str, other: object, after: str
) -> None:
    text = before + json.dumps(value) + between + json.dumps(other) + after
    assert [found for found, _, _ in values_in(text)] == [value, other]


@given(text=st.text())
def test_text_without_brackets_is_prose(text: str) -> None:
    text = text.translate(dict.fromkeys(map(ord, "[{`")))
    assert prose_of(text) == text.strip()


def test_objects_and_fences_leave_the_prose_and_plain_lists_stay() -> None:
    assert prose_of('Here:\n```json\n[{"a": 1}]\n```\ndone [1].').split() == ["Here:", "done", "[1]."]


def test_of_an_object_that_breaks_off_the_whole_ones_inside_are_found() -> None:
    assert [value for value, _, _ in values_in('{"a": {"b": 1}, "c": [')] == [{"b": 1}]
