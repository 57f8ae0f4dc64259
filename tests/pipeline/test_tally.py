"""Sums over answer rows, by column."""

from __future__ import annotations

import json

from pipeline.tally import Tally, tally_of
from tests.pipeline.test_sink import bad_row, block, ok_row


def test_tallies_add_up_over_files() -> None:
    total = Tally()
    first = ok_row("a", 0, gold_exact=True, gold_iou=0.5, read_seconds=0.25)
    total.add(tally_of(block(first, ok_row("a", 1, gold_exact=False))))
    total.add(tally_of(block(bad_row("b", 0), bad_row("b", 1, kind="denied"))))
    assert (total.rows, total.ok, total.images, total.images_ok, total.error_rows) == (4, 2, 2, 1, 2)
    assert total.errors == {"fetch/missing": 1, "fetch/denied": 1} and total.notes == {"turned": 1}
    assert (total.cut_off, total.shared_prefill, total.prompt_tokens, total.output_tokens) == (1, 1, 120, 24)
    assert (total.gold_answers, total.gold_exact, total.gold_boxes, total.gold_iou) == (2, 1, 1, 0.5)
    assert total.microseconds["read"] == 250_000
    assert [row["image_id"] for row in total.first] == ["a", "a"]
    assert json.dumps(vars(total))


def test_a_block_of_nothing_sums_to_nothing() -> None:
    tally = tally_of(block())
    assert (tally.rows, tally.ok, tally.images, dict(tally.errors), tally.first) == (0, 0, 0, {}, [])


def test_only_so_many_rows_are_kept_to_be_shown() -> None:
    assert len(tally_of(block(*(ok_row("a", n) for n in range(9))), shown=4).first) == 4
