"""Constrained decoding: which tokens may come next, so that every response is well formed, even one cut by length.

    response  = [free </think>] free EOS       free: text, references, boxes and points in any order
    reference = <｜ref｜> 1..max_ref_tokens of text <｜/ref｜>
    box       = <｜box｜> [[ n , n , n , n ( ],[ n , n , n , n )* ]] <｜/box｜>    third n >= first, fourth >= second
    point     = <｜point｜> [[ n , n ( ],[ n , n )* ]] <｜/point｜>               n: an integer 0..999, one token

Two guards make "well formed" hold for all token sequences, not only likely ones. Budget: a token is allowed only if
what it leaves open (tags, list, </think>) can still be closed within the remaining tokens. Spelling: text that would
spell a tag letter by letter is stopped at its last token. Masks are shared rows of one
table; a step costs a few dictionary look-ups.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch

from model import prompt
from model.primitives import Kind
from model.prompt import NUMBERS, Mode, Tokenizer

_TAGS = tuple(
    tag.encode()
    for tag in (
        *(prompt.REF, prompt.END_REF, prompt.BOX, prompt.END_BOX, prompt.POINT, prompt.END_POINT),
        *(prompt.THINK, prompt.END_THINK),
    )
)
_TAG_PREFIXES = frozenset(tag[:end] for tag in _TAGS for end in range(1, len(tag)))
_NOT_IN_LABELS = b"[]<>\n\r"
_UNBOUNDED = 1 << 30  # more tokens than any response has
_FIRST_ROWS = 64  # of the table of masks, which doubles when it is full


class Phase(IntEnum):
    """Where in the grammar a sequence stands."""

    FREE = 0
    REF = 1
    BOX = 2
    POINT = 3
    FINISHED = 4


class State(NamedTuple):
    """A sequence's place in the grammar: immutable, shared freely between forks.

    `step` counts the tokens since the opening tag; within a coordinate list it runs from 0 ("[[") over numbers (odd)
    and separators (even) to the closing tag, and returns to 1 after "],[". `first` and `second` are the last entry's
    numbers. `tail` is the end of the text so far that could be the start of a spelled-out tag. Without `pointing` no
    primitive is ever opened.
    """

    phase: Phase
    answering: bool
    step: int = 0
    first: int = 0
    second: int = 0
    tail: bytes = b""
    pointing: bool = True

    @property
    def finished(self) -> bool:
        return self.phase is Phase.FINISHED


class Choice(NamedTuple):
    """What may come next: a row of the grammar's `table`, and the one allowed token when there is just one."""

    row: int
    only: int | None


class _List(NamedTuple):
    """The steps of a coordinate list: 0 "[[", odd a number, even ",", `separator` "],[" or "]]", then `closing`."""

    kind: Kind
    end_id: int
    separator: int

    @property
    def closing(self) -> int:
        return self.separator + 1

    @property
    def tokens(self) -> int:
        """Tokens of a list with one entry, its closing tag included."""
        return self.separator + 2


