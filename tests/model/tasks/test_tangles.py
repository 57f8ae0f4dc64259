from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from model.tasks.curves import crossings, curvatures, directions, distances, resampled
from model.tasks.tangles import (
    CLEARANCE_PX,
    MIN_CROSSING_DEGREES,
    STEP_PX,
    Form,
    Tangle,
    _clear_of_icons,
    _Line,
    _meets_itself,
    _Places,
    draw_tangle,
)

EASY, TIGHT = Form((0, 1), 0.28, 26.0), Form((2, 3), 0.24, 12.0)
SIZE, ICON_PX = (300, 280), 18.0
SEEDS = range(12)


@cache
def tangle(seed: int, n: int = 6, form: Form = TIGHT) -> Tangle:
    rng = np.random.default_rng(seed)
    return draw_tangle(rng, SIZE, rng.permutation(n).tolist(), ICON_PX, form)


def pairs(lines: tuple[np.ndarray, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(a, b) for i, a in enumerate(lines) for b in lines[:i]]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_joins_its_start_to_its_own_end_in_even_steps(seed: int) -> None:
    drawn = tangle(seed)
    assert sorted(drawn.leads_to) == list(range(6))
    for i, line in enumerate(drawn.lines):
        assert np.allclose(line[0], drawn.starts[i]) and np.allclose(line[-1], drawn.ends[drawn.leads_to[i]])
        assert np.sqrt((np.diff(line, axis=0) ** 2).sum(axis=1)).max() <= STEP_PX + 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_and_icons_stay_inside_the_image(seed: int) -> None:
    drawn = tangle(seed)
    every = np.concatenate(drawn.lines)
    assert every.min() > 4 and (every < np.array(SIZE) - 4).all()
    centers = np.concatenate([drawn.starts, drawn.ends])
    assert (centers >= ICON_PX / 2).all() and (centers <= np.array(SIZE) - ICON_PX / 2).all()
    gaps = np.sqrt(((centers[:, None] - centers) ** 2).sum(axis=2)) + 1000 * np.eye(12)
    assert gaps.min() > 1.3 * ICON_PX


@pytest.mark.parametrize("seed", SEEDS)
def test_no_line_comes_near_an_icon_that_is_not_its_own(seed: int) -> None:
    drawn = tangle(seed)
    for i, line in enumerate(drawn.lines):
        others = [start for k, start in enumerate(drawn.starts) if k != i]
        others += [end for k, end in enumerate(drawn.ends) if k != drawn.leads_to[i]]
        assert distances(np.array(others), line).min() > ICON_PX * math.sqrt(0.5) + 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_leaves_its_own_icons_once(seed: int) -> None:
    drawn = tangle(seed)
    for i, line in enumerate(drawn.lines):
        for end in (drawn.starts[i], drawn.ends[drawn.leads_to[i]]):
            near = np.hypot(*(line - end).T) < ICON_PX * math.sqrt(0.5) + 2
            assert np.abs(np.diff(near.astype(int))).sum() == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_cross_at_an_angle(seed: int) -> None:
    for a, b in pairs(tangle(seed).lines):
        for point in crossings(a, b):
            i, j = (int(np.hypot(*(line - point).T).argmin()) for line in (a, b))
            cosine = abs(float(directions(a)[i] @ directions(b)[j]))
            assert math.degrees(math.acos(min(1.0, cosine))) > MIN_CROSSING_DEGREES - 1


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_are_near_each_other_only_about_a_crossing(seed: int) -> None:
    about = CLEARANCE_PX / math.sin(math.radians(MIN_CROSSING_DEGREES)) * 1.3
    for a, b in pairs(tangle(seed).lines):
        dense = resampled(a, 1.0)
        near = dense[distances(dense, b) < CLEARANCE_PX - 1.5]
        met = crossings(a, b)
        assert not len(near) or (len(met) and max(np.hypot(*(met - p).T).min() for p in near) < about)


@pytest.mark.parametrize("form", [EASY, TIGHT])
def test_no_line_bends_tighter_than_its_form_allows(form: Form) -> None:
    for seed in SEEDS:
        for line in tangle(seed, 3, form).lines:
            step = float(np.hypot(*(line[1] - line[0])))
            assert curvatures(line, step).max() < 1.15 / form.min_radius_px


def test_a_tighter_form_bends_more() -> None:
    def turned(form: Form) -> float:
        return float(np.mean([curvatures(line, 3.0).mean() for s in SEEDS for line in tangle(s, 3, form).lines]))

    assert turned(TIGHT) > 1.2 * turned(EASY)


def straight(*corners: tuple[float, float]) -> np.ndarray:
    return resampled(np.array(corners), STEP_PX)


def test_a_line_that_comes_back_alongside_itself_is_refused_and_a_loop_is_not() -> None:
    turn = np.linspace(0, 2 * np.pi, 100)
    loop = straight((0, 30), (60, 30), *zip(60 + 30 * np.sin(turn), 60 - 30 * np.cos(turn), strict=True), (140, 30))
    crossing = straight((0, 60), (100, 60), (100, 20), (50, 20), (50, 120))
    alongside = straight((0, 60), (100, 60), (100, 65), (0, 65))
    met = [_meets_itself(_Line(points, directions(points))) for points in (loop, crossing, alongside)]
    assert met == [True, False, True]  # this loop closes on a tangent, so one can't tell where to go on


@pytest.mark.parametrize(
    ("third", "clear"), [((150.0, 150.0), True), ((100.0, 58.0), False), ((12.0, 64.0), False), ((188.0, 64.0), False)]
)
def test_a_line_past_another_icon_is_refused_wherever_it_passes(third: tuple[float, float], clear: bool) -> None:
    starts, ends = np.array([[10.0, 50.0], third]), np.array([[190.0, 50.0], [100.0, 200.0]])
    places = _Places(starts, ends, np.ones((2, 2)), np.ones((2, 2)))
    assert _clear_of_icons(straight((10, 50), (190, 50)), places, 0, 0, ICON_PX) == clear


def test_a_line_back_through_its_own_start_is_refused() -> None:
    places = _Places(np.array([[100.0, 50.0]]), np.array([[190.0, 150.0]]), np.ones((1, 2)), np.ones((1, 2)))
    back = straight((100, 50), (180, 50), (180, 20), (20, 20), (20, 55), (150, 55), (190, 150))
    assert not _clear_of_icons(back, places, 0, 0, ICON_PX)
    assert _clear_of_icons(straight((100, 50), (190, 150)), places, 0, 0, ICON_PX)


def test_the_drawing_never_changes_who_is_joined_to_whom() -> None:
    for order in ([2, 0, 1], [0, 1, 2], [2, 1, 0]):
        for seed in range(4):
            assert draw_tangle(np.random.default_rng(seed), SIZE, order, ICON_PX, EASY).leads_to == tuple(order)


def test_ten_lines_find_room_in_any_order() -> None:
    for order in (list(range(10)), list(range(10))[::-1], [3, 8, 1, 9, 0, 5, 2, 7, 4, 6]):
        for seed in range(2):
            assert len(draw_tangle(np.random.default_rng(seed), (300, 300), order, ICON_PX, TIGHT).lines) == 10


def test_a_tangle_is_a_function_of_its_generator() -> None:
    one, two = (draw_tangle(np.random.default_rng(7), SIZE, [1, 0, 2], ICON_PX, EASY) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one.lines, two.lines, strict=True))
