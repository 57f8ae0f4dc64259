"""The cases of a benchmark: drawn from suites or read from a folder, and written as a catalog like any other."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from model.tasks.blindness import greyed
from model.tasks.suite import Case, Split, Suite
from model.tasks.suites import SUITES, suite_of

from . import easy_vqa
from .case_files import read_cases
from .settings import BenchmarkSettings

DRAWN_CASES = 50  # for each suite and level, when nobody says how many
_ROWS_PER_GROUP = 64

_CATALOG = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.large_binary()),
        ("questions", pa.list_(pa.string())),
        ("case_ids", pa.list_(pa.string())),  # of each question; the pipeline does not look at it
    ]
)


@dataclass(frozen=True)
class Asked:
    """A case under a name of its own, with the suite that judges it."""

    id: str
    case: Case
    suite: Suite


def gather(settings: BenchmarkSettings) -> list[Asked]:
    """The cases that the settings name, suite by suite and level by level.

    ValueError when a suite, a level or a folder is not there, or nothing is left to ask.
    """
    if settings.case_dir is not None:
        asked = list(_of_folder(settings))
    else:
        suites = [_suite(name) for name in dict.fromkeys(settings.suite or SUITES)]
        asked = [one for suite in suites for one in _of_suite(suite, settings)]
    if not asked:
        raise ValueError(f"no cases {_wanted(settings)}")
    if settings.greyed:
        asked = [replace(one, case=packed(replace(one.case, image=greyed(one.case.image)))) for one in asked]
    return asked


def draw(suite: Suite, level: str, split: Split, count: int) -> Iterator[Case]:
    """The first `count` cases of a suite's level and split, or as many as there are."""
    if suite.name == easy_vqa.NAME:
        count = min(count, easy_vqa.size(split))
    return (suite.case(seed, level, split) for seed in range(count))


def packed(case: Case) -> Case:
    """The same case, its image kept as PNG and decoded when its pixels are wanted: thousands of them fit."""
    return replace(case, image=Image.open(io.BytesIO(png(case.image))))


def png(image: Image.Image) -> bytes:
    """The image's pixels as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def catalog_of(asked: Sequence[Asked]) -> tuple[bytes, Mapping[tuple[str, str], Asked]]:
    """A Parquet catalog of the cases, and which of them each (image_id, question_id) of its answers is about.

    Cases on equal images are questions of one row.
    """
    rows: dict[str, dict[str, object]] = {}
    places: dict[tuple[str, str], Asked] = {}
    for one in asked:
        data = png(one.case.image)
        row = rows.setdefault(
            hashlib.sha256(data).hexdigest(),
            {"image_id": f"{len(rows):07}", "image": data, "questions": [], "case_ids": []},
        )
        questions, case_ids = row["questions"], row["case_ids"]
        assert isinstance(questions, list) and isinstance(case_ids, list)
        places[str(row["image_id"]), str(len(questions))] = one
        questions.append(one.case.question)
        case_ids.append(one.id)
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows.values()), _CATALOG), buffer, row_group_size=_ROWS_PER_GROUP)
    return buffer.getvalue().to_pybytes(), places


def _suite(name: str) -> Suite:
    return easy_vqa.suite() if name == easy_vqa.NAME else suite_of(name)


def _of_suite(suite: Suite, settings: BenchmarkSettings) -> Iterator[Asked]:
    given = suite.name == easy_vqa.NAME
    count = settings.cases or (easy_vqa.size(settings.split) if given else DRAWN_CASES)
    for level in suite.levels:
        if not settings.level or level in settings.level:
            for seed, case in enumerate(draw(suite, level, settings.split, count)):
                yield Asked(f"{suite.name}/{level}/{settings.split}-{seed:05}", packed(case), suite)


def _of_folder(settings: BenchmarkSettings) -> Iterator[Asked]:
    assert settings.case_dir is not None
    taken: dict[tuple[str, str], int] = {}
    for id_, case, suite in read_cases(settings.case_dir):
        group = (case.suite, case.level)
        if (settings.suite and case.suite not in settings.suite) or (
            settings.level and case.level not in settings.level
        ):
            continue
        taken[group] = taken.get(group, 0) + 1
        if settings.cases is None or taken[group] <= settings.cases:
            yield Asked(id_, packed(case), suite)


def _wanted(settings: BenchmarkSettings) -> str:
    suites = f"of {', '.join(settings.suite)}" if settings.suite else "of any suite"
    levels = f"at {', '.join(settings.level)}" if settings.level else "at any level"
    if settings.case_dir is not None:
        return f"{suites} {levels} in {settings.case_dir}"
    known = "; ".join(f"{suite.name} has {', '.join(suite.levels)}" for suite in SUITES.values())
    return f"{suites} {levels}: {known}"
