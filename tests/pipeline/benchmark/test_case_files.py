"""Cases in files: out and back without loss, and bad lines refused with where and what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.primitives import format_boxes
from model.tasks.general import GENERAL
from model.tasks.suites import SUITES
from pipeline.benchmark.case_files import read_cases, write_cases
from tests.pipeline.pictures import encoded, picture
from tests.squares import SQUARES

GOOD = {"id": "a", "image": "images/a.png", "question": "What is it?", "answer": "a mug"}


@pytest.fixture
def squares() -> Iterator[None]:
    """The suite is among those that are known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "squares", SQUARES)
        yield


def folder(root: Path, *lines: dict[str, Any] | str) -> str:
    (root / "images").mkdir(exist_ok=True)
    (root / "images" / "a.png").write_bytes(encoded(picture(60, 40)))
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (root / "cases.jsonl").write_text("\n".join(written), encoding="utf-8")
    return str(root)


@pytest.mark.usefixtures("squares")
@pytest.mark.parametrize("suite", ["squares", *SUITES])
def test_a_suites_cases_come_back_with_the_same_verdicts(suite: str, tmp_path: Path) -> None:
    cases = [SUITES[suite].case(seed, level, "test") for level in SUITES[suite].levels for seed in range(3)]
    write_cases(str(tmp_path), [(f"{case.level}-{number}", case) for number, case in enumerate(cases)])
    back = list(read_cases(str(tmp_path)))
    assert [id_ for id_, _, _ in back] == [f"{case.level}-{number}" for number, case in enumerate(cases)]
    for case, (_, read, judge) in zip(cases, back, strict=True):
        assert judge is SUITES[suite]
        assert read.image.tobytes() == case.image.convert("RGB").tobytes()
        wrong = cases[0].response if case is not cases[0] else cases[-1].response
        for response in (case.response, wrong, case.response[:-1], "</think>0", ""):
            assert judge.judge(read, response) == judge.judge(case, response)


def test_cases_of_nobody_we_know_are_judged_by_their_answer(tmp_path: Path) -> None:
    several = GOOD | {"answer": ["a mug", "a cup"], "boxes": [[0, 0, 30, 40]], "suite": "kitchen", "level": "hard"}
    ((_, case, suite),) = read_cases(folder(tmp_path, several))
    assert (case.suite, case.level, case.kind, case.answer) == ("kitchen", "hard", "open", "a mug")
    assert suite is GENERAL and suite.judge(case, "</think>A cup.").exact
    assert suite.judge(case, f"{format_boxes('cup', [(0, 0, 499, 999)])}</think>cup").iou == pytest.approx(1, abs=0.02)


def test_several_answers_survive_being_written_again(tmp_path: Path) -> None:
    line = GOOD | {"answer": ["3", "three"], "truth": {"from": "them"}}
    (tmp_path / "in").mkdir()
    ((id_, case, _),) = read_cases(folder(tmp_path / "in", line))
    write_cases(str(tmp_path / "out"), [(id_, case)])
    assert json.loads((tmp_path / "out" / "cases.jsonl").read_text())["answer"] == ["3", "three"]
    ((_, again, _),) = read_cases(str(tmp_path / "out"))
    assert again.truth == case.truth == {"from": "them", "accepted": ["three"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: .*object"),
        ({"id": "b", "image": "images/a.png", "question": "Q?"}, "line 2: the field answer is missing"),
        (GOOD | {"id": "b", "colour": "red"}, "line 2: unknown field colour; the fields are id, image, question"),
        (GOOD, "line 2: the id 'a' stands in line 1 too"),
        (GOOD | {"id": "b", "answer": 3}, "line 2: answer: an answer is a text .*, got 3"),
        (GOOD | {"id": "b", "answer": []}, "line 2: answer"),
        (GOOD | {"id": "b", "question": "  "}, "line 2: question"),
        (GOOD | {"id": "b", "boxes": [[1, 2, 3]]}, r"line 2: boxes\.0"),
        (GOOD | {"id": "b", "boxes": [[30, 2, 3, 40]]}, "line 2: boxes: a box is x1, y1, x2, y2"),
        (GOOD | {"id": "b", "boxes": [[0, 0, 1, math.nan]]}, r"line 2: boxes\.0\.3"),
        (GOOD | {"id": "b", "image": "images/b.png"}, "line 2: the image 'images/b.png' can't be used"),
        (GOOD | {"id": "b", "image": "cases.jsonl"}, "line 2: the image 'cases.jsonl' can't be used"),
        (GOOD | {"id": "b", "image": "a\0b"}, "line 2: the image .* is no path"),
        (GOOD | {"id": "b", "suite": "squares"}, "line 2: the suite squares can't judge it .*: mend its truth"),
        (GOOD | {"id": "b", "suite": "squares", "answer": ["1", "one"]}, "line 2: the suite squares takes one answer"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("squares")
def test_a_bad_line_is_refused_with_its_place_and_what_to_do(line: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cases.jsonl, {said}"):
        list(read_cases(folder(tmp_path, GOOD, line)))


@pytest.mark.parametrize("escape", ["dots", "absolute", "link"])
def test_an_image_outside_the_folder_is_refused(escape: str, tmp_path: Path) -> None:
    outside, inside = tmp_path / "secret.png", tmp_path / "cases"
    outside.write_bytes(encoded(picture(60, 40)))
    (inside / "images").mkdir(parents=True)
    (inside / "images" / "link.png").symlink_to(outside)
    name = {"dots": "images/../../secret.png", "absolute": str(outside), "link": "images/link.png"}[escape]
    with pytest.raises(ValueError, match=r"line 1: the image .* lies outside the folder"):
        list(read_cases(folder(inside, GOOD | {"image": name})))


def test_a_folder_without_cases_and_one_with_cases_already_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no cases\.jsonl"):
        list(read_cases(str(tmp_path)))
    write_cases(str(tmp_path), [("a", SQUARES.case(0, "few", "test"))])
    with pytest.raises(ValueError, match="is there already"):
        write_cases(str(tmp_path), [])
    (tmp_path / "cases.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="as UTF-8 text"):
        list(read_cases(str(tmp_path)))


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cases.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith('{"id"')]
    assert len(lines) >= 2
    for line in lines:
        path = tmp_path / json.loads(line)["image"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture(640, 480)))
    (tmp_path / "cases.jsonl").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    for _, case, suite in read_cases(str(tmp_path)):
        assert suite.judge(case, f"</think>{case.answer}").exact
