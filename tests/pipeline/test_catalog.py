"""Catalogs: where image rows come from, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog import Catalog, open_catalog
from pipeline.keys import Conditions
from pipeline.rows import IMAGE_ROWS
from pipeline.settings import Settings


def opened(catalog: Path | str, **settings: Any) -> Catalog:
    return open_catalog(Settings(catalog=str(catalog), **settings))


def parquet(folder: Path, columns: dict[str, Any], name: str = "catalog.parquet", **options: Any) -> Path:
    pq.write_table(pa.table(columns), folder / name, **options)
    return folder / name


def rows_of(catalog: Catalog) -> list[dict[str, Any]]:
    tables = [table for unit in catalog.units for table in unit.read()]
    assert all(table.schema.equals(IMAGE_ROWS) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


BYTES = pa.array([b"one", b"two", None], pa.binary())
IDS = ["a", "b", "c"]
CONDITIONS = Conditions("native", "abc", 256, "auto", None, None, 0.0, None, None)


def test_a_column_of_bytes_is_read(tmp_path: Path) -> None:
    rows = rows_of(opened(parquet(tmp_path, {"image_id": IDS, "image": BYTES}), question=["Q?"]))
    assert [(row["image_id"], row["image"], row["image_uri"]) for row in rows] == [
        ("a", b"one", None), ("b", b"two", None), ("c", None, None),
    ]  # fmt: skip
    assert all(row["questions"] == ["Q?"] for row in rows)


def test_a_struct_of_bytes_and_path_is_read(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"one", "path": "one.png"}, {"bytes": None, "path": "two.png"}, None])
    rows = rows_of(opened(parquet(tmp_path, {"image_id": IDS, "image": image}), question=["Q?"]))
    assert [(row["image"], row["image_uri"]) for row in rows] == [(b"one", "one.png"), (None, "two.png"), (None, None)]


@pytest.mark.parametrize("name", ["image", "image_uri", "url", "picture"])
def test_a_column_of_addresses_is_read(name: str, tmp_path: Path) -> None:
    catalog = opened(
        parquet(tmp_path, {"image_id": IDS, name: ["x.png", "s3://b/y.png", None]}),
        question=["Q?"],
        image_column=name if name == "picture" else None,
    )
    assert [(row["image"], row["image_uri"]) for row in rows_of(catalog)] == [
        (None, "x.png"), (None, "s3://b/y.png"), (None, None),
    ]  # fmt: skip
    assert catalog.root == str(tmp_path)


def test_bytes_keep_the_address_that_stands_beside_them(tmp_path: Path) -> None:
    rows = rows_of(opened(parquet(tmp_path, {"image_id": IDS, "image": BYTES, "image_uri": IDS}), question=["Q?"]))
    assert [row["image_uri"] for row in rows] == IDS


def test_ids_of_numbers_become_texts(tmp_path: Path) -> None:
    catalog = opened(parquet(tmp_path, {"number": [7, 8, 9], "image": BYTES}), id_column="number", question=["Q?"])
    assert [row["image_id"] for row in rows_of(catalog)] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("column", "cells", "asked", "num_rows"),
    [
        ("question", ["one?", None, " "], [["one?"], None, [" "]], 3),
        ("questions", [["one?", "two?"], [], ["three?", None]], [["one?", "two?"], [], ["three?", None]], 5),
    ],
)
def test_questions_come_from_a_column_and_none_is_dropped(
    column: str, cells: list[Any], asked: list[Any], num_rows: int, tmp_path: Path
) -> None:
    catalog = opened(parquet(tmp_path, {"image_id": IDS, "image": BYTES, column: cells}))
    assert [row["questions"] for row in rows_of(catalog)] == asked
    assert catalog.check() == num_rows


def test_questions_of_the_settings_replace_the_catalogs_and_its_gold(tmp_path: Path) -> None:
    columns = {"image_id": IDS, "image": BYTES, "questions": [["x"]] * 3, "gold_answers": [["1"]] * 3}
    file = parquet(tmp_path, columns)
    assert {row["gold_answers"][0] for row in rows_of(opened(file))} == {"1"}
    (row, *_) = rows_of(opened(file, question=["Q?", "R?"]))
    assert (row["questions"], row["gold_answers"]) == (["Q?", "R?"], None)
    assert opened(file, question=["Q?", "R?"]).check() == 6


def test_a_catalog_that_asks_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no questions"):
        opened(parquet(tmp_path, {"image_id": IDS, "image": BYTES})).check()
    with pytest.raises(ValueError, match="no questions"):
        opened(parquet(tmp_path, {"image_id": IDS, "image": BYTES, "questions": [[], [None], [""]]})).check()


def test_repeated_ids_are_refused_with_examples(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(500)] + ["i7", "i499"]
    file = parquet(tmp_path, {"image_id": ids, "image": [b""] * 502}, row_group_size=100)
    with pytest.raises(
        ValueError, match=r"2 ids of .* repeat, e.g. 'i7' in rows 7 and 500, 'i499' in rows 499 and 501"
    ):
        opened(file, question=["Q?"]).check()
    assert opened(file, question=["Q?"], limit=500).check() == 500


@pytest.mark.parametrize("missing", [None, ""])
def test_missing_ids_are_refused_with_examples(missing: str | None, tmp_path: Path) -> None:
    file = parquet(tmp_path, {"image_id": ["a", missing, missing], "image": BYTES})
    with pytest.raises(ValueError, match=r"2 rows of .* have no id, e.g. rows 1, 2"):
        opened(file, question=["Q?"]).check()


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"id": IDS, "image": BYTES}, r"no column 'image_id'.*--id-column.*id \(string\)"),
        ({"image_id": IDS, "photo": BYTES}, "no column .*--image-column"),
        ({"image_id": IDS, "image": [1, 2, 3]}, "column 'image' must hold bytes"),
        ({"image_id": IDS, "image": BYTES, "questions": [1, 2, 3]}, "column 'questions' must hold texts"),
        ({"image_id": IDS, "image": BYTES, "question": IDS, "gold_boxes": IDS}, "column 'gold_boxes' must be"),
    ],
)
def test_columns_that_do_not_fit_are_named(columns: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        opened(parquet(tmp_path, columns), id_column="image_id")


def test_a_limit_ends_the_catalog_inside_a_row_group(tmp_path: Path) -> None:
    ids = [str(n) for n in range(250)]
    file = parquet(tmp_path, {"image_id": ids, "image": [b"x"] * 250}, row_group_size=100)
    assert [row["image_id"] for row in rows_of(opened(file, question=["Q?"], limit=130))] == ids[:130]
    assert len(rows_of(opened(file, question=["Q?"], limit=1000))) == 250


@pytest.mark.parametrize("column", ["image", "image_uri"])
def test_a_large_row_group_is_read_by_several_tasks_and_every_row_once(column: str, tmp_path: Path) -> None:
    ids = [str(n) for n in range(1000)]
    cells = ids if column == "image_uri" else [id_.encode() for id_ in ids]
    catalog = opened(parquet(tmp_path, {"image_id": ids, column: cells}), question=["Q?"], limit=777)
    assert [row["image_id"] for row in rows_of(catalog)] == ids[:777]
    assert len(catalog.units) > 4 and catalog.check() == 777
    assert [row.image_id for row in catalog.asked()] == ids[:777]


def test_a_folder_of_parquet_files_is_one_catalog(tmp_path: Path) -> None:
    parquet(tmp_path, {"image_id": ["a"], "image": [b"x"]}, "1.parquet")
    parquet(tmp_path, {"image_id": ["b"], "image": [b"y"]}, "2.parquet")
    (tmp_path / "images").mkdir()
    catalog = opened(tmp_path, question=["Q?"])
    assert ([row["image_id"] for row in rows_of(catalog)], catalog.root) == (["a", "b"], str(tmp_path))


def test_a_folder_of_images_takes_every_file_that_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".cache").mkdir(parents=True)
    for name in ("b.webp", "a.JPG", "sub/c.png", "sub/.cache/d.png", ".hidden.png", "_x.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    catalog = opened(tmp_path, question=["Q?", "R?"])
    assert [row["image_id"] for row in rows_of(catalog)] == ["a.JPG", "b.webp", "notes.txt", "sub/c.png"]
    assert catalog.check() == 8


def test_an_empty_folder_and_an_empty_table_are_catalogs_of_nothing(tmp_path: Path) -> None:
    assert (opened(tmp_path).num_images, opened(tmp_path).check()) == (0, 0)
    empty = pa.table({"image_id": pa.array([], pa.string()), "image": pa.array([], pa.binary())})
    pq.write_table(empty, tmp_path / "empty.parquet")
    assert (opened(tmp_path / "empty.parquet").num_images, opened(tmp_path / "empty.parquet").check()) == (0, 0)


@pytest.mark.parametrize(
    ("catalog", "named"),
    [("nowhere.parquet", "no catalog at"), ("nowhere", "no catalog at"), ("https://host/x.parquet", "https://")],
)
def test_a_catalog_that_is_not_there_is_refused(catalog: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        opened(catalog if "://" in catalog else tmp_path / catalog)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalog.parquet").write_bytes(b"id,image\n")
    with pytest.raises(ValueError, match=r"can't read .* as Parquet"):
        opened(tmp_path / "catalog.parquet")
    (tmp_path / "catalog.csv").write_bytes(b"id,image\n")
    with pytest.raises(ValueError, match="neither a Parquet file"):
        opened(tmp_path / "catalog.csv")


@pytest.fixture
def short_pages(s3: Any) -> Iterator[None]:
    """The server lists ten objects a page instead of a thousand."""
    event = "provide-client-params.s3.ListObjectsV2"

    def ask_for_ten(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**params, "MaxKeys": 10}

    s3.meta.events.register(event, ask_for_ten)
    yield
    s3.meta.events.unregister(event, ask_for_ten)


@pytest.mark.usefixtures("short_pages")
def test_a_prefix_of_objects_is_listed_past_one_page(s3: Any, bucket: str) -> None:
    names = [f"{n:04}.png" for n in range(25)]
    for name in names:
        s3.put_object(Bucket=bucket, Key=f"set/{name}", Body=b"")
    s3.put_object(Bucket=bucket, Key="settled/other.png", Body=b"")
    s3.put_object(Bucket=bucket, Key="set/folder/", Body=b"")
    catalog = opened(f"s3://{bucket}/set", question=["Q?"])
    rows = rows_of(catalog)
    assert [row["image_id"] for row in rows] == names
    assert rows[0]["image_uri"] == f"s3://{bucket}/set/0000.png"


def test_parquet_on_s3_is_read_through_the_same_settings(s3: Any, bucket: str, tmp_path: Path) -> None:
    file = parquet(tmp_path, {"image_id": IDS, "image": BYTES})
    s3.put_object(Bucket=bucket, Key="in/catalog.parquet", Body=file.read_bytes())
    for address in (f"s3://{bucket}/in/catalog.parquet", f"s3://{bucket}/in/"):
        catalog = opened(address, question=["Q?"])
        assert [row["image"] for row in rows_of(catalog)] == [b"one", b"two", None]
        assert (catalog.check(), catalog.root) == (3, f"s3://{bucket}/in")


def test_a_bucket_that_is_not_there_is_refused(s3: Any) -> None:
    with pytest.raises(ValueError, match="can't list s3://no-such-bucket"):
        opened("s3://no-such-bucket/x", question=["Q?"])


def test_modes_come_from_a_column_one_for_all_questions_or_one_each(tmp_path: Path) -> None:
    asked = [["a?", "b?"], ["c?"], ["d?", "e?"]]
    columns = {"image_id": IDS, "image": BYTES, "questions": asked, "primitives": [["on", "off"], None, ["auto"]]}
    catalog = opened(parquet(tmp_path, columns))
    assert catalog.check() == 5
    assert [row["primitives"] for row in rows_of(catalog)] == [["on", "off"], None, ["auto"]]
    texts = {"image_id": IDS, "image": BYTES, "question": ["a?", "b?", "c?"], "primitives": ["on", None, "off"]}
    rows = rows_of(opened(parquet(tmp_path, texts)))
    assert [row["primitives"] for row in rows] == [["on"], None, ["off"]]
    # Questions of the settings replace the file's, and the modes that belong to them.
    assert [row["primitives"] for row in rows_of(opened(parquet(tmp_path, texts), question=["q?"]))] == [None] * 3


def test_an_unknown_mode_in_a_catalog_is_refused_before_anything_runs(tmp_path: Path) -> None:
    columns = {"image_id": IDS, "image": BYTES, "question": ["a?"] * 3, "primitives": ["on", "perhaps", None]}
    with pytest.raises(ValueError, match="primitives may be on, off or auto, got 'perhaps'"):
        opened(parquet(tmp_path, columns)).check()
    numbers = {"image_id": IDS, "image": BYTES, "question": ["a?"] * 3, "primitives": [1, 2, 3]}
    with pytest.raises(ValueError, match="column 'primitives' must hold"):
        opened(parquet(tmp_path, numbers))


def test_a_folder_that_was_moved_asks_the_same(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"")
    one, two = (opened(tmp_path / folder, question=["Q?"]).keys(CONDITIONS) for folder in ("one", "two"))
    assert one.tolist() == two.tolist()


def test_rows_are_named_by_their_places(tmp_path: Path) -> None:
    catalog = opened(parquet(tmp_path, {"image_id": IDS, "image": BYTES, "questions": [["a?", "b?"], [], ["c?"]]}))
    assert catalog.named([1, 3]) == ["question 1 of 'a' ('b?')", "question 0 of 'c' ('c?')"]
    assert len(catalog.keys(CONDITIONS)) == catalog.check() == 4
