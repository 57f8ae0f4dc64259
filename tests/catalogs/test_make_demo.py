"""The bundled catalog is what its maker makes, and what a catalog should be."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalogs.make_demo import DEMO, FORMATS, IMAGES_A_SKILL, SCHEMA, SIZES, make_shapes_row, make_skill_row
from model.tasks.suites import SUITES

MAX_BYTES = 1_500_000
ROWS: list[dict[str, Any]] = pq.read_table(DEMO).to_pylist()
SHAPES_ROWS = [row for row in ROWS if row["image_id"].startswith("shapes-")]
SKILL_ROWS = [row for row in ROWS if not row["image_id"].startswith("shapes-")]


def decode(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


@pytest.mark.parametrize("row", ROWS, ids=[row["image_id"] for row in ROWS])
def test_rebuilding_gives_the_same_row(row: dict[str, Any]) -> None:
    skill, _, index = row["image_id"].partition("-")
    assert_same(row, make_shapes_row(int(index)) if skill == "shapes" else make_skill_row(skill, int(index)))


def assert_same(bundled: dict[str, Any], made: dict[str, Any]) -> None:
    assert {key: bundled[key] for key in ("image_id", "questions", "gold_answers")} == {
        key: made[key] for key in ("image_id", "questions", "gold_answers")
    }
    for of_bundled, of_made in zip(bundled["gold_boxes"], made["gold_boxes"], strict=True):
        np.testing.assert_allclose(of_bundled, of_made, atol=1e-3)
    before, after = (np.asarray(decode(row).convert("RGB"), dtype=np.int16) for row in (bundled, made))
    assert before.shape == after.shape
    # The lossy formats may decode a level apart under another build of their libraries.
    assert np.abs(before - after).mean() <= (0 if decode(bundled).format == "PNG" else 1.0)


def test_the_catalog_has_the_declared_schema_and_is_small() -> None:
    assert pq.read_schema(DEMO).equals(SCHEMA)
    assert DEMO.stat().st_size < MAX_BYTES


def test_the_catalog_shows_every_suite_and_its_first_rows_do() -> None:
    shown = Counter(row["image_id"].partition("-")[0] for row in SKILL_ROWS)
    assert shown == {suite: IMAGES_A_SKILL for suite in SUITES}
    assert {row["image_id"].partition("-")[0] for row in ROWS[:10]} == {"shapes", *SUITES}
    for row in SKILL_ROWS:
        assert len(row["questions"]) == len(row["gold_answers"]) == len(row["gold_boxes"]) == 1
        width, height = decode(row).size
        [boxes] = row["gold_boxes"]
        assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes)


def test_ids_are_unique_and_every_size_and_format_occurs() -> None:
    assert len({row["image_id"] for row in ROWS}) == len(ROWS) == 49
    assert {decode(row).size for row in SHAPES_ROWS} == set(SIZES)
    assert {decode(row).format for row in SHAPES_ROWS} == set(FORMATS)


def test_every_image_has_two_or_three_different_questions_with_gold() -> None:
    for row in SHAPES_ROWS:
        assert 2 <= len(row["questions"]) == len(set(row["questions"])) <= 3
        assert len(row["gold_answers"]) == len(row["gold_boxes"]) == len(row["questions"])


def test_gold_boxes_lie_in_the_image_and_agree_with_the_answers() -> None:
    for row in SHAPES_ROWS:
        width, height = decode(row).size
        for answer, boxes in zip(row["gold_answers"], row["gold_boxes"], strict=True):
            assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes)
            if answer.isdigit():
                assert int(answer) == len(boxes)
            else:
                assert (answer in ("no", "none")) == (not boxes)


def test_some_questions_ask_for_what_is_not_there() -> None:
    absent = [boxes for row in SHAPES_ROWS for boxes in row["gold_boxes"] if not boxes]
    assert 5 <= len(absent) < sum(len(row["gold_boxes"]) for row in SHAPES_ROWS) / 2
