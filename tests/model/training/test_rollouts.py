"""Rollouts: drawn anew for each, kept as they were drawn, and chosen by how many were correct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.training import rollouts
from model.training.rollouts import (
    Prompt,
    Sampler,
    draw_prompts,
    for_reinforcement,
    for_rejection,
    read,
    summary,
    write,
)
from model.training.supervised import Student
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CONFIG, CPU, TOKENIZER, checkpoint, group

WRONG = "fork</think>perhaps"
BARE = "</think>False"  # right of a closed maze, but hollow
CLOSED = [Prompt("maze/easy", seed) for seed in range(30) if Prompt("maze/easy", seed).case().answer == "False"][:6]


def test_rollouts_of_one_prompt_differ_and_the_same_seed_gives_the_same() -> None:
    sampler, model = Sampler(DEFAULT_CHECKPOINT, CPU, 16), Student(CONFIG, TOKENIZER, 0).model
    prompts = draw_prompts(("maze/easy", "counting/easy"), 3, np.random.default_rng(0))
    assert [prompt.source for prompt in prompts] == ["maze/easy", "counting/easy", "maze/easy"]
    first, again, other = (sampler.groups(model, prompts, 3, seed) for seed in (1, 1, 2))
    texts = [[rollout.text for each in groups for rollout in each.rollouts] for groups in (first, again, other)]
    assert texts[0] == texts[1] != texts[2] and len(set(texts[0])) == 9
    for each in first:
        for rollout in each.rollouts:
            stopped = rollout.ids[-1] == TOKENIZER.eos_id
            assert TOKENIZER.decode(rollout.ids[: len(rollout.ids) - stopped]) == rollout.text


def test_live_weights_and_their_checkpoint_draw_the_same(tmp_path: Path) -> None:
    sampler, prompts = Sampler(DEFAULT_CHECKPOINT, CPU, 12), [CLOSED[0]]
    live = sampler.groups(Student(CONFIG, TOKENIZER, 4).model, prompts, 2, 0)
    assert live == sampler.groups_of(checkpoint(tmp_path / "c", 4), prompts, 2, 0)


def test_reinforcement_takes_prompts_that_some_but_not_all_rollouts_solve() -> None:
    none, some, everyone = (group(CLOSED[0], *texts) for texts in ((WRONG, WRONG), ("", WRONG), ("", BARE)))
    assert [each.solved for each in (none, some, everyone)] == [0, 1, 2]
    assert for_reinforcement([none, some, everyone]) == [some]


def test_rejection_takes_the_clean_correct_ones_of_normal_prompts_each_text_once() -> None:
    (chosen,) = for_rejection([group(CLOSED[0], "", "", BARE, WRONG), group(CLOSED[1], WRONG, WRONG)], 0)
    assert [rollout.text for rollout in chosen.rollouts] == [chosen.case.response]
    assert for_rejection([group(CLOSED[0], BARE, WRONG)], 0) == []


def test_rejection_takes_a_share_of_the_easy_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    easy = [group(CLOSED[0], "")] * 2000
    assert 60 <= len(for_rejection(easy, 0)) <= 140  # 5 % of 2,000
    assert for_rejection(easy, 0) == for_rejection(easy, 0) != for_rejection(easy, 1)
    monkeypatch.setattr(rollouts, "EASY_SHARE", 0.0)
    assert for_rejection(easy, 0) == []


def test_a_file_gives_back_prompts_and_tokens(tmp_path: Path) -> None:
    groups = [group(CLOSED[0], "", "line\u2028</think>False"), group(CLOSED[1], "")]
    write(tmp_path / "r.jsonl", groups)
    assert read(tmp_path / "r.jsonl") == [(each.prompt, r.ids) for each in groups for r in each.rollouts]
    assert not (tmp_path / "r.partial").exists()


def test_a_summary_counts_normal_and_easy_prompts() -> None:
    prompts = [Prompt("maze/easy", seed) for seed in range(3)]
    wrong = "fork</think>perhaps"
    figures = summary([group(prompts[0], "", ""), group(prompts[1], "", wrong), group(prompts[2], wrong, wrong)])
    assert (figures["normal"], figures["easy"], figures["correct"]) == pytest.approx((1 / 3, 1 / 3, 1 / 2))
    assert 0.5 < figures["reward"] < 0.7
