"""Curves as a picture, one small chart for each figure and one line for each series; and tables as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Series = Mapping[str, Sequence[float]]  # values in their order, by name
Table = Sequence[Sequence[str]]  # rows of cells, the heads first

_WIDTH, _HEIGHT, _EDGE = 360, 220, 34  # of one chart, and of what is around its lines, in pixels
_ACROSS = 3  # charts side by side
_ROW, _GAP, _MARGIN = 24, 28, 14  # of a table: a row's height, between columns, around it all
# Colour-blind safe (Okabe and Ito), as in the drawings of answers.
_COLOURS = ("#d55e00", "#0072b2", "#007a5a", "#a0407c", "#8a6d00")


def write_charts(path: Path, charts: Mapping[str, Series]) -> None:
    """Write a PNG of all charts that have a value, by their titles. Each begins at its lowest value, not at 0."""
    drawn = {title: series for title, series in charts.items() if any(series.values())}
    down = -(-len(drawn) // _ACROSS)
    sheet = Image.new("RGB", (_WIDTH * min(_ACROSS, max(len(drawn), 1)), _HEIGHT * max(down, 1)), "white")
    for at, (title, series) in enumerate(drawn.items()):
        sheet.paste(_chart(title, series), (at % _ACROSS * _WIDTH, at // _ACROSS * _HEIGHT))
    sheet.save(path)


def _chart(title: str, series: Series) -> Image.Image:
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    values = [value for line in series.values() for value in line]
    low, high = min(values), max(values)
    spread = high - low or 1.0
    right, bottom = _WIDTH - _EDGE // 2, _HEIGHT - _EDGE // 2
    canvas.rectangle((_EDGE, _EDGE, right, bottom), outline="#999999")
    canvas.text((_EDGE, 4), title, "black", font)
    for value, y in ((high, _EDGE), (low, bottom - 12)):
        canvas.text((2, y), f"{value:.3g}", "#444444", font)
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        canvas.text((_EDGE + 4 + number * 80, 18), name, colour, font)
        points = [
            (_EDGE + (right - _EDGE) * at / max(len(line) - 1, 1), bottom - (bottom - _EDGE) * (value - low) / spread)
            for at, value in enumerate(line)
        ]
        if len(points) == 1:
            points += points
        canvas.line(points, colour, 2)
    return image


def write_tables(path: Path, tables: Sequence[Table]) -> None:
    """Write a PNG of tables one below the other, each column as wide as its widest cell."""
    font = ImageFont.load_default(13)
    wide = [[max(map(font.getlength, column)) + _GAP for column in zip(*table, strict=True)] for table in tables]
    width = max((sum(columns) for columns in wide), default=0.0) + 2 * _MARGIN - _GAP
    rows = sum(map(len, tables)) + max(len(tables) - 1, 0)  # and an empty one between two tables
    sheet = Image.new("RGB", (max(round(width), 1), rows * _ROW + 2 * _MARGIN), "white")
    canvas, y = ImageDraw.Draw(sheet), _MARGIN
    for table, columns in zip(tables, wide, strict=True):
        for number, row in enumerate(table):
            x = float(_MARGIN)
            for cell, column in zip(row, columns, strict=True):
                canvas.text((x, y + 3), cell, "black" if number else "#444444", font)
                x += column
            y += _ROW
            canvas.line((_MARGIN, y - 2, sheet.width - _MARGIN, y - 2), "#999999" if number == 0 else "#e4e4e4")
        y += _ROW
    sheet.save(path)
