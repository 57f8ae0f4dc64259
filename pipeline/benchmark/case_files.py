"""Cases in files: a folder with cases.jsonl, one case a line, and its images. docs/cases.md describes the format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from model.prompt import END_THINK
from model.tasks.general import ACCEPTED, GENERAL
from model.tasks.suite import Case, Suite
from model.tasks.suites import SUITES

from ..decoding import ImageError, check, decode
from ..store import StoreError, read

FILE = "cases.jsonl"
IMAGES = "images"
_MAX_IMAGE_BYTES, _MAX_IMAGE_PIXELS = 50_000_000, 100_000_000

_Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
_Corners = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class CaseLine(BaseModel):
    """One line of cases.jsonl. Of several answers that are right the first one is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Text
    image: _Text
    question: _Text
    answer: Annotated[list[_Text], Field(min_length=1)]
    kind: str = "open"
    level: str = "given"
    suite: str | None = None
    boxes: list[_Corners] | None = None
    truth: dict[str, Any] = {}
    response: str | None = None

    @field_validator("answer", mode="before")
    @classmethod
    def _one_or_several(cls, answer: Any) -> Any:
        if not isinstance(answer, str | list):
            raise ValueError('an answer is a text such as "3", or a list of texts that are all right')
        return [answer] if isinstance(answer, str) else answer

    @field_validator("boxes")
    @classmethod
    def _corners_in_order(cls, boxes: list[_Corners] | None) -> list[_Corners] | None:
        for x1, y1, x2, y2 in boxes or ():
            if x2 < x1 or y2 < y1:
                raise ValueError("a box is x1, y1, x2, y2 in pixels with the smaller corner first")
        return boxes


def write_cases(folder: str, cases: Sequence[tuple[str, Case]]) -> None:
    """Writes (id, case) pairs as a folder that `read_cases` reads. ValueError when it holds cases already."""
    root = Path(folder).expanduser()
    if (root / FILE).exists():
        raise ValueError(f"{root / FILE} is there already: choose another folder, or remove it")
    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (id_, case) in enumerate(cases):
        image = f"{IMAGES}/{number:06}.png"
        case.image.save(root / image)
        lines.append(json.dumps(_written(id_, image, case), ensure_ascii=False))
    (root / FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_cases(folder: str) -> Iterator[tuple[str, Case, Suite]]:
    """(id, case, the suite that judges it) for each line. Cases of no known suite are judged by `model.tasks.general`.

    ValueError, with file and line, for a line or an image that is not as docs/cases.md has it.
    """
    root = Path(folder).expanduser()
    file = root / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {FILE}: a folder of cases has one, beside its {IMAGES}/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"can't read {file} as UTF-8 text: {error}") from None
    seen: dict[str, int] = {}
    for number, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        where = f"{file}, line {number}"
        line = _line(written, where)
        if line.id in seen:
            raise ValueError(f"{where}: the id {line.id!r} stands in line {seen[line.id]} too: ids must be unique")
        seen[line.id] = number
        yield line.id, *_case(line, _image(root, line.image, where), where)


def _written(id_: str, image: str, case: Case) -> dict[str, Any]:
    truth = dict(case.truth)
    further = truth.pop(ACCEPTED, []) if case.suite not in SUITES else []
    line: dict[str, Any] = {
        "id": id_,
        "image": image,
        "question": case.question,
        "answer": [case.answer, *further] if further else case.answer,
        "kind": case.kind,
        "level": case.level,
        "suite": case.suite,
        "truth": truth,
        "response": case.response,
    }
    return line if case.boxes is None else line | {"boxes": case.boxes}


def _line(written: str, where: str) -> CaseLine:
    try:
        return CaseLine.model_validate_json(written)
    except ValidationError as error:
        raise ValueError(f"{where}: {'; '.join(_explained(detail) for detail in error.errors())}") from None


def _explained(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown field {name}; the fields are {', '.join(CaseLine.model_fields)}"
    if detail["type"] == "missing" and len(detail["loc"]) == 1:
        return f"the field {name} is missing: every case has id, image, question and answer"
    if detail["type"] == "json_invalid":
        return f"not JSON ({detail['ctx']['error']}): a line is one object with all of a case"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')}, got {detail['input']!r}" if name else detail["msg"]


def _image(root: Path, name: str, where: str) -> Image.Image:
    try:
        path = (root / name).resolve()
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: the image {name!r} is no path: {error}") from None
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{where}: the image {name!r} lies outside the folder: copy it into {root / IMAGES}")
    try:
        data, _ = read(str(path), _MAX_IMAGE_BYTES)
        check(data, _MAX_IMAGE_BYTES, _MAX_IMAGE_PIXELS)
        return decode(data)
    except (StoreError, ImageError) as error:
        raise ValueError(f"{where}: the image {name!r} can't be used: {error}") from None


def _case(line: CaseLine, image: Image.Image, where: str) -> tuple[Case, Suite]:
    answer, *further = line.answer
    suite = SUITES.get(line.suite or "", GENERAL)
    if suite is not GENERAL and further:
        raise ValueError(f"{where}: the suite {suite.name} takes one answer, got {line.answer}: keep one")
    case = Case(
        suite=line.suite or GENERAL.name,
        level=line.level,
        kind=line.kind,
        image=image,
        question=line.question,
        answer=answer,
        response=line.response or f"{END_THINK}{answer}",
        boxes=None if line.boxes is None else tuple(line.boxes),
        truth={**line.truth, ACCEPTED: further} if further else line.truth,
    )
    try:
        suite.judge(case, case.response)
    except Exception as error:  # whatever the truth lacks: only the suite knows
        raise ValueError(
            f"{where}: the suite {suite.name} can't judge it ({type(error).__name__}: {error}): mend its truth and"
            " boxes, or name no suite to have only the answer judged"
        ) from error
    return case, suite
