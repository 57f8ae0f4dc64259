from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from model.tasks.shelf_looks import HELD_OUT_LOOKS, TRAINING_LOOKS, Look, board, draw_look, looks, shift, tag, wall
from model.tasks.suite import SPLITS


def every_look() -> list[Look]:
    return [
        Look(palette, a_wall, a_board, a_tag)
        for choice in (TRAINING_LOOKS, HELD_OUT_LOOKS)
        for palette in choice.palettes
        for a_wall in choice.walls
        for a_board in choice.boards
        for a_tag in choice.tags
    ]


def test_test_shares_no_palette_and_no_style_with_training() -> None:
    assert looks("train") is looks("validation") is TRAINING_LOOKS and looks("test") is HELD_OUT_LOOKS
    for ours, theirs in zip(astuple(TRAINING_LOOKS), astuple(HELD_OUT_LOOKS), strict=True):
        assert set(ours).isdisjoint(theirs)


def test_no_jitter_carries_a_palette_of_test_into_one_of_training() -> None:
    drawn = {
        split: np.array([astuple(draw_look(np.random.default_rng(seed), split).palette) for seed in range(300)])
        for split in SPLITS
    }
    apart = np.abs(drawn["test"][:, None] - drawn["train"][None]).max(axis=(2, 3))
    assert apart.min() > 20


@pytest.mark.parametrize("split", SPLITS)
def test_every_look_of_a_split_occurs_and_no_other(split: str) -> None:
    drawn = [draw_look(np.random.default_rng(seed), split) for seed in range(200)]  # type: ignore[arg-type]
    choice = looks(split)  # type: ignore[arg-type]
    assert {look.wall for look in drawn} == set(choice.walls)
    assert {look.board for look in drawn} == set(choice.boards)
    assert {look.tag for look in drawn} == set(choice.tags)


def test_ink_stands_out_from_its_paper_in_every_palette() -> None:
    for choice in (TRAINING_LOOKS, HELD_OUT_LOOKS):
        for palette in choice.palettes:
            assert abs(np.mean(palette.paper) - np.mean(palette.ink)) > 120, palette


def test_every_style_draws_walls_boards_and_tags_of_its_own() -> None:
    walls, boards, tags = set(), set(), set()
    palette = TRAINING_LOOKS.palettes[0]
    for look in every_look():
        same = Look(palette, look.wall, look.board, look.tag)
        canvas = wall(np.random.default_rng(1), same, 80, 60)
        assert canvas.size == (80, 60) and canvas.mode == "RGB"
        walls.add(canvas.tobytes())
        board(canvas, same, 40, 60)
        boards.add(canvas.crop((0, 36, 80, 60)).tobytes()[-80 * 3 * 20 :])
        tags.add(b"".join(layer.tobytes() for layer in tag(same, 30, 16)))
    assert len(walls) == 5 and len(tags) == 6 and len(boards) >= 4


def test_a_tag_reaches_all_four_sides_of_its_patch() -> None:
    for look in every_look():
        assert tag(look, 41, 17)[1].getbbox() == (0, 0, 41, 17)


def test_shifted_colours_stay_colours() -> None:
    assert shift((250, 5, 100), 20) == (255, 25, 120) and shift((250, 5, 100), -20) == (230, 0, 80)
