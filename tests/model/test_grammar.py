from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import prompt
from model.grammar import Grammar, State
from model.primitives import parse, well_formed
from model.prompt import Mode, Tokenizer

TOKENIZER = Tokenizer(Path(prompt.__file__).parent / "checkpoints" / "default")
VOCAB_SIZE = TOKENIZER.vocab_size + 15  # a padded model vocabulary
GRAMMAR = Grammar(TOKENIZER, VOCAB_SIZE, max_ref_tokens=5)
PLENTY = 1000
# What a walk likes to take: marks that open, close or go on, and the letters that could spell a tag.
STRUCTURE = [
    *(TOKENIZER.ref_id, TOKENIZER.end_ref_id, TOKENIZER.box_id, TOKENIZER.point_id, TOKENIZER.end_think_id),
    *(TOKENIZER.piece_id("],["), TOKENIZER.piece_id("]]")),
]
LETTERS = [i for text in (prompt.END_THINK, prompt.END_BOX, prompt.REF) for i in TOKENIZER.encode_plain(text)]

modes = st.sampled_from(["chat", "thinking"])


def after(text: str, mode: Mode = "thinking", grammar: Grammar = GRAMMAR) -> State:
    """The state after a text that the grammar allows; specials in it are special."""
    state = grammar.start(mode)
    for token_id in TOKENIZER.encode(text):
        state = grammar.advance(state, token_id)
    return state


def allowed_ids(state: State, remaining: int = PLENTY) -> set[int]:
    return set(GRAMMAR.allowed(state, remaining).nonzero().flatten().tolist())


def pieces(*texts: str) -> set[int]:
    return {TOKENIZER.encode(text)[0] for text in texts}


def walk(rng: random.Random, mode: Mode, budget: int) -> tuple[str, State]:
    """Random allowed choices until EOS or the budget's end; the text without EOS."""
    state, ids = GRAMMAR.start(mode), []
    for remaining in range(budget, 0, -1):
        options = GRAMMAR.allowed(state, remaining).nonzero().flatten().tolist()
        assert options, (state, remaining)
        forced = GRAMMAR.choice(state, remaining).only
        assert forced == (options[0] if len(options) == 1 else None)
        liked = set(options).intersection(rng.choice((STRUCTURE, LETTERS, options, options)))
        ids.append(rng.choice(sorted(liked) or options))
        state = GRAMMAR.advance(state, ids[-1])
        if state.finished:
            return TOKENIZER.decode(ids[:-1]), state
    return TOKENIZER.decode(ids), state


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32), mode=modes, budget=st.integers(1, 70))
def test_every_walk_ends_well_formed_however_short_its_budget(seed: int, mode: Mode, budget: int) -> None:
    text, state = walk(random.Random(seed), mode, budget)
    assert well_formed(text), text
    assert all(primitive.valid for primitive in parse(text))
    assert state.answering
    assert text.count("</think>") == (mode == "thinking")


def test_a_response_of_one_token_only_ends_its_thinking() -> None:
    assert GRAMMAR.choice(GRAMMAR.start("thinking"), 1).only == TOKENIZER.end_think_id


def test_the_end_comes_only_after_thinking_and_outside_tags() -> None:
    assert TOKENIZER.eos_id not in allowed_ids(after("red"))
    assert TOKENIZER.eos_id in allowed_ids(after("red</think>2"))
    assert TOKENIZER.eos_id in allowed_ids(after("2", "chat"))
    assert TOKENIZER.eos_id not in allowed_ids(after("</think><｜ref｜>red"))
    assert TOKENIZER.end_think_id not in allowed_ids(after("red</think>"))
    assert TOKENIZER.end_think_id not in allowed_ids(after("<｜ref｜>red"))
    assert GRAMMAR.advance(after("</think>"), TOKENIZER.eos_id).finished


def test_free_text_is_every_ordinary_token_and_the_opening_tags() -> None:
    expected = set(TOKENIZER.ordinary_tokens()) | {TOKENIZER.ref_id, TOKENIZER.box_id, TOKENIZER.point_id}
    assert allowed_ids(GRAMMAR.start("thinking")) == expected | {TOKENIZER.end_think_id}
    assert allowed_ids(GRAMMAR.start("chat")) == expected | {TOKENIZER.eos_id}


def test_padding_of_the_vocabulary_is_never_allowed() -> None:
    assert GRAMMAR.allowed(GRAMMAR.start("chat"), PLENTY).shape == (VOCAB_SIZE,)
    assert not GRAMMAR.allowed(GRAMMAR.start("chat"), PLENTY)[TOKENIZER.vocab_size :].any()


def test_a_label_holds_one_token_at_least_and_no_more_than_its_limit() -> None:
    assert TOKENIZER.end_ref_id not in allowed_ids(after("<｜ref｜>"))
    assert TOKENIZER.end_ref_id in allowed_ids(after("<｜ref｜>red"))
    assert GRAMMAR.choice(after("<｜ref｜>red red red red red"), PLENTY).only == TOKENIZER.end_ref_id
    assert not allowed_ids(after("<｜ref｜>red")) & pieces("\n\n", "[[", "]]", "<", ">")


