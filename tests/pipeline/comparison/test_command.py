"""Comparisons from end to end on a real Ray: every engine, image and question once, and figures that add up."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from model.primitives import format_boxes
from pipeline.catalog import open_catalog
from pipeline.comparison.command import ComparisonStopped, Table, compare
from pipeline.comparison.comparer import COMPARED, ENGINE_ANSWERS
from pipeline.comparison.comparison import Comparison
from pipeline.comparison.settings import CompareSettings
from pipeline.engines.makers import Maker
from tests.pipeline.chat_server import Answer, Asked, completion, serving
from tests.pipeline.noop import Noop, Scripted
from tests.pipeline.pictures import encoded, picture
from tests.pipeline.tables import write_catalog

A, B = "native", "transformers price_hour=3.6"


def compared(
    catalog: Path | str, output: Path | str, native: Maker, transformers: Maker, **values: Any
) -> tuple[dict[str, Any], str]:
    out = io.StringIO()
    settings = CompareSettings(engine=[A, B], catalog=str(catalog), output=str(output), **values)
    return compare(settings, out, io.StringIO(), {"native": native, "transformers": transformers}), out.getvalue()


@contextmanager
def in_thread(answer: Answer) -> Iterator[str]:
    """The address of a server that answers beside the test."""
    loop, context = asyncio.new_event_loop(), serving(answer)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()[1]
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def rows_of(output: Path) -> list[dict[str, Any]]:
    for file in (output / "answers-by-engine").iterdir():
        assert pq.read_schema(file).equals(ENGINE_ANSWERS), file
    rows: list[dict[str, Any]] = ds.dataset(output / "answers-by-engine").to_table().to_pylist()
    assert set(Counter((row["engine"], row["image_id"], row["question_id"]) for row in rows).values()) == {1}
    return rows


def test_two_engines_that_differ_in_a_known_way(local_ray: None, tmp_path: Path) -> None:
    """One says how many words a question has, the other two, and points at the left half."""
    cells = [encoded(picture(60 + n, 40)) for n in range(39)] + [b"no picture"]
    columns = {
        "image_id": [f"i{n}" for n in range(40)],
        "image": cells,
        "questions": [["How many?", "Is it so?", None]] * 40,
        "right": ["2"] * 40,
    }
    catalog, output = tmp_path / "catalog.parquet", tmp_path / "out"
    pq.write_table(pa.table(columns), catalog, row_group_size=16)
    two = Scripted(f"{format_boxes('it', [(0, 0, 499, 999)])}</think>2", kv_bytes=700)
    record, text = compared(catalog, output, Noop(), two, gold="right", images_in_flight=8, differences=7, sheet=True)
    rows = rows_of(output)
    assert len(rows) == record["counts"]["rows"] == 240 and {row["engine"] for row in rows} == {A, B}
    assert record["counts"] | {"rows": 240} == {
        "images": 40, "questions": 120, "rows": 240, "errors": 84, "differing": 78,
    }  # fmt: skip
    assert json.loads((output / "compare.json").read_text()) == record
    first, second = record["engines"][A], record["engines"][B]
    assert first["answered"] == second["answered"] == 78
    assert first["errors"] == second["errors"] == {"check/no_question": 40, "check/not_an_image": 2}
    assert first["gold_exact"] == second["gold_exact"] == 39 / 40  # gold for the first question alone
    assert (first["kv_bytes_per_image"], second["kv_bytes_per_image"]) == (None, pytest.approx(700))
    assert first["price_per_1000_answers"] is None
    assert second["price_per_1000_answers"] == pytest.approx(second["seconds"] / 78)
    (pair,) = record["pairs"]
    assert (pair["both_answered"], pair["agreement"], pair["primitives_iou"]) == (78, 0.5, 0.0)
    worst = pq.read_table(output / "differences.parquet").to_pylist()
    assert [(row["difference"], row["question"], row["answer_a"], row["answer_b"]) for row in worst] == [
        (2.0, "Is it so?", "3", "2")
    ] * 7
    assert (output / "differences.png").is_file() and "they differ on 78 questions" in text
    with pytest.raises(ValueError, match="already holds a comparison"):
        compared(catalog, output, Noop(), two)
    again, _ = compared(catalog, output, Noop(), Noop(), limit=3, overwrite=True)
    assert len(rows_of(output)) == 18 and again["counts"]["differing"] == 0
    assert not (output / "differences.png").exists()


def test_a_checkpoint_and_an_endpoint_are_compared_in_original_pixels(
    local_ray: None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async def answer(asked: Asked) -> web.Response:
        assert max(asked.image.size) <= 40
        return completion('{"objects": [{"box": [0, 0, 500, 1000]}, {"box": [0, 0, 9, 1001]}], "answer": "one"}')

    catalog = write_catalog(tmp_path / "catalog.parquet", 5, ["Where is it?", "How many?"])
    with in_thread(answer) as url:
        engines = [
            f"native model={tiny_checkpoint} max_output_tokens=6",
            f"openai endpoint={url} model=m send_pixels=1024 price_prompt=1 price_output=100",
        ]
        settings = CompareSettings(engine=engines, catalog=str(catalog), output=str(tmp_path / "out"))
        record = compare(settings, io.StringIO(), io.StringIO())
    rows = [row for row in rows_of(tmp_path / "out") if row["engine"] == engines[1]]
    for row in rows:
        (box, _) = row["primitives"]
        assert (box["x2"], box["y2"]) == (row["image_width"] / 2, row["image_height"])
    native, endpoint = record["engines"].values()
    assert (len(rows), native["answered"], endpoint["answered"]) == (10, 10, 10)
    assert native["kv_bytes_per_image"] > 0 and endpoint["kv_bytes_per_image"] is None
    assert (endpoint["invalid_primitives"], endpoint["prompt_tokens_per_answer"]) == (0.5, 20)
    assert endpoint["price_per_1000_answers"] == pytest.approx(1000 * (20 * 1 + 5 * 100) / 1e6)


def test_a_process_that_an_engine_takes_along_ends_the_comparison_with_a_word(local_ray: None, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", 3, ["a?"])
    with pytest.raises(ComparisonStopped, match="the engines' process broke off"):
        compared(catalog, tmp_path / "out", Noop(), Scripted("2", fails="exits"))
    assert not (tmp_path / "out" / "compare.json").exists()


@pytest.mark.slow
def test_a_bucket_is_an_output_too(local_ray: None, s3: Any, bucket: str, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", 2, ["a?"])
    output = f"s3://{bucket}/compared"
    record, _ = compared(catalog, output, Noop(), Noop())
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert keys == {f"compared/{name}" for name in (
        "answers-by-engine/part-000000.parquet", "compare.json", "differences.parquet",
    )}  # fmt: skip
    assert record["output"] == output


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gold": "nothing"}, "no column 'nothing' with gold answers"),
        ({"gold": "image"}, "column 'image' must be"),
        ({"output": "gs://x"}, "output must be a folder or an s3:// prefix"),
        ({"engine": ["native", "openai"]}, "--engine 'openai': --engine openai needs an address"),
        ({"engine": ["native"] * 27}, "at most 26 engines"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", 2, ["a?"])
    given = {"engine": ["native", "native"], "catalog": str(catalog), "output": str(tmp_path / "out"), **values}
    with pytest.raises(ValueError, match=said):
        compare(CompareSettings(**given), io.StringIO(), io.StringIO())
    assert not (tmp_path / "out").exists()


def test_rows_that_lack_or_came_twice_are_noticed(tmp_path: Path) -> None:
    row: dict[str, Any] = {"image_id": "i", "question_id": "0", "status": "error", "engine": "A", "trace": {}}
    row["error"] = {"stage": "s", "kind": "k", "message": "m", "attempts": 1}
    block = pa.Table.from_pylist([row], schema=COMPARED)
    table = Table(str(tmp_path), Comparison(("A", "B")))
    table.add(block)
    with pytest.raises(AssertionError):
        table.add(block)
    with pytest.raises(ComparisonStopped, match="2 of 2 rows came; question 0 of 'i' lack"):
        table.finish(2)


@pytest.mark.parametrize(
    ("column", "gold"),
    [
        (["2", "3"], [["2"], ["3"]]),
        ([2, None], [["2"], None]),
        ([["2", "3"], []], [["2", "3"], []]),
        (pa.array(["2", "3"]).dictionary_encode(), [["2"], ["3"]]),
    ],
)
def test_a_column_of_right_answers_holds_values_or_lists(column: Any, gold: Any, tmp_path: Path) -> None:
    file = write_catalog(tmp_path / "catalog.parquet", 2, ["a?", "b?"], right=column, gold_answers=[["9"]] * 2)
    units = open_catalog(CompareSettings(catalog=str(file)), "right").units
    assert [row["gold_answers"] for unit in units for table in unit.read() for row in table.to_pylist()] == gold


def test_a_folder_of_images_has_no_column_of_right_answers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    with pytest.raises(ValueError, match="gold answers stand in a column of a Parquet catalog"):
        open_catalog(CompareSettings(catalog=str(tmp_path), question=["a?"]), "right")


@pytest.mark.slow
def test_the_shipped_checkpoint_answers_alike_under_every_kv_budget(local_ray: None, tmp_path: Path) -> None:
    engines = [f"native kv_budget_mb={budget} primitives={mode}" for budget in (64, 2) for mode in ("on", "off")]
    out = io.StringIO()
    record = compare(CompareSettings(engine=engines, limit=6, output=str(tmp_path)), out, io.StringIO())
    rows = rows_of(tmp_path)
    assert len(rows) == record["counts"]["rows"] == 4 * record["counts"]["questions"]
    assert all(row["status"] == "ok" for row in rows) and len(record["pairs"]) == 6
    assert {pair["agreement"] for pair in record["pairs"]} == {1.0}  # it was taught to point always
    assert all(engine["gold_exact"] >= 0.9 for engine in record["engines"].values())
    assert len({engine["kv_bytes_per_image"] for engine in record["engines"].values()}) == 1
