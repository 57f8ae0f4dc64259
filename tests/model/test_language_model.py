"""Prefill, decode and fork: whatever way tokens come in, the logits are those of one uncached pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.attention import LayerState, describe_tokens
from model.image import TokenType, span
from model.state import fork
from tests.tiny import TINY, tiny_model

MODEL = tiny_model(TINY)
LENGTH = 60
TOLERANCE = 1e-4


def prompt_with_image(before: int = 3, rows: int = 3, columns: int = 4) -> tuple[Tensor, Tensor]:
    """Ids [1, LENGTH] of text, one image and text, with their embeddings."""
    generator = torch.Generator().manual_seed(5)
    types = torch.tensor(span(rows, columns, before).types) + TINY.vocab_size
    text = torch.randint(TINY.vocab_size, (LENGTH - len(types),), generator=generator)
    ids = torch.cat([text[:before], types, text[before:]])[None]
    features = torch.randn(1, rows * columns, TINY.hidden_size, generator=generator)
    with torch.inference_mode():
        return ids, MODEL.embed_prompt(ids, features)


IDS, EMBEDDINGS = prompt_with_image()
IMAGE_END = int((IDS[0] == TINY.vocab_size + TokenType.END).nonzero()[0]) + 1


@torch.inference_mode()
def run(start: int, end: int, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
    """Logits of positions start..end-1 after `state`, for as many copies of the prompt as the state has."""
    batch = state[0].window_BWD.shape[0]
    ids = IDS[:, start:end].expand(batch, -1)
    positions = torch.arange(start, end).expand(batch, -1)
    hidden, state = MODEL(EMBEDDINGS[:, start:end].expand(batch, -1, -1), ids, positions, state)
    return MODEL.head(hidden), state


ONE_PASS, _ = run(0, LENGTH, MODEL.empty_state(1))


def test_decoding_step_by_step_equals_one_pass() -> None:
    logits, state = run(0, IMAGE_END, MODEL.empty_state(1))
    steps = [logits]
    for position in range(IMAGE_END, LENGTH):
        logits, state = run(position, position + 1, state)
        steps.append(logits)
    assert (torch.cat(steps, dim=1) - ONE_PASS).abs().max() <= TOLERANCE


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(IMAGE_END, LENGTH - 1), max_size=6))
def test_any_split_of_the_text_prefill_equals_one_pass(cuts: set[int]) -> None:
    state, parts = MODEL.empty_state(1), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), LENGTH], strict=True):
        if start < end:
            logits, state = run(start, end, state)
            parts.append(logits)
    assert (torch.cat(parts, dim=1) - ONE_PASS).abs().max() <= TOLERANCE


def test_a_fork_equals_a_sequence_that_was_never_forked() -> None:
    _, state = run(0, IMAGE_END + 5, MODEL.empty_state(1))
    forked, state = run(IMAGE_END + 5, LENGTH - 4, fork(state, 3))
    assert (forked - ONE_PASS[:, IMAGE_END + 5 : LENGTH - 4]).abs().max() <= TOLERANCE
    for position in range(LENGTH - 4, LENGTH):
        forked, state = run(position, position + 1, state)
        assert (forked - ONE_PASS[:, position : position + 1]).abs().max() <= TOLERANCE


def test_forks_do_not_touch_each_other_nor_their_origin() -> None:
    _, origin = run(0, IMAGE_END + 1, MODEL.empty_state(1))
    forked = fork(origin, 2)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    positions = torch.arange(IMAGE_END + 1, IMAGE_END + 4).expand(2, -1)
    with torch.inference_mode():
        both, _ = MODEL(MODEL.embed_prompt(ids), ids, positions, forked)
        for row in range(2):
            alone, _ = MODEL(MODEL.embed_prompt(ids[row : row + 1]), ids[row : row + 1], positions[:1], origin)
            assert (both[row] - alone[0]).abs().max() <= TOLERANCE


def test_the_indexer_really_drops_entries_here() -> None:
    """The other tests would prove little if every entry were always seen."""
    trace: list = []
    with torch.inference_mode():
        MODEL(EMBEDDINGS, IDS, torch.arange(LENGTH)[None], MODEL.empty_state(1), trace=trace)
    csa = [seen for seen in trace if seen.index_scores_BTE is not None]
    assert csa
    for seen in csa:
        entries = seen.probabilities_BATK[0, 0, -1, -seen.index_scores_BTE.shape[2] :]
        assert int((entries > 0).sum()) == TINY.index_topk < LENGTH // 4


def test_a_token_of_an_image_sees_its_whole_image_and_text_sees_only_back() -> None:
    window, vocab = 3, TINY.vocab_size
    start, image, end = vocab + TokenType.START, vocab + TokenType.IMAGE, vocab + TokenType.END
    ids = torch.tensor([[7, 7, vocab + TokenType.PAD, start, image, image, end, 7, 7]])
    config = TINY.__class__(**{**vars(TINY), "sliding_window": window})
    tokens = describe_tokens(ids, torch.arange(9)[None], config)
    assert tokens.first_BT.tolist() == [[0, 0, 0, 1, 2, 3, 3, 5, 6]]
    assert tokens.last_BT.tolist() == [[0, 1, 2, 6, 6, 6, 6, 7, 8]]


def test_a_cut_image_span_is_refused() -> None:
    with pytest.raises(AssertionError, match="span was cut"):
        run(0, IMAGE_END - 2, MODEL.empty_state(1))


def test_images_change_the_answer() -> None:
    other = EMBEDDINGS.clone()
    slot = int((IDS[0] == TINY.vocab_size + TokenType.IMAGE).nonzero()[0])
    other[0, slot] += 1
    with torch.inference_mode():
        hidden, _ = MODEL(other, IDS, torch.arange(LENGTH)[None], MODEL.empty_state(1))
    assert (MODEL.head(hidden)[0, -1] - ONE_PASS[0, -1]).abs().max() > 1e-3
