"""Examples: whole responses are learnt, and a token that is about a place looks at its cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.config import Config
from model.image import span
from model.prompt import Tokenizer
from model.tasks.suites import SUITES
from model.training.examples import IGNORE, NOWHERE, SHAPES_LESSON, encode, material
from model.training.facts import UNKNOWN
from tests.conftest import DEFAULT_CHECKPOINT

CONFIG = Config.from_file(DEFAULT_CHECKPOINT)
TOKENIZER = Tokenizer(DEFAULT_CHECKPOINT)
SOURCES = (
    SHAPES_LESSON, "counting/easy", "counting/hard", "spatial/medium", "reading/easy", "maze/easy", "path_tracing/easy"
)  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_an_example_teaches_the_whole_response_and_nothing_of_the_prompt(source: str) -> None:
    for seed in range(4):
        made = material(source, seed)
        example = encode(made, CONFIG, TOKENIZER)
        learnt = (example.labels_T != IGNORE).nonzero()[:, 0]
        assert TOKENIZER.decode(example.labels_T[learnt[:-1]].tolist()) == made.response
        assert int(example.labels_T[learnt[-1]]) == TOKENIZER.eos_id
        assert torch.equal(example.ids_T[learnt[1:]], example.labels_T[learnt[:-1]])  # fed after it was predicted
        text = [token for token in example.ids_T[: learnt[0] + 1].tolist() if token < CONFIG.vocab_size]
        assert TOKENIZER.decode(text).endswith(f"{made.question}<｜Assistant｜><think>")


@pytest.mark.parametrize("source", SOURCES)
def test_tokens_of_a_place_look_at_its_cell_and_coordinates_are_marked(source: str) -> None:
    numbers = {token: value for value, token in enumerate(TOKENIZER.number_ids)}
    per_place = 2 if source.startswith(("maze", "path")) else 4
    for seed in range(4):
        example = encode(material(source, seed), CONFIG, TOKENIZER)
        order = span(example.geometry.rows, example.geometry.columns, 2).order
        marked = example.coordinate_T.nonzero()[:, 0].tolist()
        assert len(marked) % per_place == 0
        for first in range(0, len(marked), per_place):
            group = marked[first : first + per_place]
            values = [numbers[int(example.labels_T[at])] / 999 for at in group]
            x, y = (values[0] + values[-2]) / 2, (values[1] + values[-1]) / 2
            slots = {int(example.look_T[at]) for at in group}
            assert len(slots) == 1 and NOWHERE not in slots
            row, column = divmod(order[slots.pop()], example.geometry.columns)
            # the last cells may be filled in part, so a cell's share of the image is at most this
            cell_px = 42
            assert abs(x * example.geometry.canvas_width / cell_px - column - 0.5) <= 0.6
            assert abs(y * example.geometry.canvas_height / cell_px - row - 0.5) <= 0.6


@pytest.mark.parametrize("source", ["maze/easy", "path_tracing/easy", "counting/easy"])
def test_each_step_of_a_way_is_told_where_the_one_before_has_come_to(source: str) -> None:
    for seed in range(4):
        example = encode(material(source, seed), CONFIG, TOKENIZER)
        come, cells = NOWHERE, []
        for at in (example.labels_T != IGNORE).nonzero()[:, 0].tolist():
            assert int(example.from_T[at]) == come
            if bool(example.coordinate_T[at]) and source != "counting/easy":
                cells.append(int(example.look_T[at]))
                come = cells[-1] if len(cells) % 2 == 0 else come  # after x and y
        assert (come == NOWHERE) is (source == "counting/easy")


def test_what_is_said_after_a_way_looks_where_it_has_come_to() -> None:
    words = 0
    for seed in range(6):
        example = encode(material("maze/easy", seed), CONFIG, TOKENIZER)
        saying = False
        for at in (example.labels_T != IGNORE).nonzero()[:, 0].tolist():
            token = int(example.labels_T[at])
            if token in (TOKENIZER.point_id, TOKENIZER.end_think_id, TOKENIZER.eos_id):
                saying = False
            if saying:
                assert int(example.look_T[at]) == int(example.from_T[at]) != NOWHERE
                words += 1
            saying |= token == TOKENIZER.end_point_id
        assert int(example.look_T[-1]) == NOWHERE  # of the answer, nothing
    assert words > 60


def test_a_price_is_read_where_its_characters_are_printed() -> None:
    config, tokenizer = Config.from_file(DEFAULT_CHECKPOINT), Tokenizer(DEFAULT_CHECKPOINT)
    seen = 0
    for seed in range(12):
        made = material("reading/easy", seed)
        example = encode(made, config, tokenizer)
        order = span(example.geometry.rows, example.geometry.columns, 2).order
        learnt = example.labels_T != IGNORE
        ids, looks = example.labels_T[learnt].tolist(), example.look_T[learnt].tolist()
        assert made.facts is not None
        for tag in (fact for fact in made.facts.things if fact.print):
            price = [tokenizer.piece_id("0123456789."[which]) for _, which in tag.print if which != UNKNOWN]
            places = [at for at in range(len(ids)) if ids[at : at + len(price)] == price and looks[at] != NOWHERE]
            for at in places:
                columns = [order[slot] % example.geometry.columns for slot in looks[at : at + len(price)]]
                begins = [0.0, *(end for end, _ in tag.print)]
                shares = [(a + b) / 2 for a, (b, kind) in zip(begins, tag.print, strict=False) if kind != UNKNOWN]
                x = [tag.box[0] + share * (tag.box[2] - tag.box[0]) for share in shares]
                left, _, width, _ = example.geometry.content  # in pixels of the canvas, of which a cell has 42
                due = [(left + each / made.image.width * width) / 42 for each in x]
                assert all(abs(column + 0.5 - each) < 0.52 for column, each in zip(columns, due, strict=True))
                seen += columns[0] < columns[-1]  # printed across two cells
    assert seen > 4


def test_a_box_is_about_the_label_before_it() -> None:
    example = encode(material("counting/easy", 3), CONFIG, TOKENIZER)
    assert bool(example.label_T.any())
    text = TOKENIZER.decode(example.ids_T[example.label_T].tolist())
    assert "<" not in text and text
    assert bool((example.about_T & (example.look_T != NOWHERE)).sum() == example.about_T.sum())


def all_known(found: torch.Tensor, known: Sequence[Sequence[float]]) -> bool:
    """Whether each of some fours of coordinates is one of the known, to a hundredth of a pixel."""
    off = (found[:, None] - torch.tensor(known)).abs().amax(dim=2)  # [found, known]
    return bool((off.amin(dim=1) < 1e-2).all())


def test_a_cell_is_asked_for_its_box_as_the_response_would_say_it() -> None:
    for seed in range(12):
        made = material("counting/easy", seed)
        example = encode(made, CONFIG, TOKENIZER)
        assert made.facts is not None
        width, height = made.image.size
        there = example.cell_targets.boxes[example.cell_targets.present > 0] * torch.tensor([width, height] * 2)
        assert all_known(there, [fact.box for fact in made.facts.things])


def test_a_source_may_be_one_kind_of_question() -> None:
    kinds = {material("reading/easy/price", seed).response.count("<｜ref｜>") for seed in range(8)}
    assert kinds == {2}  # the product and its tag; cheapest and dearest read every tag
    answers = {material("spatial/easy/true_false", 37 * seed).response.rpartition("</think>")[2] for seed in range(8)}
    assert answers == {"true", "false"}
    with pytest.raises(ValueError, match="no question of the kind 'prices'"):
        material("reading/easy/prices", 0)


def test_a_cell_is_told_where_lines_lead_as_the_response_would_say_it() -> None:
    for seed in range(12):
        made = material("path_tracing/easy", seed)
        example = encode(made, CONFIG, TOKENIZER)
        assert made.facts is not None
        width, height = made.image.size
        cells = example.cell_targets
        ends = cells.leads[cells.leads[:, 0] > -0.5] * torch.tensor([width, height] * 2)
        middles = [[(box[i] + box[i + 2]) / 2 for box in line.icons for i in (0, 1)] for line in made.facts.lines]
        assert len(ends) and all_known(ends, middles)


def test_seeds_give_their_own_examples_and_the_same_seed_the_same() -> None:
    first, again, other = (material("maze/easy", seed) for seed in (1, 1, 2))
    assert first.response == again.response and first.image.tobytes() == again.image.tobytes()
    assert first.response != other.response


def test_a_folder_of_cases_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / "images" / f"{name}.png")
    cases = [
        {"id": "1", "image": "images/a.png", "question": "what color?", "answer": ["red", "scarlet"]},
        {"id": "2", "image": "images/b.png", "question": "what color?", "answer": "blue", "response": "so</think>blue"},
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n\n" for case in cases))
    made = [material(f"cases:{tmp_path}", seed) for seed in (0, 1, 2)]
    assert [each.response for each in made] == ["</think>red", "so</think>blue", "</think>red"]
    example = encode(made[0], CONFIG, TOKENIZER)
    assert bool((example.patch_targets.present == -1).all()) and bool((example.cell_targets.passage == -1).all())


@pytest.mark.parametrize("content", [None, "\n"])
def test_a_folder_without_cases_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cases.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"cases\.jsonl"):
        material(f"cases:{tmp_path}", 0)


@pytest.mark.parametrize("suite", ["maze", "reading"])
def test_most_images_of_a_suite_are_painted_anew_in_training(suite: str) -> None:
    drawn = (SUITES[suite].case(seed, "easy", "train").image.convert("RGB") for seed in range(12))
    taught = (material(f"{suite}/easy", seed).image.convert("RGB") for seed in range(12))
    assert 3 <= sum(a.tobytes() != b.tobytes() for a, b in zip(drawn, taught, strict=True)) <= 12
