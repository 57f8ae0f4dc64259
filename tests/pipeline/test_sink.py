"""Parts of the answers table: one schema, whole files, written again until the store takes them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import store
from pipeline.lease import Lease, LostLease
from pipeline.rows import ANSWERS
from pipeline.sink import Format, WriteError, patiently, write_empty, write_part
from pipeline.tally import TRACED_ANSWERS, Tally


def ok_row(image: str, question: int, **trace: Any) -> dict[str, Any]:
    usage = {
        "image_tokens": 46,
        "prompt_tokens": 60,
        "output_tokens": 12,
        "kv_entries": 11,
        "kv_bytes": 9,
        "shared_prefill": question > 0,
    }
    row = dict.fromkeys(ANSWERS.names) | {"image_id": image, "question_id": str(question), "status": "ok"}
    row |= {"answer": "3", "finish_reason": "length" if question else "stop", "usage": usage, "primitives": []}
    return row | {"answered_at": datetime.now(UTC), "trace": trace, "row_key": f"{image}{question}"}


def bad_row(image: str, question: int, kind: str = "missing") -> dict[str, Any]:
    error = {"stage": "fetch", "kind": kind, "message": "gone", "attempts": 1}
    row = dict.fromkeys(ANSWERS.names) | {"image_id": image, "question_id": str(question), "status": "error"}
    return row | {"error": error, "trace": {"notes": ["turned"] if not question else None}}


def block(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=TRACED_ANSWERS)


def written(output: Path | str, *rows: dict[str, Any], number: int = 0, format: Format = "parquet") -> Tally:
    with Lease(str(output), "s", StringIO()):
        return write_part(str(output), format, "s", number, 0, block(*rows[:1]), block(*rows[1:]))


def read(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_blocks_of_any_content_make_files_of_one_schema(format: Format, tmp_path: Path) -> None:
    written(tmp_path, ok_row("a", 0), format=format)
    tally = written(tmp_path, bad_row("b", 0), bad_row("b", 1), number=1, format=format)
    files = sorted((tmp_path / "answers").iterdir())
    assert [file.name for file in files] == [f"part-s-000000.{format}", f"part-s-000001.{format}"]
    assert all(read(file).schema.equals(ANSWERS, check_metadata=True) for file in files)
    assert (tally.rows, tally.files) == (2, 1) and tally.microseconds["write"] > 0


def test_a_part_that_is_written_again_replaces_its_own_file(tmp_path: Path) -> None:
    for _ in range(2):
        written(tmp_path, ok_row("a", 0), ok_row("a", 1))
    written(tmp_path, ok_row("a", 2), number=1)
    assert sorted(read(file).num_rows for file in (tmp_path / "answers").iterdir()) == [1, 2]


def test_what_is_known_beyond_the_table_lies_beside_it(tmp_path: Path) -> None:
    written(tmp_path, ok_row("a", 0, gold_exact=True), ok_row("a", 1))
    traces = pq.read_table(tmp_path / "_run" / "traces" / "part-s-000000.parquet")
    assert traces.column("row_key").to_pylist() == ["a0", "a1"]
    assert [trace["gold_exact"] for trace in traces.column("trace").to_pylist()] == [True, None]


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    with Lease(str(tmp_path), "another", StringIO()), pytest.raises(LostLease, match="belongs to run another"):
        write_part(str(tmp_path), "parquet", "s", 0, 0, block(ok_row("a", 0)))
    with pytest.raises(LostLease, match="belongs to nobody"):
        write_part(str(tmp_path), "parquet", "s", 0, 0, block(ok_row("a", 0)))
    assert not (tmp_path / "answers").exists()


def test_a_write_is_tried_again_until_the_store_takes_it_or_the_time_is_up(tmp_path: Path) -> None:
    folder, pauses = tmp_path / "folder", []
    folder.write_text("a file where a folder has to be")

    def mended_at_the_third(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            os.remove(folder)

    def write(name: str) -> None:
        store.write(str(folder / name), b"data")

    patiently("write x", lambda: write("x"), 60, mended_at_the_third)
    assert (folder / "x").read_bytes() == b"data" and len(pauses) == 3
    with pytest.raises(WriteError, match="can't write y, tried for 0 s: "):
        patiently("write y", lambda: write("x/y"), 0)


def test_an_empty_catalog_still_leaves_a_table(tmp_path: Path) -> None:
    write_empty(str(tmp_path), "parquet")
    table = pq.read_table(tmp_path / "answers")
    assert (table.num_rows, table.schema.names) == (0, ANSWERS.names)


def test_an_output_on_s3_takes_the_same_files(s3: Any, bucket: str) -> None:
    written(f"s3://{bucket}/out", ok_row("a", 0), ok_row("b", 0))
    names = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert names == ["out/_run/traces/part-s-000000.parquet", "out/answers/part-s-000000.parquet"]
