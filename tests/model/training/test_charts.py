"""Charts: a falling line falls, and every line can be told from the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from model.training.charts import write_charts, write_tables

ORANGE, BLUE = (213, 94, 0), (0, 114, 178)


def rows_of(path: Path, colour: tuple[int, int, int], columns: slice) -> float:
    """The mean row, from the top, of a colour's pixels below the legend."""
    pixels = np.array(Image.open(path))[34:, columns]
    rows, _ = np.nonzero((pixels == colour).all(axis=2))
    return float(rows.mean())


def test_lines_go_where_their_values_go(tmp_path: Path) -> None:
    write_charts(tmp_path / "c.png", {"loss": {"down": [3.0, 2.0, 1.0], "up": [1.0, 2.0, 3.0]}})
    left, right = slice(40, 120), slice(260, 340)
    assert rows_of(tmp_path / "c.png", ORANGE, left) < rows_of(tmp_path / "c.png", ORANGE, right)
    assert rows_of(tmp_path / "c.png", BLUE, left) > rows_of(tmp_path / "c.png", BLUE, right)


def test_charts_without_values_are_left_out_and_one_value_is_a_line(tmp_path: Path) -> None:
    charts = {"none": {"": []}, **{f"c{i}": {"": [0.5]} for i in range(4)}}
    write_charts(tmp_path / "c.png", charts)  # type: ignore[arg-type]
    assert Image.open(tmp_path / "c.png").size == (3 * 360, 2 * 220)
    assert rows_of(tmp_path / "c.png", ORANGE, slice(0, 360)) > 0


def test_nothing_to_draw_is_an_empty_sheet(tmp_path: Path) -> None:
    write_charts(tmp_path / "c.png", {})
    assert Image.open(tmp_path / "c.png").getcolors() == [(360 * 220, (255, 255, 255))]


def test_a_table_has_its_cells_in_columns_and_a_table_without_rows_is_its_heads(tmp_path: Path) -> None:
    write_tables(tmp_path / "t.png", [[["name", "x"], ["a", "1"], ["a much longer name", "2"]], [["one", "two"]]])
    ink = np.array(Image.open(tmp_path / "t.png").convert("L")) < 100
    rows = [ink[14 + 24 * i : 14 + 24 * i + 20] for i in range(5)]
    assert [bool(row.any()) for row in rows] == [True, True, True, False, True]
    ends = [np.flatnonzero(row.any(axis=0))[-1] for row in rows[:3]]  # the last ink: the second column's
    assert max(ends) - min(ends) < 3
