from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.tasks.layouts import HELD_OUT_LAYOUTS, TRAINING_LAYOUTS
from model.tasks.scenes import _RGB, COLORS, SHAPES, SIZES, Scene, Thing, _background, draw, jitter, make_figure, stamp

SEEDS = st.integers(0, 2**63)
ALL_LAYOUTS = (*TRAINING_LAYOUTS, *HELD_OUT_LAYOUTS)


def scene(seed: int, n: int, layouts: tuple[str, ...] = ALL_LAYOUTS, size: tuple[int, int] = (168, 168)) -> Scene:
    return draw(np.random.default_rng(seed), width=size[0], height=size[1], count=(n, n), layouts=layouts)


def touching(a: Thing, b: Thing) -> bool:
    apart = a.box[0] > b.box[2] or b.box[0] > a.box[2] or a.box[1] > b.box[3] or b.box[1] > a.box[3]
    return not apart


@settings(deadline=None, max_examples=150)
@given(
    seed=SEEDS,
    shape=st.sampled_from(SHAPES),
    size=st.sampled_from(SIZES),
    corner=st.tuples(st.floats(0, 100), st.floats(0, 100)),
    outlined=st.booleans(),
)
def test_the_tight_extent_is_where_pixels_changed(
    seed: int, shape: str, size: str, corner: tuple[float, float], outlined: bool
) -> None:
    plain = Image.new("RGB", (168, 168), (128, 128, 128))
    figure = make_figure(np.random.default_rng(seed), shape, "red", size, 168)
    stamp(plain, figure, *corner, (214, 34, 38), (24, 24, 24) if outlined else None)
    changed = np.argwhere((np.asarray(plain) != 128).any(axis=2))
    extent = [*changed.min(axis=0)[::-1], *(changed.max(axis=0)[::-1] + 1)]
    box = (*corner, corner[0] + figure.extent[0], corner[1] + figure.extent[1])
    assert np.abs(np.array(extent) - box).max() <= 1.0


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, n=st.integers(0, 10), layout=st.sampled_from(ALL_LAYOUTS), width=st.integers(90, 300))
def test_things_lie_inside_and_never_touch(seed: int, n: int, layout: str, width: int) -> None:
    things = scene(seed, n, (layout,), (width, 168)).things
    assert len(things) <= n
    for i, thing in enumerate(things):
        x1, y1, x2, y2 = thing.box
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= 168
        assert not any(touching(thing, other) for other in things[:i])


@pytest.mark.parametrize("layout", ["uniform", "grid", "circle", "cluster"])
def test_six_things_fit_on_nearly_every_scene(layout: str) -> None:
    placed = [len(scene(seed, 6, (layout,)).things) for seed in range(100)]
    assert sum(n == 6 for n in placed) >= 99


def test_more_things_than_fit_end_in_fewer() -> None:
    assert 8 <= len(scene(0, 60).things) < 60


def test_an_empty_scene_is_a_background() -> None:
    empty = scene(3, 0)
    assert empty.things == () and empty.image.size == (168, 168) and empty.image.mode == "RGB"


def test_things_are_sorted_left_to_right() -> None:
    for seed in range(20):
        boxes = [thing.box for thing in scene(seed, 6).things]
        assert boxes == sorted(boxes)


@pytest.mark.parametrize("size", [(168, 168), (126, 300), (640, 480)])
def test_the_longer_side_tells_the_size(size: tuple[int, int]) -> None:
    for seed in range(40):
        for thing in scene(seed, 4, size=size).things:
            longer = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) / min(size)
            low, high = (0.14, 0.19) if thing.size == "small" else (0.25, 0.33)
            assert low - 1e-6 <= longer <= high + 1e-6


def test_a_jittered_color_is_nearest_to_its_own_name() -> None:
    rng = np.random.default_rng(0)
    anchors = np.array([_RGB[color] for color in COLORS])
    for color in COLORS * 50:
        distance = np.abs(anchors - jitter(rng, color)).sum(axis=1)
        assert COLORS[int(distance.argmin())] == color


def test_backgrounds_stay_muted_and_far_from_every_color() -> None:
    rng = np.random.default_rng(0)
    anchors = np.array([_RGB[color] for color in COLORS])
    for _ in range(100):
        pixels = np.asarray(_background(rng, 40, 40)).reshape(-1, 3).astype(int)
        assert (pixels.max(axis=1) - pixels.min(axis=1)).max() <= 36
        assert np.abs(pixels[:, None] - anchors).max(axis=2).min() >= 40


def test_repeated_kinds_are_common() -> None:
    kinds = [[(thing.shape, thing.color) for thing in scene(seed, 5).things] for seed in range(200)]
    repeats = sum(len(set(things)) < len(things) for things in kinds)
    assert 80 <= repeats <= 180


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, two, other = scene(7, 5), scene(7, 5), scene(8, 5)
    assert one.image.tobytes() == two.image.tobytes() and one.things == two.things
    assert one.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"count": (3, 2)}, "count"),
        ({"count": (-1, 2)}, "count"),
        ({"width": 20}, "32 pixels"),
        ({"layouts": ("spiral",)}, "spiral"),
        ({"layouts": ()}, "layouts"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(wrong: dict[str, object], says: str) -> None:
    settings_: dict[str, object] = {"width": 168, "height": 168, "count": (1, 3), **wrong}
    with pytest.raises(ValueError, match=says):
        draw(np.random.default_rng(0), **settings_)  # type: ignore[arg-type]