class Grammar:
    """The masks for one tokenizer and one model vocabulary.

    `vocab_size` is the model's: ids from the tokenizer's size up are padding and never allowed. ValueError when it is
    smaller than the tokenizer's, or when the tokenizer splits a piece of a coordinate list.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, max_ref_tokens: int = 24) -> None:
        if vocab_size < tokenizer.vocab_size:
            raise ValueError(f"vocab_size {vocab_size} is less than the tokenizer's {tokenizer.vocab_size}")
        if max_ref_tokens < 1:
            raise ValueError(f"max_ref_tokens must be 1 or more, got {max_ref_tokens}")
        self.vocab_size = vocab_size
        self.max_ref_tokens = max_ref_tokens
        self._tokenizer = tokenizer
        self._open_id, self._comma_id = tokenizer.piece_id("[["), tokenizer.piece_id(",")
        self._next_id, self._end_id = tokenizer.piece_id("],["), tokenizer.piece_id("]]")
        self._number_of = {token_id: number for number, token_id in enumerate(tokenizer.number_ids)}
        self._lists = {
            Phase.BOX: _List("box", tokenizer.end_box_id, 8),
            Phase.POINT: _List("point", tokenizer.end_point_id, 4),
        }
        self._bytes = {
            token_id: spelled
            for token_id, spelled in tokenizer.ordinary_tokens().items()
            if not any(tag in spelled for tag in _TAGS)
        }
        self._table = torch.zeros(_FIRST_ROWS, vocab_size, dtype=torch.bool)
        self._rows = self._table.numpy()  # the same memory, whose single places are quicker to read
        self._masks = 0
        labels = [i for i, spelled in self._bytes.items() if not any(byte in _NOT_IN_LABELS for byte in spelled)]
        self._text = self._mask(list(self._bytes))
        self._free: dict[tuple[bool, bool, int, bytes], Choice] = {}
        self._at_least: dict[int, Choice] = {}
        self._single = {i: self._choice([i]) for i in (self._open_id, self._comma_id, self._end_id)}
        self._single |= {entries.end_id: self._choice([entries.end_id]) for entries in self._lists.values()}
        self._separator = self._choice([self._next_id, self._end_id])
        self._label_first = self._choice(labels)
        self._label = self._choice([*labels, tokenizer.end_ref_id])
        self._label_end = self._choice([tokenizer.end_ref_id])

    def start(self, mode: Mode, pointing: bool = True) -> State:
        """The state before a response's first token. In chat mode `</think>` is in the prompt: all is answer.

        Without `pointing` the response is text alone: no reference, box or point.
        """
        return State(Phase.FREE, answering=mode == "chat", pointing=pointing)

    def allowed(self, state: State, remaining: int) -> torch.Tensor:
        """The tokens that may come next: bool [vocab_size], shared, not to be changed.

        `remaining` is how many tokens the response may still have, this one included, at least 1; always given
        honestly (one less each step) there is always a token allowed, and at 0 everything opened has been closed.
        """
        row = self.choice(state, remaining).row  # which may make the table longer
        return self.table[row]

    @property
    def table(self) -> torch.Tensor:
        """Every mask asked for so far [rows, vocab_size] bool, the unused rows at the end false."""
        return self._table

    def advance(self, state: State, token_id: int) -> State:
        """The state after `token_id`, which must be allowed."""
        row = self.choice(state, _UNBOUNDED).row
        assert 0 <= token_id < self.vocab_size and self._rows[row, token_id], (state, token_id)
        if state.phase is Phase.FREE:
            return self._advance_free(state, token_id)
        if state.phase is Phase.REF:
            if token_id == self._tokenizer.end_ref_id:
                return State(Phase.FREE, state.answering)
            return state._replace(step=state.step + 1)
        entries = self._lists[state.phase]
        if state.step == entries.closing:
            return State(Phase.FREE, state.answering)
        if state.step == entries.separator and token_id == self._next_id:
            return State(state.phase, state.answering, step=1)
        if state.step == 1:
            return state._replace(step=2, first=self._number_of[token_id])
        if state.step == 3:
            return state._replace(step=4, second=self._number_of[token_id])
        return state._replace(step=state.step + 1)

    def closing_tokens(self, state: State) -> int:
        """The fewest tokens that close what is open: tags and `</think>`. A cut response needs no EOS."""
        outstanding = 0 if state.answering else 1
        if state.phase is Phase.REF:
            return outstanding + (2 if state.step == 0 else 1)
        if state.phase in self._lists:
            return outstanding + self._lists[state.phase].tokens - state.step
        return outstanding

    def choice(self, state: State, remaining: int) -> Choice:
        """What `allowed` gives, as a row of `table`; its one token, if it is one, need not be sampled."""
        assert state.phase is not Phase.FINISHED, state
        room = remaining - self.closing_tokens(state)  # tokens to spare beyond those that close
        assert remaining >= 1 and room >= 0, (state, remaining)
        if state.phase is Phase.FREE:
            key = (state.answering, state.pointing, min(room, self._lists[Phase.BOX].tokens + 1), state.tail)
            choice = self._free.get(key)
            return choice if choice is not None else self._free.setdefault(key, self._free_choice(*key))
        if state.phase is Phase.REF:
            if state.step == 0:
                return self._label_first
            return self._label if state.step < self.max_ref_tokens and room >= 1 else self._label_end
        entries = self._lists[state.phase]
        if state.step == entries.separator:
            # "],[" takes the list back to step 1: `separator` tokens more than "]]".
            return self._separator if room >= entries.separator else self._single[self._end_id]
        if state.step == entries.closing:
            return self._single[entries.end_id]
        if state.step % 2 == 0:
            return self._single[self._open_id if state.step == 0 else self._comma_id]
        return self._numbers_from(state.first if state.step == 5 else state.second if state.step == 7 else 0)

    def _advance_free(self, state: State, token_id: int) -> State:
        tokens = self._tokenizer
        opened = {tokens.ref_id: Phase.REF, tokens.box_id: Phase.BOX, tokens.point_id: Phase.POINT}.get(token_id)
        if opened is not None:
            return State(opened, state.answering)
        if token_id == tokens.end_think_id:
            return State(Phase.FREE, answering=True, pointing=state.pointing)
        if token_id == tokens.eos_id:
            return State(Phase.FINISHED, state.answering)
        text = state.tail + self._bytes[token_id]
        angle = text.rfind(b"<")  # every tag starts with it and has no other
        tail = text[angle:] if angle >= 0 and text[angle:] in _TAG_PREFIXES else b""
        return state if tail == state.tail else state._replace(tail=tail)

    def _free_choice(self, answering: bool, pointing: bool, room: int, tail: bytes) -> Choice:
        """Free text and the tags for which there is room, without tokens that complete a tag begun by `tail`."""
        tokens = self._tokenizer
        mask = self._text.clone() if room >= 1 else self._mask([])
        rests = tuple(tag[len(tail) :] for tag in _TAGS if tail and tag.startswith(tail))
        for token_id, spelled in self._bytes.items() if rests else ():
            if spelled.startswith(rests):
                mask[token_id] = False
        mask[tokens.eos_id if answering else tokens.end_think_id] = True
        # An opening tag and the least that closes it: a label of one token, a list of one entry.
        mask[tokens.ref_id] = pointing and room >= 3
        mask[tokens.box_id] = pointing and room >= 1 + self._lists[Phase.BOX].tokens
        mask[tokens.point_id] = pointing and room >= 1 + self._lists[Phase.POINT].tokens
        return self._choice(mask.nonzero().flatten().tolist())

    def _numbers_from(self, least: int) -> Choice:
        choice = self._at_least.get(least)
        if choice is None:
            choice = self._at_least[least] = self._choice(self._tokenizer.number_ids[least:NUMBERS])
        return choice

    def _choice(self, ids: list[int]) -> Choice:
        if self._masks == len(self._table):
            self._table = torch.cat([self._table, torch.zeros_like(self._table)])
            self._rows = self._table.numpy()
        self._table[self._masks] = self._mask(ids)
        self._masks += 1
        return Choice(self._masks - 1, ids[0] if len(ids) == 1 else None)

    def _mask(self, ids: list[int]) -> torch.Tensor:
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        mask[torch.tensor(ids, dtype=torch.long)] = True
        return mask
