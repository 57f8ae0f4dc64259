"""Choosing tokens: the likeliest, or drawn as the probabilities say, from what is allowed, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.sampling import GREEDY, Draw, Sampling, choose

VOCAB = 12


def random_case(seed: int, rows: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(rows, VOCAB, generator=generator) < 0.6
    allowed[torch.arange(rows), torch.randint(VOCAB, (rows,), generator=generator)] = True
    return torch.randn(rows, VOCAB, generator=generator) * 2, allowed


def shares(logits: Tensor, allowed: Tensor, temperature: float, top_p: float, times: int = 4000) -> Tensor:
    """How often each token comes out."""
    draws = [Draw(temperature, top_p, key) for key in range(times)]
    tokens, _ = choose(logits.expand(times, -1), allowed, [0] * times, draws)
    return torch.tensor(tokens).bincount(minlength=VOCAB) / times


@given(st.integers(0, 10_000), st.floats(0.2, 3))
@settings(max_examples=40, deadline=None)
def test_tokens_come_as_often_as_their_probability_among_the_allowed(seed: int, temperature: float) -> None:
    logits, allowed = random_case(seed)
    wanted = (logits / temperature).masked_fill(~allowed, float("-inf")).softmax(-1)[0]
    assert torch.allclose(shares(logits, allowed, temperature, 1.0), wanted, atol=0.045)


@given(st.integers(0, 10_000), st.floats(0.05, 0.99))
@settings(max_examples=40, deadline=None)
def test_top_p_keeps_the_smallest_set_of_likeliest_tokens_that_reaches_it(seed: int, top_p: float) -> None:
    logits, allowed = random_case(seed)
    p, ids = logits.double().masked_fill(~allowed, float("-inf")).softmax(-1)[0].sort(descending=True)
    count = int((p.cumsum(0) < top_p).sum()) + 1
    kept = torch.zeros(VOCAB, dtype=torch.float64).index_put((ids[:count],), p[:count] / p[:count].sum())
    assert torch.allclose(shares(logits, allowed, 1.0, top_p).double(), kept, atol=0.045)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_row_is_chosen_alone_as_in_a_batch_of_any_kind(seed: int, rows: int) -> None:
    logits, allowed = random_case(seed, rows)
    ways = [GREEDY, Sampling(0.7, 0.9, 1), Sampling(1.3, 1.0, 2)]
    draws = [ways[(seed + row) % 3].draw(row, seed) for row in range(rows)]
    tokens, log_p = choose(logits, allowed, range(rows), draws)
    wanted = logits.masked_fill(~allowed, float("-inf")).log_softmax(-1)
    for row in range(rows):
        (alone,), _ = choose(logits[row : row + 1], allowed, [row], draws[row : row + 1])
        assert alone == tokens[row] and bool(allowed[row, tokens[row]])
        assert float(log_p[row]) == pytest.approx(float(wanted[row, tokens[row]]), abs=1e-5)
        if draws[row].temperature == 0:
            assert int(tokens[row]) == int(wanted[row].argmax())


def test_what_top_p_cuts_off_never_comes() -> None:
    logits, allowed = torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[True, True, True, False]])
    tokens, _ = choose(logits.expand(400, -1), allowed, [0] * 400, [Draw(1.0, 0.8, key) for key in range(400)])
    assert set(tokens) == {0, 1}  # 0.67 and 0.24


def test_the_last_digits_of_flat_logits_move_no_draw() -> None:
    """They depend on what else is in the batch."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 3000, generator=generator) * 0.01
    noise = (torch.rand(300, 3000, generator=generator) - 0.5) * 4e-6
    every, draws = torch.ones(1, 3000, dtype=torch.bool), [Draw(1.0, 1.0, key) for key in range(300)]
    assert choose(logits, every, [0] * 300, draws)[0] == choose(logits + noise, every, [0] * 300, draws)[0]


def test_draws_repeat_for_a_seed_and_differ_by_seed_question_and_place() -> None:
    draws = {
        (seed, question, place): Sampling(1.0, 1.0, seed).draw(question, place).key
        for seed in range(3)
        for question in range(3)
        for place in range(30)
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[2, 1, 5] == Sampling(1.0, 1.0, 2).draw(1, 5).key


def test_images_have_seeds_of_their_own() -> None:
    one, two = (Sampling(1.0, 1.0, 5).for_image(digest * 8) for digest in ("0123abcd", "0123abce"))
    assert one.seed != two.seed and one == Sampling(1.0, 1.0, 5).for_image("0123abcd" * 8)


@pytest.mark.parametrize(
    "broken", [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_what_can_not_be_sampled_is_refused_by_name(broken: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken))):
        Sampling(**broken)  # type: ignore[arg-type]