def test_a_box_is_forced_token_by_token_but_for_its_numbers() -> None:
    everything = set(TOKENIZER.number_ids)
    assert GRAMMAR.choice(after("<｜box｜>"), PLENTY).only == TOKENIZER.piece_id("[[")
    assert allowed_ids(after("<｜box｜>[[")) == everything
    assert GRAMMAR.choice(after("<｜box｜>[[300"), PLENTY).only == TOKENIZER.piece_id(",")
    assert allowed_ids(after("<｜box｜>[[300,")) == everything
    assert allowed_ids(after("<｜box｜>[[300,20,")) == set(TOKENIZER.number_ids[300:])
    assert allowed_ids(after("<｜box｜>[[300,20,310,")) == set(TOKENIZER.number_ids[20:])
    assert allowed_ids(after("<｜box｜>[[300,20,310,40")) == pieces("],[", "]]")
    assert GRAMMAR.choice(after("<｜box｜>[[300,20,310,40]]"), PLENTY).only == TOKENIZER.end_box_id
    assert allowed_ids(after("<｜box｜>[[300,20,310,40],[1,2,")) == set(TOKENIZER.number_ids[1:])
    assert GRAMMAR.choice(after("<｜box｜>[[999,20,"), PLENTY).only == TOKENIZER.number_ids[999]


def test_a_point_has_two_free_numbers() -> None:
    assert allowed_ids(after("<｜point｜>[[300,")) == set(TOKENIZER.number_ids)
    assert allowed_ids(after("<｜point｜>[[300,20")) == pieces("],[", "]]")
    assert GRAMMAR.choice(after("<｜point｜>[[300,20]]"), PLENTY).only == TOKENIZER.end_point_id


def test_a_bracket_in_free_text_is_only_text() -> None:
    assert allowed_ids(after("[[1,2]]")) == allowed_ids(after("red"))


@pytest.mark.parametrize(("tag", "least"), [("<｜ref｜>", 3), ("<｜point｜>", 7), ("<｜box｜>", 11)])
@pytest.mark.parametrize("mode", ["chat", "thinking"])
def test_a_tag_opens_only_when_its_shortest_form_fits(tag: str, least: int, mode: Mode) -> None:
    need = least + (mode == "thinking")
    assert pieces(tag) <= allowed_ids(GRAMMAR.start(mode), need)
    assert not pieces(tag) & allowed_ids(GRAMMAR.start(mode), need - 1)


@pytest.mark.parametrize(("text", "entry"), [("<｜box｜>[[1,2,3,4", 8), ("<｜point｜>[[1,2", 4)])
def test_another_entry_starts_only_when_it_fits(text: str, entry: int) -> None:
    closing = 2  # "]]" and the tag
    assert allowed_ids(after(text, "chat"), entry + closing) == pieces("],[", "]]")
    assert GRAMMAR.choice(after(text, "chat"), entry + closing - 1).only == TOKENIZER.piece_id("]]")


@pytest.mark.parametrize("tag", [prompt.REF, prompt.END_BOX, prompt.THINK, prompt.END_THINK])
def test_a_tag_cannot_be_spelled_out_in_ordinary_letters(tag: str) -> None:
    *beginning, last = TOKENIZER.encode_plain(tag)
    state = GRAMMAR.start("chat")
    for token_id in beginning:
        state = GRAMMAR.advance(state, token_id)
    assert last not in allowed_ids(state)
    assert last in allowed_ids(GRAMMAR.advance(state, TOKENIZER.piece_id("x")))


def test_a_token_that_is_not_allowed_is_our_mistake() -> None:
    for text, token in (("", prompt.EOS), ("", prompt.USER), ("<｜box｜>[[", "red"), ("<｜box｜>[[9,9,", "8")):
        with pytest.raises(AssertionError):
            GRAMMAR.advance(after(text), TOKENIZER.encode(token)[0])
    with pytest.raises(AssertionError):
        GRAMMAR.advance(after(""), TOKENIZER.vocab_size)


def test_masks_are_shared_between_sequences_in_the_same_place() -> None:
    assert GRAMMAR.choice(after("red"), 500) == GRAMMAR.choice(after("two blue"), 900)
    assert GRAMMAR.choice(after("red"), 500) != GRAMMAR.choice(after("<｜box｜>[["), 500)
    assert GRAMMAR.allowed(after("red"), 500).dtype == torch.bool


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size"):
        Grammar(TOKENIZER, TOKENIZER.vocab_size - 1)


@given(st.randoms(use_true_random=False), modes, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_response_that_is_not_to_point_never_opens_a_primitive(rng: random.Random, mode: Mode, budget: int) -> None:
    state = GRAMMAR.start(mode, pointing=False)
    tags = {TOKENIZER.ref_id, TOKENIZER.box_id, TOKENIZER.point_id}
    ids: list[int] = []
    for remaining in range(budget, 0, -1):
        options = set(GRAMMAR.allowed(state, remaining).nonzero().flatten().tolist())
        assert options and not options & tags
        liked = options.intersection(rng.choice((STRUCTURE, LETTERS, sorted(options))))
        ids.append(rng.choice(sorted(liked or options)))
        state = GRAMMAR.advance(state, ids[-1])
        if state.finished:
            break
    assert not parse(TOKENIZER.decode(ids)) and well_formed(TOKENIZER.decode(ids))
