from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks import lettering
from model.tasks.matching import Box, iou
from model.tasks.products import COLORS, kinds
from model.tasks.shelf import Item, Lettering, Shelf, draw
from model.tasks.suite import SPLITS, Split


def stocked(seed: int, rows: int, places: int, *, tags: bool = True, gaps: float = 0.1) -> list[list[Item | None]]:
    rng = np.random.default_rng(seed)

    def item() -> Item | None:
        if rng.random() < gaps:
            return None
        price = f"{rng.integers(1, 10)}.{rng.integers(0, 100):02d}" if tags else None
        return Item(str(rng.choice(kinds("train"))), str(rng.choice(COLORS)), price)

    return [[item() for _ in range(places)] for _ in range(rows)]


def drawn(seed: int, rows: list[list[Item | None]], split: Split = "train", width: int = 252) -> Shelf:
    return draw(np.random.default_rng(seed), rows, width, 210, split)


def inside(inner: Box, outer: Box) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10_000), split=st.sampled_from(SPLITS), rows=st.integers(1, 3), places=st.integers(1, 4),
    tags=st.booleans(),
)  # fmt: skip
def test_what_was_asked_for_stands_in_its_row_and_place(
    seed: int, split: Split, rows: int, places: int, tags: bool
) -> None:
    wanted = stocked(seed, rows, places, tags=tags)
    a_shelf = drawn(seed, wanted, split)
    by_place = {(product.row, product.place): product for product in a_shelf.products}
    assert len(by_place) == len(a_shelf.products) == sum(item is not None for row in wanted for item in row)
    for (row, place), product in by_place.items():
        assert product.item == wanted[row][place]
        assert inside(product.box, a_shelf.rows[row])
        assert 252 * place / places <= product.box[0] and product.box[2] <= 252 * (place + 1) / places
        assert (product.tag is not None) == tags
        if product.tag is not None:
            assert inside(product.tag, a_shelf.rows[row])
            assert 252 * place // places <= product.tag[0] and product.tag[2] <= 252 * (place + 1) // places
            assert product.tag[1] >= product.box[3] - 1, "the tag hangs below its product"


def test_no_two_boxes_of_a_shelf_overlap() -> None:
    for seed in range(60):
        a_shelf = drawn(seed, stocked(seed, 2, 4, gaps=0))
        boxes = [box for product in a_shelf.products for box in (product.box, product.tag) if box]
        assert len(boxes) == 16
        assert max(iou(a, b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0


def test_the_box_of_a_product_is_its_ink() -> None:
    """The same shelf with one product in another colour differs inside that product's box alone, up to its edges."""
    for kind in kinds("train"):
        one, two = (
            drawn(4, [[Item("jar", "pink"), Item(kind, color), Item("can", "cyan")]]) for color in ("red", "blue")
        )
        changed = np.argwhere((np.asarray(one.image) != np.asarray(two.image)).any(axis=2))
        (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
        assert (left, top, right, bottom) == pytest.approx(one.products[1].box, abs=1.5), kind


def test_the_box_of_a_tag_is_its_paper() -> None:
    for seed in range(20):
        rows: list[list[Item | None]] = [[Item("jar", "red", "4.20"), Item("can", "blue")]]
        pens = [Lettering("roboto", 12), Lettering("roboto", 12, askew=5.0)]
        for pen in pens:
            a_shelf = draw(np.random.default_rng(seed), rows, 160, 120, "train", pen)
            tag = a_shelf.products[0].tag
            assert tag is not None
            wide, tall = lettering.extent("4.20", "roboto", 12)[0] + 6, pen.tag_height(1)
            assert wide - 1 <= tag[2] - tag[0] <= wide + 3 and tall - 1 <= tag[3] - tag[1] <= tall + 5
            if not pen.askew:
                assert (tag[2] - tag[0], tag[3] - tag[1]) == (wide, tall)


def test_a_tag_says_its_label_above_its_price() -> None:
    item = Item("jar", "red", price="4.20", label="ripe")
    assert item.name == "red jar" and item.lines == ("ripe", "4.20") and Item("jar", "red").lines == ()
    tags = [drawn(1, [[one]]).products[0].tag for one in (item, Item("jar", "red", "4.20"))]
    assert tags[0] and tags[1] and tags[0][3] - tags[0][1] > 1.6 * (tags[1][3] - tags[1][1])


def test_the_text_of_a_tag_is_written_on_it() -> None:
    one, two = (drawn(9, [[Item("jar", "red", price)]]) for price in ("1.88", "8.88"))
    assert one.products[0].box == two.products[0].box
    changed = np.argwhere((np.asarray(one.image) != np.asarray(two.image)).any(axis=2))
    tag = two.products[0].tag
    assert tag is not None and len(changed) > 10
    assert tag[0] <= changed[:, 1].min() and changed[:, 1].max() < tag[2]
    assert tag[1] <= changed[:, 0].min() and changed[:, 0].max() < tag[3]


def test_the_same_generator_and_goods_give_the_same_pixels() -> None:
    rows = stocked(3, 2, 3)
    assert drawn(3, rows).image.tobytes() == drawn(3, rows).image.tobytes()
    assert len({drawn(seed, rows).image.tobytes() for seed in range(10)}) == 10


def test_a_split_draws_in_its_own_fonts_alone() -> None:
    for split, other in (("train", "bitter"), ("validation", "oswald"), ("test", "roboto")):
        with pytest.raises(ValueError, match=f"the split {split} has the fonts"):
            draw(np.random.default_rng(0), [[Item("jar", "red")]], 99, 99, split, Lettering(other, 12))  # type: ignore[arg-type]


def test_only_test_may_stock_what_training_never_shows() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="the split train has no umbrella on its shelves"):
        draw(rng, [[Item("umbrella", "red")]], 99, 99, "train")
    assert draw(rng, [[Item("umbrella", "red")]], 99, 99, "test").products[0].item.name == "red umbrella"


def test_a_shelf_that_cannot_be_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one row or more"):
        draw(rng, [], 99, 99, "train")
    with pytest.raises(ValueError, match="one row or more"):
        draw(rng, [[None], []], 99, 99, "train")
    with pytest.raises(ValueError, match="for a product"):
        draw(rng, [[Item("jar", "red")] * 12], 99, 99, "train")
    with pytest.raises(ValueError, match="do not fit"):
        draw(rng, [[Item("jar", "red", "12345678.90")] * 3], 99, 99, "train")
    with pytest.raises(ValueError, match="pixels wide, its place"):
        draw(rng, [[Item("jar", "red", "12345.90")] * 3], 99, 99, "train", Lettering("roboto", 12))


def test_twenty_products_fit_on_a_shelf_without_tags() -> None:
    a_shelf = drawn(0, stocked(0, 4, 5, tags=False, gaps=0), width=336)
    assert len(a_shelf.products) == 20 and not any(product.tag for product in a_shelf.products)


def test_an_empty_shelf_shows_nothing() -> None:
    assert drawn(0, [[None, None], [None]]).products == ()
    assert len(drawn(0, [[None], [None]]).rows) == 2
