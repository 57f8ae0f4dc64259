from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.prices import cents_of, written


@given(cents=st.integers(0, 9_999_999), sign=st.sampled_from(["{}", "${}", "€ {}", "£{}", "{} €", " {}. "]))
def test_a_price_reads_back_as_written_with_any_sign(cents: int, sign: str) -> None:
    assert cents_of(sign.format(written(cents))) == cents
    assert cents_of(sign.format(written(cents).replace(".", ","))) == cents


@pytest.mark.parametrize(("text", "cents"), [("3", 300), ("3.5", 350), ("03.50", 350), ("0.05", 5), ("$3.50", 350)])
def test_the_same_price_may_be_written_shorter(text: str, cents: int) -> None:
    assert cents_of(text) == cents


@pytest.mark.parametrize("text", ["", "$", ".", "3.505", "3.50 2.10", "-3.50", "3..5", "3. 50", "three", "$$3", "٣.٥٠"])
def test_other_text_is_no_price(text: str) -> None:
    assert cents_of(text) is None


def test_prices_are_written_with_two_decimals() -> None:
    assert [written(cents) for cents in (350, 5, 12_00)] == ["3.50", "0.05", "12.00"]
