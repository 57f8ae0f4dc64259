"""Which cases a benchmark asks, and the catalog they become."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from model.tasks.suites import SUITES
from pipeline.benchmark.case_files import write_cases
from pipeline.benchmark.cases import DRAWN_CASES, Asked, catalog_of, draw, gather, packed
from pipeline.benchmark.settings import BenchmarkSettings
from tests.squares import SQUARES


@pytest.fixture(autouse=True)
def only_squares() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(SUITES):
            patch.delitem(SUITES, name)
        patch.setitem(SUITES, "squares", SQUARES)
        yield


def test_all_suites_and_levels_are_asked_unless_some_are_named() -> None:
    everything = gather(BenchmarkSettings())
    assert len(everything) == len({one.id for one in everything}) == 2 * DRAWN_CASES
    some = gather(BenchmarkSettings(suite=["squares"], level=["many"], cases=3, split="validation"))
    assert [one.id for one in some] == [f"squares/many/validation-{seed:05}" for seed in range(3)]
    assert some[1].case.question == SQUARES.case(1, "many", "validation").question


def test_a_packed_case_shows_the_same_pixels() -> None:
    case = SQUARES.case(4, "many", "test")
    again = packed(case)
    assert (again.size, again.image.convert("RGB").tobytes()) == (case.size, case.image.tobytes())


def test_greyed_out_cases_keep_their_questions_and_sizes_and_show_nothing() -> None:
    seen, unseen = (gather(BenchmarkSettings(cases=4, greyed=greyed)) for greyed in (False, True))
    for one, other in zip(seen, unseen, strict=True):
        assert (one.id, one.case.question, one.case.size) == (other.id, other.case.question, other.case.size)
        assert one.case.truth == other.case.truth
        colors = other.case.image.convert("RGB").getcolors()
        assert colors is not None and len(colors) == 1
    assert len({one.case.image.tobytes() for one in seen}) == len(seen)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no suite 'mazes'"):
        gather(BenchmarkSettings(suite=["mazes"]))
    with pytest.raises(ValueError, match="no cases of any suite at nightmare: squares has few, many"):
        gather(BenchmarkSettings(level=["nightmare"]))
    write_cases(str(tmp_path), [])
    with pytest.raises(ValueError, match="no cases"):
        gather(BenchmarkSettings(case_dir=str(tmp_path)))


def test_a_folder_is_asked_whole_or_so_many_of_each_group(tmp_path: Path) -> None:
    cases = [SQUARES.case(seed, level, "test") for level in SQUARES.levels for seed in range(4)]
    write_cases(str(tmp_path), [(str(number), case) for number, case in enumerate(cases)])
    assert len(gather(BenchmarkSettings(case_dir=str(tmp_path)))) == 8
    some = gather(BenchmarkSettings(case_dir=str(tmp_path), cases=2))
    assert [one.id for one in some] == ["0", "1", "4", "5"]
    assert [one.id for one in gather(BenchmarkSettings(case_dir=str(tmp_path), level=["many"]))] == list("4567")


def test_easy_vqas_questions_about_one_image_share_a_row() -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is a dev extra")
    data, places = catalog_of(gather(BenchmarkSettings(suite=["easy-vqa"], cases=100)))
    questions = pq.read_table(io.BytesIO(data)).column("questions").to_pylist()
    assert len(places) == sum(map(len, questions)) == 100 and len(questions) < 20


def test_more_training_cases_than_there_are_are_as_many_as_there_are() -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is a dev extra")
    from pipeline.benchmark import easy_vqa

    suite = easy_vqa.suite()
    assert sum(1 for _ in draw(suite, easy_vqa.LEVEL, "test", 10**6)) == 9_673


def test_the_catalog_holds_every_case_once_and_equal_images_once() -> None:
    one, other = SQUARES.case(0, "many", "test"), SQUARES.case(1, "many", "test")
    asked = [Asked(id_, packed(case), SQUARES) for id_, case in (("a", one), ("b", other), ("c", one))]
    data, places = catalog_of(asked)
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    assert [row["case_ids"] for row in rows] == [["a", "c"], ["b"]]
    assert Image.open(io.BytesIO(rows[0]["image"])).tobytes() == one.image.tobytes()
    assert {place: case.id for place, case in places.items()} == {
        (rows[0]["image_id"], "0"): "a", (rows[0]["image_id"], "1"): "c", (rows[1]["image_id"], "0"): "b",
    }  # fmt: skip
    assert all(rows[int(place[0])]["questions"][int(place[1])] == case.case.question for place, case in places.items())
