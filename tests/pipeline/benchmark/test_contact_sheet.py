"""Contact sheets: every level shown, everything drawn where it belongs, nothing outside its cell."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFont

from model.primitives import format_boxes, format_points
from pipeline.benchmark.contact_sheet import CASES, Exhibit, chosen, sheet, wrapped, write_sheets
from tests.squares import SQUARES

FONT = ImageFont.load_default(14)


def exhibits(count: int) -> list[Exhibit]:
    return [Exhibit(SQUARES.case(seed, level, "test")) for level in SQUARES.levels for seed in range(count)]


def test_one_sheet_for_each_suite_with_as_many_of_every_level(tmp_path: Path) -> None:
    write_sheets(str(tmp_path / "sheets"), exhibits(30))
    with Image.open(tmp_path / "sheets" / "squares.png") as picture:
        assert (picture.width % 6, picture.height % 4) == (0, 0) and picture.width > 1500
    levels = [one.case.level for one in chosen(exhibits(30))]
    assert {level: levels.count(level) for level in levels} == {"few": 12, "many": 12}
    assert len(chosen(exhibits(5))) == 10
    lopsided = exhibits(30)[:2] + exhibits(30)[30:]
    assert [one.case.level for one in chosen(lopsided)].count("many") == CASES - 2


def test_before_a_run_the_reference_is_drawn_and_after_it_what_was_answered() -> None:
    case = next(one.case for one in exhibits(20) if one.case.boxes)
    gold = sheet([Exhibit(case)])
    answered = sheet([Exhibit(case, f"{format_boxes('it', [(500, 500, 900, 900)])}</think>7", None, False)])
    silent = sheet([Exhibit(case, None, "generate/too_large")])
    right = sheet([Exhibit(case, case.response, None, True)])
    assert len({picture.tobytes() for picture in (gold, answered, silent, right)}) == 4
    square = (0, 0, gold.width, gold.width)
    assert ImageChops.difference(gold.crop(square), right.crop(square)).getbbox() is None
    assert ImageChops.difference(gold.crop(square), silent.crop(square)).getbbox() is not None


def test_a_trace_is_drawn_as_a_line_the_answers_over_the_thinkings() -> None:
    case = SQUARES.case(0, "few", "test")
    trace = format_points([(100, 500), (900, 500)])

    def middle(response: str) -> bytes:
        shown = sheet([Exhibit(case, response)])
        centre = shown.width // 2
        return shown.crop((centre - 3, centre - 3, centre + 3, centre + 3)).tobytes()

    bare, thin, bold = (middle(text) for text in ("</think>", f"{trace}</think>", f"</think>{trace}"))
    assert len({bare, thin, bold}) == 3 and middle(f"{trace}</think>{trace}") == bold


@settings(deadline=None, max_examples=60)
@given(
    text=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=200),
    width=st.integers(40, 300),
    lines=st.integers(1, 4),
)
def test_wrapped_text_fits_and_loses_nothing_but_what_it_says(text: str, width: int, lines: int) -> None:
    found = wrapped(text, FONT, width, lines)
    assert len(found) <= lines and all(FONT.getlength(line) <= width for line in found)
    kept = "".join("".join(found).split())
    whole = "".join(text.split())
    assert kept == whole or (kept.endswith("…") and whole.startswith(kept[:-1]))
