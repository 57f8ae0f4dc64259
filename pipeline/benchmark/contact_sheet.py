"""Contact sheets: 24 cases of a suite on one picture, with question, gold and primitives, and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from model.primitives import Primitive, parse
from model.tasks.suite import Case, final_answer, to_pixels

from ..drawing import draw
from ..record import printable

CASES = 24
_COLUMNS = 6
_PICTURE = 300  # pixels: the square that a case's image is fitted into
_MARGIN, _LINE, _LINES = 12, 18, 6
_CELL = (_PICTURE + 2 * _MARGIN, _PICTURE + _LINES * _LINE + 2 * _MARGIN)
_INK, _SOFT, _PAPER, _RIGHT, _WRONG = "#1a1a1a", "#6b6b6b", "#ffffff", "#00694a", "#b3261e"
_THOUGHT, _ANSWER = "#f57c00", "#d6006c"  # of traces


class Exhibit(NamedTuple):
    """A case, and after a run what came back: a response or an error, and whether its answer was right."""

    case: Case
    response: str | None = None
    error: str | None = None
    exact: bool = False


def write_sheets(folder: str, exhibits: Sequence[Exhibit]) -> list[Path]:
    """One SUITE.png for each suite: of every level as many cases, spread over those that there are.

    The primitives drawn are those of the response, or before a run those of the reference response.
    """
    root = Path(folder).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    suites: dict[str, list[Exhibit]] = {}
    for one in exhibits:
        suites.setdefault(one.case.suite, []).append(one)
    written = []
    for suite, of_suite in suites.items():
        path = root / f"{suite}.png"
        # 256 colours: a fifth of the size, and no named colour becomes another.
        few = sheet(chosen(of_suite)).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        written.append(path)
    return written


def chosen(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    """CASES of them, level by level in equal shares."""
    levels: dict[str, list[Exhibit]] = {}
    for one in exhibits:
        levels.setdefault(one.case.level, []).append(one)
    taken: list[Exhibit] = []
    for number, of_level in enumerate(levels.values()):
        share = min((CASES - len(taken)) // (len(levels) - number), len(of_level))
        taken += [of_level[i * len(of_level) // share] for i in range(share)]
    return taken


def sheet(exhibits: Sequence[Exhibit]) -> Image.Image:
    """The cases in rows of six."""
    rows = -(-len(exhibits) // _COLUMNS)
    picture = Image.new("RGB", (_CELL[0] * min(len(exhibits), _COLUMNS), _CELL[1] * rows), _PAPER)
    for number, one in enumerate(exhibits):
        corner = (number % _COLUMNS * _CELL[0] + _MARGIN, number // _COLUMNS * _CELL[1] + _MARGIN)
        _place(picture, corner, one)
    return picture


def _place(picture: Image.Image, corner: tuple[int, int], one: Exhibit) -> None:
    (left, top), case = corner, one.case
    shown = _fitted(case, one.response or ("" if one.error else case.response))
    picture.paste(shown, (left + (_PICTURE - shown.width) // 2, top + (_PICTURE - shown.height) // 2))
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    line = top + _PICTURE + 4
    canvas.text((left, line), f"{case.level} · {case.kind} · {case.size[0]}x{case.size[1]}", _SOFT, font)
    for text, ink, lines in _texts(one):
        for part in wrapped(text, font, _PICTURE, lines):
            line += _LINE
            canvas.text((left, line), part, ink, font)


def _texts(one: Exhibit) -> list[tuple[str, str, int]]:
    """What stands below the picture: the text, its colour, the lines it may take."""
    texts = [(one.case.question, _INK, 3), (f"gold: {one.case.answer}", _RIGHT, 1)]
    if one.error is not None:
        return [*texts, (f"no answer: {one.error}", _WRONG, 1)]
    if one.response is None:
        return texts
    answer = final_answer(one.response)
    said = "(its thinking never ended)" if answer is None else answer or "(nothing)"
    return [*texts, (f"answered: {printable(said)}", _RIGHT if one.exact else _WRONG, 1)]


def _fitted(case: Case, response: str) -> Image.Image:
    """The case's image scaled into its square, then the primitives drawn: lines stay thin, labels legible."""
    scale = _PICTURE / max(case.size)
    size = (max(round(case.size[0] * scale), 1), max(round(case.size[1] * scale), 1))
    image = case.image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    found = [primitive for primitive in parse(response) if primitive.valid]
    _trace(image, [primitive for primitive in found if primitive.kind == "point"])
    return draw(image, [_row(primitive, size) for primitive in found if primitive.kind == "box"])


def _trace(image: Image.Image, points: Sequence[Primitive]) -> None:
    """Each list of points as a line with its stops: thinking thin, the answer bold and last."""
    canvas = ImageDraw.Draw(image)
    lists: dict[int, list[Primitive]] = {}
    for point in points:
        lists.setdefault(point.group, []).append(point)
    for part, colour, width, radius in (("reasoning", _THOUGHT, 1, 2), ("answer", _ANSWER, 3, 3)):
        for group in lists.values():
            if group[0].part == part:
                stops = [to_pixels(point.frame, image.size) for point in group]
                flat = [value for stop in stops for value in stop]
                if part == "answer":
                    canvas.line(flat, _PAPER, width + 3, "curve")
                canvas.line(flat, colour, width, "curve")
                for x, y in stops:
                    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def _row(box: Primitive, size: tuple[int, int]) -> dict[str, Any]:
    """A box as a row of the answers table has it, in pixels of this size."""
    x1, y1, x2, y2 = to_pixels(box.frame, size)
    return {"kind": "box", "label": box.label, "valid": True, "x1": x1, "y1": y1, "x2": x2, "y2": y2}


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, lines: int) -> list[str]:
    """The text in at most so many lines of this width in pixels; what does not fit ends in an ellipsis."""
    done: list[str] = []
    rest = " ".join(text.split())
    while rest and len(done) < lines:
        fits = _fitting(rest, font, width, last=len(done) == lines - 1)
        done.append(fits)
        rest = rest[len(fits) :].lstrip() if not fits.endswith("…") else ""
    return done


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, last: bool) -> str:
    if font.getlength(text) <= width:
        return text
    length = len(text)
    while length > 1 and font.getlength(text[:length] + "…") > width:
        length -= 1
    if last:
        return text[:length].rstrip() + "…"
    space = text.rfind(" ", 0, length + 1)
    return text[: space if space > 0 else length]
