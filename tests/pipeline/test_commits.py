"""The table read back: what is there, once or twice, and the sums over all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commits import Stock, count, missing, take_back, take_stock
from tests.pipeline.test_sink import ok_row, written


def stock(keys: list[int], errors: list[bool] | None = None) -> Stock:
    flags = np.array(errors if errors is not None else [False] * len(keys), dtype=bool)
    return Stock(("p",), np.zeros(len(keys), np.int32), np.array(keys, np.uint64), flags)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans())))
def test_of_doubled_rows_one_stays_and_an_answer_rather_than_an_error(rows: list[tuple[int, bool]]) -> None:
    doubled = stock([key for key, _ in rows], [error for _, error in rows]).doubled()
    kept = [row for row, again in zip(rows, doubled.tolist(), strict=True) if not again]
    assert sorted(key for key, _ in kept) == sorted({key for key, _ in rows})
    assert {key for key, error in kept if not error} == {key for key, error in rows if not error}


def test_missing_rows_are_known_by_their_place_in_the_catalog() -> None:
    assert missing(np.array([7, 3, 9, 1], np.uint64), stock([9, 7])).tolist() == [1, 3]
    assert missing(np.array([], np.uint64), stock([])).tolist() == []


def test_sums_are_over_the_table_as_it_is_now_whoever_wrote_it(tmp_path: Path) -> None:
    def row(image: str, question: int, run: str, **trace: object) -> dict[str, object]:
        return ok_row(image, question, **trace) | {
            "run_id": run,
            "row_key": f"{image}{question}".encode().hex().zfill(32),
        }

    written(tmp_path, row("a", 0, "one", gold_exact=True, notes=["turned"]), row("a", 1, "one", gold_exact=False))
    written(tmp_path, row("b", 0, "two", gold_exact=True, read_seconds=2.0), number=1)
    whole, own, sessions = count(str(tmp_path), "two")
    assert (whole.rows, whole.images, whole.files, whole.gold_exact, whole.gold_answers) == (3, 2, 2, 2, 3)
    assert (own.rows, own.gold_exact, own.microseconds["read"]) == (1, 1, 2_000_000)
    assert sessions == {"one": 2, "two": 1} and whole.notes == {"turned": 1}
    stock = take_stock(str(tmp_path))
    take_back(str(tmp_path), stock, np.array([True, False, False]))
    whole, _, sessions = count(str(tmp_path), "two")
    assert (whole.rows, whole.images, whole.gold_exact, whole.gold_answers, whole.notes) == (2, 1, 1, 2, {})
    assert sessions == {"one": 1, "two": 1}
