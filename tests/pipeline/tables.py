"""Catalogs to be run over, and the tables that come out, looked at as a reader would."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.engines.makers import Maker
from pipeline.rows import ANSWERS
from pipeline.run import run
from pipeline.settings import Settings
from tests.pipeline.noop import Noop
from tests.pipeline.pictures import encoded, picture


def write_catalog(path: Path, images: int, questions: list[str], **columns: Any) -> Path:
    """`images` small pictures, all different, each with these questions."""
    table = {
        "image_id": [f"i{n}" for n in range(images)],
        "image": [encoded(picture(60 + n % 7, 40 + n // 7)) for n in range(images)],
        "questions": [questions] * images,
    }
    pq.write_table(pa.table(table | columns), path, row_group_size=50)
    return path


def ran_noop(
    catalog: Path | str, output: Path | str, maker: Maker | None = None, **settings: Any
) -> tuple[dict[str, Any], str]:
    """The record of a run without a model, and what it printed."""
    out = io.StringIO()
    given = Settings(catalog=str(catalog), output=str(output), **settings)
    return run(given, out, io.StringIO(), maker or Noop()), out.getvalue()


def answers(output: Path | str, format: str = "parquet", once: bool = True) -> list[dict[str, Any]]:
    """All rows, read naively, after a look at every file's schema and, unless told otherwise, for doubled rows."""
    files = sorted(Path(output, "answers").glob("part-*"))
    for file in files:
        schema = pq.read_schema(file) if format == "parquet" else pa.ipc.open_file(file).schema
        assert schema.equals(ANSWERS, check_metadata=True), file
    table = ds.dataset(Path(output, "answers"), format="ipc" if format == "arrow" else format).to_table()
    keys = Counter((row["image_id"], row["question_id"]) for row in table.to_pylist())
    assert not once or set(keys.values()) <= {1}, keys.most_common(3)
    return table.to_pylist()


def state(output: Path | str) -> dict[str, tuple[float, int]]:
    """Every file below an output with its time and size: nothing was touched when it is the same."""
    files = [path for path in Path(output).rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}
