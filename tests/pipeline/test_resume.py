"""Going on: what is done stays, what failed or changed is asked again, and at the end every row is there once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline import store
from pipeline.engines.makers import Plan, conditions
from pipeline.keys import Asked, Conditions, row_keys, short
from pipeline.resume import read_back, take_up, terms_of
from pipeline.rows import ANSWERS
from pipeline.settings import Settings
from pipeline.sink import encode, part_uri
from tests.pipeline.noop import Noop
from tests.pipeline.pictures import encoded, picture
from tests.pipeline.tables import answers, ran_noop, state, write_catalog
from tests.pipeline.trials.drivers import start

TERMS = conditions(Plan.of(Settings(), "run"), Noop())
A, B, C = (Asked(name, None, ["Where?"], None) for name in "abc")


def keys(*asked: Asked, terms: Conditions = TERMS) -> np.ndarray:
    return short(key for row in asked for key in row_keys(row, terms, terms.digest()))


def part(output: Path, name: str, *rows: tuple[Asked, str], terms: Conditions = TERMS) -> Path:
    """A file of one row for each of these, with its status."""
    cells = [
        dict.fromkeys(ANSWERS.names)
        | {"run_id": name, "image_id": row.image_id, "question_id": "0", "question": row.questions[0]}
        | {"status": status, "row_key": row_keys(row, terms, terms.digest())[0]}
        for row, status in rows
    ]
    where = part_uri(str(output), f"part-{name}.parquet")
    store.write(where, encode(pa.Table.from_pylist(cells, schema=ANSWERS), "parquet"))
    return Path(where)


def taken_up(output: Path, *asked: Asked, **settings: Any) -> np.ndarray:
    given = Settings(**settings)
    return take_up(str(output), given, keys(*asked), terms_of(given, "catalog", TERMS))


def test_committed_rows_are_done_and_untouched(tmp_path: Path) -> None:
    taken_up(tmp_path, A, B, C)
    part(tmp_path, "1", (A, "ok"), (B, "error"))
    before = state(tmp_path)
    assert taken_up(tmp_path, A, B, C).tolist() == np.sort(keys(A, B)).tolist()
    assert state(tmp_path) == before


def test_retried_errors_are_taken_out_of_their_files_first(tmp_path: Path) -> None:
    mixed, failed = part(tmp_path, "1", (A, "ok"), (B, "error")), part(tmp_path, "2", (C, "error"))
    (tmp_path / "run.json").write_text("{}")
    assert taken_up(tmp_path, A, B, C, retry_errors=True).tolist() == keys(A).tolist()
    assert [row["image_id"] for row in answers(tmp_path)] == ["a"]
    assert mixed.exists() and not failed.exists() and not (tmp_path / "run.json").exists()


def test_doubled_rows_lose_their_error_first_and_a_row_is_never_lost(tmp_path: Path) -> None:
    part(tmp_path, "1", (A, "error"), (B, "ok"))
    part(tmp_path, "2", (A, "ok"), (B, "ok"))
    part(tmp_path, "3", (B, "ok"), (C, "error"))
    assert len(taken_up(tmp_path, A, B, C)) == 3
    rows = answers(tmp_path)
    assert Counter(row["image_id"] for row in rows) == {"a": 1, "b": 1, "c": 1}
    assert {row["image_id"]: row["status"] for row in rows} == {"a": "ok", "b": "ok", "c": "error"}


def test_rows_that_nobody_asks_any_more_are_named_or_dropped(tmp_path: Path) -> None:
    taken_up(tmp_path, A, B)
    part(tmp_path, "1", (A, "ok"), (B, "ok"))
    with pytest.raises(
        ValueError, match=r"catalog changed: .*question 0 of 'b' \('Where\?'\).* leaves 1 of its 2 rows"
    ):
        taken_up(tmp_path, A, C)
    assert len(answers(tmp_path)) == 2
    assert taken_up(tmp_path, A, C, on_change="renew").tolist() == keys(A).tolist()
    assert [row["image_id"] for row in answers(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_output_tokens": 7}, "max_output_tokens was 256 and is 7"),
        ({"temperature": 0.5}, r"temperature was 0\.0 and is 0\.5"),
        ({"primitives": "on"}, "primitives was 'auto' and is 'on'"),
    ],
)
def test_changed_conditions_are_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    taken_up(tmp_path, A)
    part(tmp_path, "1", (A, "ok"))
    settings = Settings(**change)
    terms = conditions(Plan.of(settings, "run"), Noop())
    with pytest.raises(ValueError, match=said):
        take_up(str(tmp_path), settings, keys(A, terms=terms), terms_of(settings, "catalog", terms))


def test_another_file_format_is_refused(tmp_path: Path) -> None:
    part(tmp_path, "1", (A, "ok"))
    with pytest.raises(ValueError, match="holds parquet files: go on with --format parquet"):
        taken_up(tmp_path, A, format="arrow")


def test_a_file_that_is_not_whole_or_of_an_older_schema_is_named(tmp_path: Path) -> None:
    whole = part(tmp_path, "1", (A, "ok"))
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"part-1.parquet is no whole file of answers .*remove it"):
        taken_up(tmp_path, A)
    pq.write_table(pa.table({"image_id": ["a"], "status": ["ok"]}), whole)
    with pytest.raises(ValueError, match="no column row_key: it was written by an older version"):
        taken_up(tmp_path, A)


def test_overwriting_clears_the_table_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    part(tmp_path, "1", (A, "ok"))
    (tmp_path / "answers" / "mine.txt").write_text("not ours")
    (tmp_path / "run.json").write_text("{}")
    assert len(taken_up(tmp_path, B, overwrite=True)) == 0
    assert answers_left(tmp_path) == ["mine.txt"] and not (tmp_path / "run.json").exists()


def test_what_a_killed_writer_left_unfinished_is_swept_away(tmp_path: Path) -> None:
    part(tmp_path, "1", (A, "ok"))
    (tmp_path / "answers" / ".part-2.parquet.0f.tmp").write_bytes(b"PAR1 half")
    taken_up(tmp_path, A)
    assert answers_left(tmp_path) == ["part-1.parquet"]


def answers_left(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "answers").iterdir())


def test_the_read_back_finds_what_is_missing_and_takes_out_what_is_too_much(tmp_path: Path) -> None:
    part(tmp_path, "1", (A, "ok"), (B, "ok"))
    part(tmp_path, "2", (A, "ok"))
    assert read_back(str(tmp_path), keys(C, A)).tolist() == [0]
    assert [row["image_id"] for row in answers(tmp_path)] == ["a"]


def test_an_output_on_s3_is_taken_up_alike(s3: Any, bucket: str) -> None:
    output = f"s3://{bucket}/out"
    given = Settings()
    row = dict.fromkeys(ANSWERS.names) | {"status": "error", "row_key": row_keys(A, TERMS, TERMS.digest())[0]}
    store.write(part_uri(output, "part-1.parquet"), encode(pa.Table.from_pylist([row], schema=ANSWERS), "parquet"))
    assert len(take_up(output, given, keys(A, B), terms_of(given, "c", TERMS))) == 1
    assert len(take_up(output, Settings(retry_errors=True), keys(A, B), terms_of(given, "c", TERMS))) == 0
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["out/_run/asked.json"]


# ---- whole runs


@pytest.mark.usefixtures("local_ray")
def test_a_run_goes_on_where_rows_are_missing_and_a_finished_one_does_nothing(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 20, ["Where is it?", "How many are there?"])
    first, _ = ran_noop(catalog, tmp_path / "out", rows_per_file=8, images_in_flight=4)
    files = sorted((tmp_path / "out" / "answers").iterdir())
    rows = {(row["image_id"], row["question_id"]): row for row in answers(tmp_path / "out")}
    assert len(rows) == 40 and len(files) >= 4
    lost = pq.read_table(files[1]).to_pylist()
    files[1].unlink()
    (tmp_path / "out" / "run.json").unlink()
    kept = state(tmp_path / "out" / "answers")
    second, said = ran_noop(catalog, tmp_path / "out", rows_per_file=8, images_in_flight=4)
    assert f"resumed  {40 - len(lost)} answers were there; this run added {len(lost)}" in said
    assert (second["counts"]["answers"], second["session"]["answers"]) == (40, len(lost))
    assert second["sessions"] == {first["run_id"]: 40 - len(lost), second["run_id"]: len(lost)}
    again = {(row["image_id"], row["question_id"]): row for row in answers(tmp_path / "out")}
    assert {name: row["answer"] for name, row in again.items()} == {name: row["answer"] for name, row in rows.items()}
    assert {name for name, row in again.items() if row["run_id"] == second["run_id"]} == {
        (row["image_id"], row["question_id"]) for row in lost
    }
    assert kept.items() <= state(tmp_path / "out" / "answers").items()
    before = state(tmp_path / "out")
    third, said = ran_noop(catalog, tmp_path / "out")
    assert third == second and "nothing to do: all 40 answers for 20 images are there: 40 ok, 0 errors" in said
    assert state(tmp_path / "out") == before


@pytest.mark.usefixtures("local_ray")
def test_a_killed_driver_is_gone_on_with_by_the_same_command(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 20, ["Where is it?", "How many?"])
    settings: dict[str, Any] = {"rows_per_file": 4, "images_in_flight": 4, "commit_seconds": 0.2}
    address = ray.get_runtime_context().gcs_address
    driver = start(
        tmp_path / "r.json", Noop(seconds=0.5), catalog=str(catalog), output=str(tmp_path / "out"), address=address,
        **settings,
    )  # fmt: skip
    while driver.process.is_alive() and not list((tmp_path / "out").glob("answers/part-*")):
        driver.process.join(0.1)
    driver.process.kill()
    driver.process.join()
    kept = {(row["image_id"], row["question_id"]): row for row in answers(tmp_path / "out")}
    assert 0 < len(kept) < 40 and not (tmp_path / "out" / "run.json").exists()
    record, _ = ran_noop(catalog, tmp_path / "out", **settings)
    rows = {(row["image_id"], row["question_id"]): row for row in answers(tmp_path / "out")}
    assert len(rows) == record["counts"]["answers"] == 40
    assert all(rows[key] == row for key, row in kept.items())


@pytest.mark.usefixtures("local_ray")
def test_failed_rows_alone_are_asked_again_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.png").write_bytes(encoded(picture()) if name in "ab" else b"not yet")
    asked: dict[str, Any] = {"question": ["Where?", "How many?"], "output": tmp_path / "out"}
    first, said = ran_noop(folder, **asked)
    assert (first["counts"]["ok"], first["counts"]["error"]) == (4, 4)
    (folder / "c.png").write_bytes(encoded(picture()))
    _, said = ran_noop(folder, **asked)
    assert "--retry-errors asks those again" in said
    record, said = ran_noop(folder, **asked, retry_errors=True)
    assert (record["counts"]["ok"], record["counts"]["error"], record["session"]["answers"]) == (6, 2, 4)
    by_image = Counter((row["image_id"], row["status"], row["run_id"]) for row in answers(tmp_path / "out"))
    assert by_image == {
        ("a.png", "ok", first["run_id"]): 2, ("b.png", "ok", first["run_id"]): 2,
        ("c.png", "ok", record["run_id"]): 2, ("d.png", "error", record["run_id"]): 2,
    }  # fmt: skip


@pytest.mark.usefixtures("local_ray")
def test_a_changed_question_stops_the_run_or_is_asked_alone(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 10, ["Where is it?", "How many?"], gold_answers=[["3", "2"]] * 10)
    first, _ = ran_noop(catalog, tmp_path / "out")
    before = state(tmp_path / "out")
    write_catalog(catalog, 10, ["Where is it?", "How many are there?"], gold_answers=[["3", "4"]] * 10)
    with pytest.raises(ValueError, match=r"question 1 of 'i0' \('How many\?'\).* leaves 10 of its 20 rows"):
        ran_noop(catalog, tmp_path / "out")
    assert state(tmp_path / "out") == before
    record, _ = ran_noop(catalog, tmp_path / "out", on_change="renew")
    rows = answers(tmp_path / "out")
    assert {(row["question_id"], row["question"], row["answer"], row["run_id"]) for row in rows} == {
        ("0", "Where is it?", "3", first["run_id"]), ("1", "How many are there?", "4", record["run_id"]),
    }  # fmt: skip
    assert (len(rows), record["session"]["answers"]) == (20, 10)
    assert (record["counts"]["images"], record["gold"]["answers"], record["gold"]["exact_share"]) == (10, 20, 1.0)
    with pytest.raises(ValueError, match="model_revision was '0' and is '1'"):
        ran_noop(catalog, tmp_path / "out", Noop(weights="1"))
    grown = write_catalog(catalog, 12, ["Where is it?", "How many are there?"])
    record, _ = ran_noop(grown, tmp_path / "out")
    assert (record["counts"]["answers"], record["session"]["answers"]) == (24, 4)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["images"] == 12
