"""The answers table on disk: one schema, whole files, sums that are right."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.rows import ANSWERS
from pipeline.sink import TRACED_ANSWERS, AnswerSink, Format, Tally, parse_tally, prepare_output, write_empty


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
    return row | {"answered_at": datetime.now(UTC), "trace": {"first_of_image": question == 0, **trace}}


def bad_row(image: str, question: int, kind: str = "missing") -> dict[str, Any]:
    error = {"stage": "fetch", "kind": kind, "message": "gone", "attempts": 1}
    row = dict.fromkeys(ANSWERS.names) | {"image_id": image, "question_id": str(question), "status": "error"}
    return row | {
        "error": error,
        "trace": {"first_of_image": question == 0, "notes": ["turned"] if not question else None},
    }


def block(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=TRACED_ANSWERS)


def written(sink: AnswerSink, *rows: dict[str, Any]) -> Tally:
    return parse_tally(sink.write(block(*rows)).column("tally")[0].as_py())


def read(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_blocks_of_any_content_make_files_of_one_schema(format: Format, tmp_path: Path) -> None:
    sink = AnswerSink(str(tmp_path), format)
    written(sink, ok_row("a", 0))
    written(sink, bad_row("b", 0), bad_row("b", 1))
    files = sorted((tmp_path / "answers").iterdir())
    assert len(files) == 2 and all(file.suffix == f".{format}" for file in files)
    assert all(read(file).schema.equals(ANSWERS, check_metadata=True) for file in files)


def test_a_block_that_is_written_again_replaces_its_own_file(tmp_path: Path) -> None:
    sink = AnswerSink(str(tmp_path), "parquet")
    for _ in range(2):
        written(sink, ok_row("a", 0), ok_row("a", 1))
    written(sink, ok_row("a", 2))
    assert sorted(read(file).num_rows for file in (tmp_path / "answers").iterdir()) == [1, 2]


def test_tallies_add_up_over_files(tmp_path: Path) -> None:
    sink = AnswerSink(str(tmp_path), "parquet")
    total = Tally()
    total.add(
        written(
            sink, ok_row("a", 0, gold_exact=True, gold_iou=0.5, read_seconds=0.25), ok_row("a", 1, gold_exact=False)
        )
    )
    total.add(written(sink, bad_row("b", 0), bad_row("b", 1, kind="denied")))
    assert (total.rows, total.ok, total.images, total.images_ok, total.files) == (4, 2, 2, 1, 2)
    assert total.errors == {"fetch/missing": 1, "fetch/denied": 1} and total.notes == {"turned": 1}
    assert (total.cut_off, total.shared_prefill, total.prompt_tokens, total.output_tokens) == (1, 1, 120, 24)
    assert (total.gold_answers, total.gold_exact, total.gold_boxes, total.gold_iou) == (2, 1, 1, 0.5)
    assert total.microseconds["read"] == 250_000 and total.microseconds["write"] > 0
    assert [row["image_id"] for row in total.first] == ["a", "a"]
    assert json.dumps(vars(total))


def test_an_empty_catalog_still_leaves_a_table(tmp_path: Path) -> None:
    write_empty(str(tmp_path), "parquet")
    table = pq.read_table(tmp_path / "answers")
    assert (table.num_rows, table.schema.names) == (0, ANSWERS.names)


@pytest.mark.parametrize("left", ["answers/part-1.parquet", "run.json"])
def test_an_output_that_holds_answers_is_refused_or_cleared(left: str, tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "mine.txt").write_text("not ours")
    prepare_output(str(tmp_path), overwrite=False)
    (tmp_path / left).write_text("old")
    with pytest.raises(ValueError, match="already holds answers"):
        prepare_output(str(tmp_path), overwrite=False)
    prepare_output(str(tmp_path), overwrite=True)
    assert not (tmp_path / left).exists() and (tmp_path / "answers" / "mine.txt").exists()


def test_an_output_on_s3_takes_the_same_files(s3: Any, bucket: str) -> None:
    output = f"s3://{bucket}/out"
    prepare_output(output, overwrite=False)
    written(AnswerSink(output, "parquet"), ok_row("a", 0))
    with pytest.raises(ValueError, match="already holds answers"):
        prepare_output(output, overwrite=False)
    prepare_output(output, overwrite=True)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
