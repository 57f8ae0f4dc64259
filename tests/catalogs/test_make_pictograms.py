from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalogs.make_pictograms import DATA, SIDE, fit, kinds, make_names, make_sheet, plural


def test_a_table_is_read_in_every_form() -> None:
    table = "key, coffee=cup,\nknife/knives, fire=flame/fires"
    assert [tuple(kind) for kind in kinds(table)] == [
        ("coffee", "cup", "cups"),
        ("fire", "flame", "fires"),
        ("key", "key", "keys"),
        ("knife", "knife", "knives"),
    ]


@pytest.mark.parametrize(
    ("one", "many"),
    [("box", "boxes"), ("battery", "batteries"), ("key", "keys"), ("couch", "couches"), ("bus", "buses")],
)
def test_plurals_are_by_rule(one: str, many: str) -> None:
    assert plural(one) == many


def test_a_mask_is_cut_and_scaled_to_the_cell() -> None:
    drawn = Image.new("L", (400, 400))
    drawn.paste(255, (100, 50, 200, 250))
    assert fit(drawn).size == (SIDE // 2, SIDE) and np.asarray(fit(drawn)).min() == 255
    with pytest.raises(ValueError, match="covers nothing"):
        fit(Image.new("L", (8, 8)))


def test_the_stored_names_are_those_of_the_table() -> None:
    stored = json.loads((DATA / "names.json").read_text())
    masks = [Image.new("L", tuple(row["size"])) for row in stored["kinds"]]
    assert make_names(masks) == stored
    with Image.open(Path(DATA) / "sheet.png") as sheet:
        assert sheet.size == make_sheet(masks).size and sheet.mode == "L"
