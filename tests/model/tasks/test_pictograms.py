from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.tasks import pictograms
from model.tasks.pictograms import HELD_OUT_KINDS, KINDS, PLURALS, TRAINING_KINDS, extent, mask
from model.tasks.scenes import COLORS, SHAPES

DATA = Path(pictograms.__file__).parent / "data" / "pictograms"


def alpha(kind: str, side: int) -> np.ndarray:
    """Coverage 0..1 on a square of this side, the pictogram in its middle."""
    drawn = mask(kind, side)
    square = Image.new("L", (side, side))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(square, dtype=np.float64) / 255


def test_there_are_many_kinds_and_a_fifth_is_kept_from_training() -> None:
    assert len(KINDS) >= 150
    assert not set(TRAINING_KINDS) & set(HELD_OUT_KINDS)
    assert set(TRAINING_KINDS) | set(HELD_OUT_KINDS) == set(KINDS)
    assert 0.18 < len(HELD_OUT_KINDS) / len(KINDS) < 0.22


def test_names_are_one_or_two_plain_words_and_no_name_means_another_thing() -> None:
    assert len(set(KINDS) | set(PLURALS.values())) >= 2 * len(KINDS) - 1  # one fish, two fish
    for name in KINDS:
        assert 1 <= len(name.split()) <= 2 and name == name.lower()
    assert not set(KINDS) & {*SHAPES, *COLORS, "thing"}
    assert not {word for name in KINDS for word in name.split()} & set(COLORS)


@pytest.mark.parametrize(
    ("name", "plural"),
    [("knife", "knives"), ("mouse", "mice"), ("person", "people"), ("box", "boxes"), ("battery", "batteries"),
     ("key", "keys"), ("bus", "buses"), ("wine glass", "wine glasses"), ("die", "dice"), ("tooth", "teeth")],
)  # fmt: skip
def test_plurals_are_english(name: str, plural: str) -> None:
    assert PLURALS[name] == plural


def test_a_mask_fills_its_extent_at_every_size() -> None:
    for kind in KINDS:
        for side in (20, 33, 80):
            drawn = mask(kind, side)
            assert drawn.size == extent(kind, side) and max(drawn.size) == side and drawn.mode == "L"
            coverage = np.asarray(drawn)
            assert 0.1 < (coverage / 255).mean() < 0.97, kind
            edges = (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1])
            assert min(int(edge.max()) for edge in edges) > 20, kind


def test_no_two_kinds_look_alike_at_24_pixels() -> None:
    seen = np.stack([alpha(kind, 24).ravel() for kind in KINDS])
    apart = np.abs(seen[:, None] - seen[None]).mean(axis=2) + np.eye(len(KINDS))
    worst = np.unravel_index(apart.argmin(), apart.shape)
    assert apart.min() > 0.1, [KINDS[i] for i in worst]


def test_an_unknown_kind_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="unicorn"):
        mask("unicorn", 24)


def test_the_sheet_is_small_and_its_licence_lies_beside_it() -> None:
    assert (DATA / "sheet.png").stat().st_size < 400_000
    assert "MIT License" in (DATA / "LICENSE-phosphor-icons").read_text()
    assert "phosphor-icons" in (DATA / "names.json").read_text()
