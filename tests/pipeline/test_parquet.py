"""Parquet: ids of content, and what is asked of a row without its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.keys import Asked
from tests.pipeline.test_catalog import IDS, opened, parquet, rows_of


@pytest.mark.parametrize("cells", [[b"one", b"two", b"one"], ["one.png", "two.png", "one.png"]])
def test_without_an_id_column_ids_are_of_the_image_and_its_questions(cells: list[Any], tmp_path: Path) -> None:
    asked = [["a?"], ["a?"], ["b?"]]
    catalog = opened(parquet(tmp_path, {"image": cells, "questions": asked}))
    ids = [row["image_id"] for row in rows_of(catalog)]
    assert len(set(ids)) == 3 and all(id_.startswith("sha-") for id_ in ids) and catalog.check() == 3
    assert [row.image_id for row in catalog.asked()] == ids
    order = [2, 0, 1]
    moved = parquet(tmp_path, {"image": [cells[n] for n in order], "questions": [asked[n] for n in order]}, "m.parquet")
    assert [row["image_id"] for row in rows_of(opened(moved))] == [ids[n] for n in order]


def test_the_same_image_with_the_same_questions_is_refused_where_content_is_the_id(tmp_path: Path) -> None:
    file = parquet(tmp_path, {"image": [b"one", b"two", b"one"]})
    with pytest.raises(ValueError, match=r"1 ids of .* repeat, e.g. 'sha-[0-9a-f]{24}' in rows 0 and 2"):
        opened(file, question=["Q?"]).check()
    nothing = parquet(tmp_path, {"image": pa.array([b"one", None], pa.binary())}, "n.parquet")
    with pytest.raises(ValueError, match=r"1 rows of .* have no id, e\.g\. rows 1"):
        opened(nothing, question=["Q?"]).check()


def test_what_is_asked_is_known_without_the_images(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"one", "path": "one.png"}, {"bytes": None, "path": "two.png"}, None])
    columns = {
        "image_id": IDS,
        "image": image,
        "questions": [["a?", " "], [], ["c?"]],
        "primitives": [["on"], None, []],
    }
    assert list(opened(parquet(tmp_path, columns)).asked()) == [
        Asked("a", "one.png", ["a?", None], ["on"]), Asked("b", "two.png", [None], None), Asked("c", None, ["c?"], []),
    ]  # fmt: skip
