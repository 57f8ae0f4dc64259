"""The benchmark from end to end on a real Ray: cases out, answers in, figures that add up."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.tasks.suites import SUITES
from pipeline.benchmark.command import answer_rows, benchmark
from pipeline.benchmark.settings import BenchmarkSettings
from tests.squares import SQUARES


@pytest.fixture(scope="module", autouse=True)
def squares() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "squares", SQUARES)
        yield


def scored(**values: Any) -> tuple[dict[str, Any], str]:
    out = io.StringIO()
    record = benchmark(BenchmarkSettings(**values), "python jobs/benchmark.py --these", out, io.StringIO())
    assert record is not None
    return record, out.getvalue()


def verdicts(output: Path) -> dict[str, dict[str, Any]]:
    lines = (output / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def done(tiny_checkpoint: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A benchmark of a checkpoint that knows nothing, with everything that can be written."""
    folder = tmp_path_factory.mktemp("benchmark")
    model = folder / "model"
    shutil.copytree(tiny_checkpoint, model)
    record, shown = scored(
        suite=["squares"], cases=6, blind_cases=20, model=str(model), max_output_tokens=8, output=str(folder / "out"),
        export=str(folder / "cases"), sheet=str(folder / "sheets"), card=True,
    )  # fmt: skip
    return {"folder": folder, "record": record, "shown": shown, "model": model}


def test_every_case_is_answered_judged_and_counted(done: dict[str, Any]) -> None:
    record, found = done["record"], verdicts(done["folder"] / "out")
    assert json.loads((done["folder"] / "out" / "benchmark.json").read_text()) == record
    assert [(group["suite"], group["level"], group["cases"]) for group in record["groups"]] == [
        ("squares", "few", 6), ("squares", "many", 6),
    ]  # fmt: skip
    assert record["cases"] == record["run"]["counts"]["ok"] == len(found) == 12 and record["errors"] == {}
    for group in record["groups"]:
        of_group = [line for id_, line in found.items() if f"/{group['level']}/" in id_]
        assert group["score"] == pytest.approx(sum(line["score"] for line in of_group) / 6, abs=1e-3)
        assert group["exact_percent"] == pytest.approx(100 * sum(line["exact"] for line in of_group) / 6, abs=0.1)
        assert sum(kind["cases"] for kind in group["kinds"].values()) == 6
    rows = answer_rows(str(done["folder"] / "out"))
    assert sorted(row["question"] for row in rows) == sorted(line["question"] for line in found.values())


def test_the_table_the_card_and_the_sheet_are_of_this_run(done: dict[str, Any]) -> None:
    assert "squares  few " in done["shown"] and "12 cases of the test split" in done["shown"]
    card = (done["model"] / "CARD.md").read_text()
    assert "| squares | few | 6 |" in card and "    python jobs/benchmark.py --these" in card
    assert (done["folder"] / "sheets" / "squares.png").is_file()


def test_exported_cases_get_the_same_verdicts_in_a_bucket_too_and_what_fails_is_wrong_and_told(
    done: dict[str, Any], s3: Any, bucket: str
) -> None:
    file, output = done["folder"] / "cases" / "cases.jsonl", f"s3://{bucket}/scores"
    endless = json.loads(file.read_text().splitlines()[0]) | {"id": "endless", "question": "Where? " * 5000}
    Image.new("RGB", (50, 50)).save(done["folder"] / "cases" / "images" / "endless.png")
    endless |= {"image": "images/endless.png", "suite": "theirs"}
    with file.open("a") as more:
        more.write(json.dumps(endless))
    record, shown = scored(
        case_dir=str(file.parent), blind_cases=0, model=str(done["model"]), max_output_tokens=8, output=output,
    )  # fmt: skip
    lines = s3.get_object(Bucket=bucket, Key="scores/verdicts.jsonl")["Body"].read().decode().splitlines()
    found = {line["id"]: line for line in map(json.loads, lines)}
    failed = found.pop("endless")
    assert found == verdicts(done["folder"] / "out")
    assert (record["split"], record["output"]) == (None, output) and "blind_score" not in record["groups"][0]
    assert (failed["score"], failed["exact"], failed["well_formed"], failed["response"]) == (0, False, False, None)
    assert record["errors"] == {failed["error"]: 1}
    assert [(group["suite"], group["errors"]) for group in record["groups"]] == [
        ("squares", 0), ("squares", 0), ("theirs", 1),
    ]  # fmt: skip
    assert f"no answer, counted as wrong: {failed['error']} 1" in shown


def test_what_the_user_must_mend_is_said_before_anything_is_asked(done: dict[str, Any], tmp_path: Path) -> None:
    model = str(done["model"])
    with pytest.raises(ValueError, match="already holds a benchmark"):
        scored(suite=["squares"], cases=1, model=model, output=str(done["folder"] / "out"))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        scored(suite=["squares"], cases=1, model=str(tmp_path))
    with pytest.raises(ValueError, match="output must be a folder or an s3:// prefix"):
        scored(suite=["squares"], cases=1, model=model, output="gs://bucket/x")
    broken = tmp_path / "model"
    shutil.copytree(done["model"], broken)
    (broken / "CARD.md").write_text("<!-- benchmark -->")
    with pytest.raises(ValueError, match="the figures go between them"):
        scored(suite=["squares"], cases=1, model=str(broken), card=True, output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_without_scoring_the_cases_are_only_drawn_and_no_model_is_needed(tmp_path: Path) -> None:
    only = BenchmarkSettings(
        suite=["squares"], cases=3, score=False, model="none", sheet=str(tmp_path / "s"), export=str(tmp_path / "c")
    )
    assert benchmark(only, "", io.StringIO(), io.StringIO()) is None
    with pytest.raises(ValueError, match="--no-score only draws: give --export or --sheet"):
        scored(suite=["squares"], score=False)
    assert (tmp_path / "s" / "squares.png").is_file()
    assert len((tmp_path / "c" / "cases.jsonl").read_text().splitlines()) == 6
