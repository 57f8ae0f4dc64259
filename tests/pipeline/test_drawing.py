"""Primitives drawn on their picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from pipeline.drawing import draw

WHITE = Image.new("RGB", (200, 100), "white")


def primitive(kind: str, *numbers: float, label: str | None = None, valid: bool = True) -> dict[str, Any]:
    names = ("x1", "y1", "x2", "y2")
    return {"kind": kind, "label": label, "valid": valid} | dict(zip(names, (*numbers, None, None), strict=False))


def changed(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) != 255).any(axis=2)


def test_a_box_is_drawn_on_its_edges_and_the_original_is_left_alone() -> None:
    drawn = changed(draw(WHITE, [primitive("box", 20, 30, 120, 80)]))
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (20, 30, 120, 80)
    assert not drawn[50, 70] and not changed(WHITE).any()


def test_a_point_is_drawn_around_its_place() -> None:
    drawn = changed(draw(WHITE, [primitive("point", 50, 60)]))
    assert drawn[60, 50] and not drawn[40, 30]


def test_labels_stay_inside_the_picture_and_share_a_colour() -> None:
    boxes = [primitive("box", 190, 0, 199, 9, label="a cat"), primitive("box", 10, 60, 60, 90, label="a cat")]
    image = np.asarray(draw(WHITE, [*boxes, primitive("point", 100, 50, label="猫 \U0001f408")]))
    assert tuple(image[90, 35]) == tuple(image[0, 198])
    assert (image[:, 150:190] != 255).any()


def test_a_primitive_that_is_not_valid_is_not_drawn() -> None:
    assert not changed(draw(WHITE, [primitive("box", 90, 30, 20, 80, label="x", valid=False)])).any()
