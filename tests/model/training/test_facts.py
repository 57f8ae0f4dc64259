"""Facts say what the truth of a case says, in numbers."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from model.tasks.scenes import COLORS
from model.tasks.suites import SUITES
from model.training.facts import CHARACTERS, DIRECTIONS, NOUNS, TAG, UNKNOWN, facts_of

LEVELS = [(name, level) for name, suite in SUITES.items() for level in suite.levels if level != "nightmare"]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_every_box_of_the_answer_belongs_to_a_fact(name: str, level: str) -> None:
    for seed in range(10):
        case = SUITES[name].case(seed, level, "train")
        boxes = {tuple(round(edge, 2) for edge in fact.box) for fact in facts_of(case).things}
        assert {tuple(round(edge, 2) for edge in box) for box in case.boxes or ()} <= boxes


def test_things_carry_their_noun_and_colour() -> None:
    case = SUITES["spatial"].case(3, "easy", "train")
    facts = facts_of(case).things
    said = [(NOUNS[fact.noun], COLORS[fact.color]) for fact in facts]
    assert said == [(thing["noun"], thing["color"]) for thing in case.truth["things"]]


def test_a_price_tag_tells_its_characters_where_their_ink_is_and_another_tag_none() -> None:
    signs, seen = set[str](), 0
    for seed in range(20):
        case = SUITES["reading"].case(seed, "easy", "train")
        tags = [fact for fact in facts_of(case).things if NOUNS[fact.noun] == TAG]
        signs.add(case.truth["print"]["sign"])
        for product, tag in zip(case.truth["shelf"], tags, strict=True):
            text = product["text"]
            said = "".join(CHARACTERS[which] for _, which in tag.print if which != UNKNOWN)
            assert said == (text if "." in text else "")
            if said:
                left, top, right, bottom = (int(edge) for edge in tag.box)
                paper = np.asarray(case.image.convert("L").crop((left, top, right, bottom)), dtype=float)
                inked = np.flatnonzero(np.abs(paper - paper[1, paper.shape[1] // 2]).max(axis=0) > 40)
                assert abs(tag.print[-1][0] * (right - left) - inked[inked < right - left - 2].max()) <= 3
                ends = [end for end, _ in tag.print]
                assert ends == sorted(ends) and all(0 < end < 1 for end in ends)
                assert len(ends) == len(case.truth["print"]["sign"].format(text))
                seen += 1
    assert seen > 20 and len(signs) > 2


@pytest.mark.parametrize("seed", range(6))
def test_a_maze_has_a_passage_for_each_door_and_none_between_far_cells(seed: int) -> None:
    case = SUITES["maze"].case(seed, "easy", "train")
    facts, truth = facts_of(case), case.truth
    assert len(facts.middles) == len(truth["centres"])
    assert sum(is_open for _, _, is_open in facts.passages) == len(truth["doors"])
    assert len(facts.passages) > len(truth["doors"])  # some are closed
    assert [list(wall) for wall in facts.walls] == truth["walls"]


@pytest.mark.parametrize("seed", range(6))
def test_a_maze_has_its_two_marks_where_its_question_starts_and_ends(seed: int) -> None:
    case = SUITES["maze"].case(seed, "easy", "train")
    facts = facts_of(case)
    for mark, cell, (shape, color) in zip(
        facts.things, (case.truth["start"], case.truth["goal"]), case.truth["marks"], strict=True
    ):
        assert (NOUNS[mark.noun], COLORS[mark.color]) == (shape, color) and f"{color} {shape}" in case.question.lower()
        x, y = facts.middles[cell]
        left, top, right, bottom = (round(edge) for edge in mark.box)
        assert (mark.box[0] + mark.box[2], mark.box[1] + mark.box[3]) == pytest.approx((2 * x, 2 * y))
        # About as large as what is painted: its colour fills a part of the box and nothing beside it.
        pixels = np.asarray(case.image, np.int16)
        painted = np.abs(pixels - pixels[round(y), round(x)]).sum(axis=2) < 60
        assert painted[top:bottom, left:right].mean() > 0.25
        assert painted[top - 2 : bottom + 2, [left - 2, right + 1]].mean() < 0.2


@pytest.mark.parametrize("seed", range(6))
def test_as_many_ways_lead_out_of_a_cell_as_it_has_doors(seed: int) -> None:
    case = SUITES["maze"].case(seed, "medium", "train")
    doors = Counter(cell for door in case.truth["doors"] for cell in door)
    assert facts_of(case).degrees == tuple(min(doors[cell], 4) for cell in range(len(case.truth["centres"])))


@pytest.mark.parametrize("seed", range(6))
def test_a_way_out_of_a_cell_points_at_a_neighbour_behind_a_door(seed: int) -> None:
    case = SUITES["maze"].case(seed, "easy", "train")
    facts, doors = facts_of(case), case.truth["doors"]
    for cell, (x, y) in enumerate(facts.middles):
        behind = {a + b - cell for a, b in doors if cell in (a, b)}
        ways = {way for way, leads in enumerate(facts.exits[cell]) if leads}
        assert len(ways) <= len(behind) and bool(ways) == bool(behind)
        for way in ways:
            due = way * math.tau / DIRECTIONS
            angles = [math.atan2(facts.middles[o][1] - y, facts.middles[o][0] - x) for o in behind]
            assert min(abs(math.remainder(angle - due, math.tau)) for angle in angles) <= math.tau / DIRECTIONS / 2


def test_each_line_of_a_tangle_runs_between_its_icons_and_the_upper_left_one_comes_first() -> None:
    for seed in range(10):
        case = SUITES["path_tracing"].case(seed, "easy", "train")
        boxes = {fact.box for fact in facts_of(case).things}
        for line, told in zip(case.truth["lines"], facts_of(case).lines, strict=True):
            assert set(told.icons) == {tuple(line["start"]["box"]), tuple(line["end"]["box"])} <= boxes
            assert sum(told.icons[0]) <= sum(told.icons[1])
            assert [list(point) for point in told.points] == line["points"]


def test_moved_facts_are_shifted_as_a_whole() -> None:
    for name in ("maze", "path_tracing", "reading"):
        facts = facts_of(SUITES[name].case(1, "easy", "train"))
        moved = facts.moved(3.0, -5.0)
        assert moved != facts and moved.exits == facts.exits
        back = moved.moved(-3.0, 5.0)
        for one, other in zip(facts.lines, back.lines, strict=True):
            assert one.icons[1] == pytest.approx(other.icons[1]) and one.points[1] == pytest.approx(other.points[1])
        for a, b in ((facts.middles, back.middles), (facts.passages, back.passages)):
            assert [each == pytest.approx(other) for each, other in zip(a, b, strict=True)] == [True] * len(a)
        assert [fact.box == pytest.approx(o.box) for fact, o in zip(facts.things, back.things, strict=True)] == [
            True
        ] * len(facts.things)
