"""Visual primitives: parse them out of a response and format them into one.

    <｜ref｜>red square<｜/ref｜><｜box｜>[[x1,y1,x2,y2],…]<｜/box｜>      <｜point｜>[[x,y],…]<｜/point｜>

Numbers are integers 0..999 of the frame, x first. A label is optional before points and usual before boxes.
Parsing takes whatever a model wrote and never raises; `well_formed` says whether it follows the grammar exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from model.prompt import BOX, END_BOX, END_POINT, END_REF, END_THINK, POINT, REF, THINK

Kind = Literal["box", "point"]
Part = Literal["reasoning", "answer"]

FRAME_MAX = 999
_INT16_MAX = 32767
_ARITY: dict[Kind, int] = {"box": 4, "point": 2}

_INSIDE = rf"(?:(?!<｜|{END_THINK}).)*"  # up to the next tag
_BROKEN = r"[\[\]0-9\s,.-]*"  # what is left of a list whose response broke off before the closing tag
_PRIMITIVE = re.compile(
    rf"(?:{REF}(?P<label>{_INSIDE}){END_REF}\s*)?"
    rf"(?:(?P<is_box>{BOX})(?:(?P<box>{_INSIDE}){END_BOX}|(?P<broken_box>{_BROKEN}))"
    rf"|{POINT}(?:(?P<point>{_INSIDE}){END_POINT}|(?P<broken_point>{_BROKEN})))",
    re.DOTALL,
)
_ITEM = re.compile(r"\[([^\[\]]*)\]")
_INTEGER = re.compile(r"\s*-?[0-9]{1,18}\s*")

_NUMBER = "(?:0|[1-9][0-9]{0,2})"
_STRICT = {
    kind: re.compile(rf"\[{item}(?:,{item})*\]")
    for kind, item in ((k, r"\[" + ",".join([_NUMBER] * n) + r"\]") for k, n in _ARITY.items())
}
_GAP = "\0"  # where markup was
_ANY_TAG = re.compile(f"{REF}|{END_REF}|{BOX}|{END_BOX}|{POINT}|{END_POINT}|{THINK}|{END_THINK}")


@dataclass(frozen=True)
class Primitive:
    """One box or point of a response.

    `frame` holds the model's own integers (x1, y1, x2, y2 or x, y), clamped into int16; `valid` is False when one lies
    outside 0..999 or a box's corners are in the wrong order. `group` counts the box and point tags of the whole
    response from 0, `item` the entries within the tag.
    """

    kind: Kind
    label: str | None
    part: Part
    group: int
    item: int
    frame: tuple[int, ...]
    valid: bool


def split(text: str) -> tuple[str, str]:
    """The response as (reasoning, answer), parted at the first `</think>`; without one it is all answer."""
    reasoning, mark, answer = text.partition(END_THINK)
    if not mark:
        return "", text
    return reasoning.removeprefix(THINK), answer


def parse(text: str) -> list[Primitive]:
    """Every box and point of a whole response, in its order; an entry that is not all integers is left out."""
    end_of_reasoning = text.find(END_THINK)
    primitives: list[Primitive] = []
    for group, match in enumerate(_PRIMITIVE.finditer(text)):
        kind: Kind = "box" if match["is_box"] else "point"
        content = match[kind] if match[kind] is not None else match[f"broken_{kind}"]
        part: Part = "reasoning" if match.start() < end_of_reasoning else "answer"
        label = match["label"].strip() if match["label"] is not None else None
        for item, frame in enumerate(_frames(content, _ARITY[kind])):
            primitives.append(Primitive(kind, label, part, group, item, _clamped(frame), _is_valid(frame)))
    return primitives


def strip(text: str) -> str:
    """The text free of markup: coordinate lists and tags gone, labels kept as words, spaces tidied."""
    text = _closed(_PRIMITIVE.sub(lambda match: f"{_GAP}{match['label'] or ''}{_GAP}", text.replace(_GAP, "")))
    while _ANY_TAG.search(text):  # again, lest what a removed tag stood between forms another
        text = _closed(_ANY_TAG.sub(_GAP, text))
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ([.,;:!?])", r"\1", text)
    return re.sub(r" ?\n ?", "\n", text).strip()


def _closed(text: str) -> str:
    """Gaps between two words become a space, the others vanish."""
    return re.sub(rf"(?<=\w){_GAP}+(?=\w)", " ", text).replace(_GAP, "")


def format_boxes(label: str | None, boxes: Sequence[Sequence[int]]) -> str:
    """`label` with its boxes (x1, y1, x2, y2 of the frame). ValueError for a box that is none, or no box at all."""
    return _format("box", label, boxes)


def format_points(points: Sequence[Sequence[int]], label: str | None = None) -> str:
    """Points (x, y of the frame), with a label or without. ValueError for a point that is none, or no point at all."""
    return _format("point", label, points)


def well_formed(text: str) -> bool:
    """Whether every tag is closed and in its place and every coordinate list is exactly as the grammar writes it.

    At most one `</think>`, outside the tags; a label is not empty; a box or point tag holds one or more valid entries
    of the right length without spaces or leading zeros. Text without any tag is well formed.
    """
    tags = list(_ANY_TAG.finditer(text))
    if sum(tag.group() == END_THINK for tag in tags) > 1:
        return False
    position = 0
    while position < len(tags):
        opening = tags[position]
        if opening.group() in (THINK, END_THINK):
            if opening.group() == THINK and opening.start() > 0:
                return False
            position += 1
            continue
        if position + 1 == len(tags):
            return False
        closing = tags[position + 1]
        if not _is_span(opening.group(), text[opening.end() : closing.start()], closing.group()):
            return False
        position += 2
    return True


def _is_span(opening: str, content: str, closing: str) -> bool:
    if opening == REF:
        return closing == END_REF and content != ""
    kind: Kind = "box" if opening == BOX else "point"
    if (opening, closing) not in ((BOX, END_BOX), (POINT, END_POINT)) or not _STRICT[kind].fullmatch(content):
        return False
    return all(_is_valid(frame) for frame in _frames(content, _ARITY[kind]))


def _frames(content: str, arity: int) -> Iterator[tuple[int, ...]]:
    """The entries of a coordinate list that are `arity` integers."""
    for entry in _ITEM.finditer(content):
        numbers = entry[1].split(",")
        if len(numbers) == arity and all(_INTEGER.fullmatch(number) for number in numbers):
            yield tuple(int(number) for number in numbers)


def _is_valid(frame: tuple[int, ...]) -> bool:
    inside = all(0 <= number <= FRAME_MAX for number in frame)
    return inside and (len(frame) == 2 or (frame[2] >= frame[0] and frame[3] >= frame[1]))


def _clamped(frame: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(max(number, -_INT16_MAX - 1), _INT16_MAX) for number in frame)


def _format(kind: Kind, label: str | None, items: Sequence[Sequence[int]]) -> str:
    frames = [tuple(int(number) for number in item) for item in items]
    wrong = [frame for frame in frames if len(frame) != _ARITY[kind] or not _is_valid(frame)]
    if not frames:
        raise ValueError(f"a {kind} tag needs at least one {kind}, got none")
    if wrong:
        raise ValueError(f"a {kind} is {_ARITY[kind]} integers 0..{FRAME_MAX}, smaller corner first, got {wrong}")
    if label is not None and (not label.strip() or _ANY_TAG.search(label)):
        raise ValueError(f"a label must be words without tags, got {label!r}")
    opening, closing = (BOX, END_BOX) if kind == "box" else (POINT, END_POINT)
    entries = ",".join(f"[{','.join(map(str, frame))}]" for frame in frames)
    return f"{'' if label is None else REF + label + END_REF}{opening}[{entries}]{closing}"
