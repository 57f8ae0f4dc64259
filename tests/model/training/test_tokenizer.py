from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers

from model.tasks import shapes
from model.tasks.scenes import COLORS, SHAPES, SIZES, draw
from model.training import tokenizer as subject

SHIPPED = Path(subject.__file__).parents[1] / "checkpoints" / "default" / "tokenizer.json"


@pytest.fixture(scope="module")
def built() -> tokenizers.Tokenizer:
    return subject.build()


def test_every_integer_of_the_frame_is_one_token(built: tokenizers.Tokenizer) -> None:
    assert [number for number in range(1000) if len(built.encode(str(number)).ids) != 1] == []


def test_a_longer_number_is_split_in_threes_from_the_left(built: tokenizers.Tokenizer) -> None:
    assert built.encode("1234567").tokens == ["123", "456", "7"]


def test_a_box_is_one_token_per_mark_and_number(built: tokenizers.Tokenizer) -> None:
    text = "<｜ref｜>red square<｜/ref｜><｜box｜>[[1,22,333,405],[0,10,100,999]]<｜/box｜>"
    expected = "<｜ref｜> red Ġsquare <｜/ref｜> <｜box｜> [[ 1 , 22 , 333 , 405 ],[ 0 , 10 , 100 , 999 ]] <｜/box｜>"
    assert built.encode(text).tokens == expected.split()


def test_digits_of_cents_and_codes_are_read_one_by_one(built: tokenizers.Tokenizer) -> None:
    assert built.encode("12.09").tokens == ["12", ".", "0", "9"]
    assert built.encode("HXY64").tokens == ["H", "X", "Y", "6", "4"]
    assert built.encode("[[107,369]] 10 in total. 12").tokens[1:4:2] == ["107", "369"]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "naïve café, 你好 😀", "a\tb\r\n\r\n  c", "<｜User｜>", "\x00\x7f", "007 3.14"]
)
def test_any_text_survives_a_round_trip(built: tokenizers.Tokenizer, text: str) -> None:
    assert built.decode(built.encode(text).ids, skip_special_tokens=False) == text


def test_all_256_bytes_have_a_token(built: tokenizers.Tokenizer) -> None:
    assert [letter for letter in subject.byte_letters() if built.token_to_id(letter) is None] == []


def test_each_word_is_one_token_with_and_without_a_space(built: tokenizers.Tokenizer) -> None:
    words = (*subject.WORDS.split(), *subject.CAPITALISED.split())
    assert [word for word in words if len(built.encode(word).ids) != 1] == []
    assert [word for word in words if len(built.encode(" " + word).ids) != 1] == []


def test_the_words_of_the_shapes_lesson_are_one_token_each(built: tokenizers.Tokenizer) -> None:
    rng = np.random.default_rng(0)
    scene = draw(rng, width=64, height=64, count=(2, 2))
    for _ in range(300):
        question = shapes.pose(scene, rng).question
        assert len(built.encode(question).ids) == len(question.split()) + 1, built.encode(question).tokens
    labels = [word for words in (COLORS, SHAPES, SIZES) for word in words]
    assert [word for word in labels if len(built.encode(word).ids) != 1] == []


def test_the_first_three_ids_are_the_released_ones(built: tokenizers.Tokenizer) -> None:
    assert [
        built.token_to_id(text) for text in ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")
    ] == [0, 1, 2]


def test_special_tokens_are_flagged_and_ids_leave_no_gap(built: tokenizers.Tokenizer) -> None:
    assert sorted(built.get_vocab().values()) == list(range(built.get_vocab_size()))
    assert built.get_vocab_size() <= 3456
    added = {token.content for token in built.get_added_tokens_decoder().values() if token.special}
    assert added == {*subject.SPECIAL_HEAD, *subject.SPECIAL_TAIL}


def test_the_shipped_file_is_what_the_builder_writes(tmp_path: Path) -> None:
    assert subject.save(tmp_path).read_bytes() == SHIPPED.read_bytes()
