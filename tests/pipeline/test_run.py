"""Whole runs on a real Ray with a real engine: catalog in, answers out, everything accounted for."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.run import RunStopped, run
from pipeline.settings import Settings
from tests.pipeline.noop import Noop
from tests.pipeline.pictures import broken_pictures, encoded, picture
from tests.pipeline.tables import answers as rows_of
from tests.pipeline.tables import ran_noop, write_catalog

pytestmark = pytest.mark.usefixtures("local_ray")


def ran(checkpoint: Path, output: Path | str, **settings: Any) -> tuple[dict[str, Any], str, str]:
    out, err = io.StringIO(), io.StringIO()
    given = Settings(model=str(checkpoint), output=str(output), max_output_tokens=6, **settings)
    return run(given, out, err), out.getvalue(), err.getvalue()


def test_a_parquet_catalog_comes_out_as_one_row_for_each_question(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.png").write_bytes(encoded(picture(90, 50)))
    cells: list[dict[str, Any]] = [{"bytes": encoded(picture(60 + n, 40)), "path": f"{n}.png"} for n in range(17)]
    cells += [{"bytes": None, "path": "beside.png"}, {"bytes": None, "path": "none.png"}, {"bytes": b"x", "path": None}]
    questions = [["Where?", "How many?"]] * 19 + [[]]
    columns = {
        "image_id": [f"i{n}" for n in range(20)],
        "image": cells,
        "questions": questions,
        "gold_answers": [["nothing", None]] * 19 + [[]],
    }
    pq.write_table(pa.table(columns), tmp_path / "catalog.parquet", row_group_size=7)
    record, shown, progress = ran(
        tiny_checkpoint,
        tmp_path / "out",
        catalog=str(tmp_path / "catalog.parquet"),
        rows_per_file=8,
        images_in_flight=8,
    )
    assert list((tmp_path / "out" / "_run").glob("lease*")) == []
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 39
    by_id = {(row["image_id"], row["question_id"]): row for row in rows}
    assert by_id["i7", "1"]["image_width"] == 67 and by_id["i7", "1"]["question"] == "How many?"
    assert by_id["i17", "0"]["status"] == "ok" and by_id["i17", "0"]["image_width"] == 90
    assert by_id["i18", "1"]["error"]["kind"] == "missing"
    assert by_id["i19", "0"]["error"]["kind"] == "no_question"
    assert {row["run_id"] for row in rows} == {record["run_id"]}
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == record
    assert record["counts"] | {"files": 0, "cut_off": 0} == {
        "images": 20, "images_answered": 18, "answers": 39, "ok": 36, "error": 3, "cut_off": 0, "files": 0,
    }  # fmt: skip
    assert record["counts"]["files"] > 1 and record["gold"]["answers"] == 19
    assert record["engines"]["requests"] == 18 and record["engines"]["images_in_flight_peak"] <= 8
    assert set(record["stage_seconds"]) == {"read", "fetch", "decode", "answer", "write"}
    assert "39 answers for 20 images" in shown and "fetch/missing 2" in shown
    assert "39/39 answers (100 %)" in progress
    again, said, _ = ran(tiny_checkpoint, tmp_path / "out", catalog=str(tmp_path / "catalog.parquet"))
    assert again == record and "nothing to do: all 39 answers for 20 images are there: 36 ok, 3 errors" in said


@pytest.mark.parametrize("objects", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_a_prefix_with_twelve_broken_objects_is_answered_and_explained(
    objects: int, tiny_checkpoint: Path, tmp_path: Path, s3: Any, bucket: str
) -> None:
    broken = broken_pictures()
    for name, (data, _, _) in broken.items():
        s3.put_object(Bucket=bucket, Key=f"in/broken/{name}", Body=data)
    for n in range(objects - len(broken)):
        format = ("PNG", "JPEG", "WEBP")[n % 3]
        s3.put_object(Bucket=bucket, Key=f"in/{n:03}.{format.lower()}", Body=encoded(picture(60 + n, 90), format))
    limits = {"max_image_bytes": 100_000, "max_image_pixels": 1_000_000}
    record, shown, _ = ran(
        tiny_checkpoint, tmp_path, catalog=f"s3://{bucket}/in/", question=["Where is it?"], format="arrow", **limits
    )
    rows = {row["image_id"]: row for row in rows_of(tmp_path, "arrow")}
    explained = {name: (row["error"]["stage"], row["error"]["kind"]) for name, row in rows.items() if row["error"]}
    assert explained == {f"broken/{name}": (stage, kind) for name, (_, stage, kind) in broken.items()}
    assert (record["counts"]["ok"], record["counts"]["error"]) == (objects - 12, 12)
    assert all(row["image_sha256"] and row["answer"] is not None for row in rows.values() if row["status"] == "ok")
    assert f"{objects - 12} ok, 12 errors" in shown


def test_a_folder_is_answered_into_a_bucket(tiny_checkpoint: Path, tmp_path: Path, s3: Any, bucket: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    (tmp_path / "b.png").write_bytes(encoded(picture()))
    output = f"s3://{bucket}/out"
    record, _, _ = ran(tiny_checkpoint, output, catalog=str(tmp_path), question=["One?", "Two?"], limit=1, actors=2)
    names = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert "out/run.json" in names and any(name.startswith("out/answers/part-") for name in names)
    assert (record["counts"]["images"], record["counts"]["ok"]) == (1, 2)


def test_an_empty_catalog_ends_at_once_with_an_empty_table(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    record, shown, _ = ran(tiny_checkpoint, tmp_path / "out", catalog=str(tmp_path / "in"), question=["Q?"])
    assert rows_of(tmp_path / "out") == [] and record["counts"]["answers"] == 0
    assert "0 answers for 0 images" in shown


def test_what_the_user_must_mend_is_said_before_anything_is_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["a", "a"], "image": [b"", b""]}), tmp_path / "catalog.parquet")
    catalog = str(tmp_path / "catalog.parquet")
    with pytest.raises(ValueError, match="repeat"):
        ran(tiny_checkpoint, tmp_path / "out", catalog=catalog, question=["Q?"])
    with pytest.raises(ValueError, match="is not a checkpoint"):
        ran(tmp_path, tmp_path / "out", catalog=catalog, question=["Q?"])
    with pytest.raises(ValueError, match="output must be"):
        ran(tiny_checkpoint, "https://host/out", catalog=catalog, question=["Q?"])
    assert not (tmp_path / "out").exists()


def test_too_many_errors_stop_the_run_early_and_the_same_command_goes_on(tmp_path: Path) -> None:
    broken = [b"no picture"] * 250 + [encoded(picture())] * 150
    catalog = write_catalog(tmp_path / "c.parquet", 400, ["Where?"], image=broken)
    settings: dict[str, Any] = {"images_in_flight": 8, "rows_per_file": 16}
    with pytest.raises(
        RunStopped, match=r"more than --max-error-share 0\.2 allows: check/not_an_image \d+\. They are in"
    ):
        ran_noop(catalog, tmp_path / "out", max_error_share=0.2, **settings)
    kept = rows_of(tmp_path / "out")  # the last that were judged may still have been on their way to a file
    assert 0 < len(kept) < 400 and not (tmp_path / "out" / "run.json").exists()
    record, _ = ran_noop(catalog, tmp_path / "out", **settings)
    assert (record["counts"]["ok"], record["counts"]["error"]) == (150, 250)
    assert record["session"]["answers"] == 400 - len(kept)
    assert len(rows_of(tmp_path / "out")) == 400


@pytest.mark.slow
def test_rows_that_went_missing_are_named_at_the_end_and_asked_by_the_next_start(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 60, ["Where is it?"])
    settings: dict[str, Any] = {"images_in_flight": 4, "rows_per_file": 8}

    def steal() -> None:
        while not (parts := list((tmp_path / "out" / "answers").glob("part-*"))):
            time.sleep(0.02)
        parts[0].unlink()

    thief = threading.Thread(target=steal, daemon=True)
    thief.start()
    with pytest.raises(
        RunStopped, match=r"\d+ of 60 rows are missing, e\.g\. question 0 of 'i\d+' \('Where is it\?'\)"
    ):
        ran_noop(catalog, tmp_path / "out", Noop(seconds=0.2), **settings)
    thief.join()
    assert not (tmp_path / "out" / "run.json").exists()
    record, _ = ran_noop(catalog, tmp_path / "out", **settings)
    assert record["counts"]["ok"] == len(rows_of(tmp_path / "out")) == 60
