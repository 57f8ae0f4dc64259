"""Keys: the same question under the same conditions gives the same key, anything else another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.keys import Asked, Conditions, among, mode_of, row_keys, short

HERE = Conditions("native", "abc", 256, "auto", None, None, 0.0, None, None)
ASKED = Asked("i", "x.png", ["Where?", "How many?"], ["on", "off"])


def keys(asked: Asked = ASKED, terms: Conditions = HERE) -> list[str]:
    return row_keys(asked, terms, terms.digest())


def test_each_part_of_what_is_asked_makes_another_key() -> None:
    others = [
        ASKED._replace(image_id="j"), ASKED._replace(address="y.png"), ASKED._replace(address=None),
        ASKED._replace(questions=["Where", "How many"]), ASKED._replace(modes=["auto", "on"]),
    ]  # fmt: skip
    found = [key for asked in (ASKED, *others) for key in keys(asked)]
    assert len(set(found)) == len(found) == 12


def test_each_condition_makes_another_key_except_a_mode_that_no_row_takes() -> None:
    changes: list[dict[str, Any]] = [
        {"engine": "x"}, {"model_revision": "d"}, {"max_output_tokens": 1}, {"temperature": 1.0}, {"top_p": 0.5},
        {"seed": 1},
    ]  # fmt: skip
    assert len({keys(terms=replace(HERE, **change))[0] for change in changes} | {keys()[0]}) == 7
    assert keys(terms=replace(HERE, primitives="on")) == keys()
    assert keys(ASKED._replace(modes=None), replace(HERE, primitives="on")) == keys(ASKED._replace(modes=["on"]))


def test_the_same_question_asked_twice_is_two_rows() -> None:
    assert len(set(keys(ASKED._replace(questions=["Where?", "Where?"], modes=None)))) == 2


def test_a_changed_question_leaves_its_neighbours_keys_alone() -> None:
    assert keys(ASKED._replace(questions=["Where?", "How big?"]))[0] == keys()[0]


def test_one_mode_stands_for_all_several_for_one_each() -> None:
    assert [mode_of(["on"], 5), mode_of(["on", None], 0), mode_of(["on", None], 1), mode_of(["on", "off"], 2)] == [
        "on", "on", None, None,
    ]  # fmt: skip
    assert mode_of(None, 0) is mode_of([], 0) is None


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_membership_is_that_of_sets(some: list[int], known: list[int]) -> None:
    got = among(np.array(some, np.uint64), np.sort(np.array(known, np.uint64)))
    assert got.tolist() == [key in set(known) for key in some]


@given(st.lists(st.text("0123456789abcdef", min_size=32, max_size=32)))
def test_short_keys_are_the_first_half_as_a_number(long: list[str]) -> None:
    assert short(long).tolist() == [int(key[:16], 16) for key in long]
