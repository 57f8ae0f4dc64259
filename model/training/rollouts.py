"""Rollouts: several responses of one model to each of many training cases, drawn at random, with what they earn."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import weights
from ..engine import Completion, NativeEngine, Request
from ..pointing import SIDE_FILE
from ..prompt import Tokenizer
from ..sampling import Sampling
from ..tasks.suite import Case, Split
from ..tasks.suites import suite_of
from ..vision_language_model import VisionLanguageModel
from .rewards import WEIGHTS, Reward, reward_of

EASY_SHARE = 0.05  # of the prompts that all rollouts solve: the paper's, for rejection
KV_BUDGET_BYTES = 256 << 20


@dataclass(frozen=True)
class Prompt:
    """A case by its name: `source` is suite/level ("counting/easy")."""

    source: str
    seed: int
    split: Split = "train"

    @property
    def suite(self) -> str:
        return self.source.partition("/")[0]

    def case(self) -> Case:
        """The case, drawn anew."""
        return suite_of(self.suite).case(self.seed, self.source.partition("/")[2], self.split)


@dataclass(frozen=True)
class Rollout:
    """One response: its tokens as they were drawn, EOS included unless it was cut at the limit."""

    ids: tuple[int, ...]
    text: str
    reward: Reward


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt."""

    prompt: Prompt
    case: Case
    rollouts: tuple[Rollout, ...]

    @property
    def solved(self) -> int:
        """How many are correct."""
        return sum(rollout.reward.correct for rollout in self.rollouts)

    @property
    def is_normal(self) -> bool:
        """Whether some but not all are correct: what reinforcement learns from."""
        return 0 < self.solved < len(self.rollouts)

    @property
    def is_easy(self) -> bool:
        return self.solved == len(self.rollouts)


def draw_prompts(sources: Sequence[str], count: int, rng: np.random.Generator) -> list[Prompt]:
    """Training prompts, the sources in turn."""
    return [Prompt(sources[i % len(sources)], int(rng.integers(1 << 40))) for i in range(count)]


def write_checkpoint(model: VisionLanguageModel, base: Path, folder: Path) -> None:
    """A checkpoint folder of a model in training, in fp32, with the tokenizer and the side file of `base`."""
    weights.save(model, folder, torch.float32)
    for name in ("tokenizer.json", SIDE_FILE):
        if (base / name).is_file():
            shutil.copy(base / name, folder)


class Sampler:
    """Draws responses from checkpoints in the engine. `base`: the folder with the tokenizer."""

    def __init__(self, base: Path, device: torch.device, max_output_tokens: int) -> None:
        self.base, self.device, self.max_output_tokens = base, device, max_output_tokens
        self.eos_id = Tokenizer(base).eos_id

    def groups(self, model: VisionLanguageModel, prompts: Sequence[Prompt], count: int, seed: int) -> list[Group]:
        """`count` rollouts of each prompt at temperature 1, from the model as it is now."""
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(model, self.base, Path(folder))
            return self.groups_of(Path(folder), prompts, count, seed)

    def groups_of(self, checkpoint: Path, prompts: Sequence[Prompt], count: int, seed: int) -> list[Group]:
        """The same from a checkpoint folder."""
        cases = [prompt.case() for prompt in prompts]
        samplings = [Sampling(1.0, seed=seed * 1_000_003 + at) for at in range(len(cases))]
        answers = self.answer(checkpoint, cases, count, samplings)
        return [
            Group(prompt, case, tuple(self._rollout(case, each) for each in completions))
            for prompt, case, completions in zip(prompts, cases, answers, strict=True)
        ]

    def answer(
        self, checkpoint: Path, cases: Sequence[Case], count: int, samplings: Sequence[Sampling]
    ) -> list[list[Completion]]:
        """`count` completions of each case."""
        engine = NativeEngine(
            checkpoint, kv_budget_bytes=KV_BUDGET_BYTES, device=self.device.type, dtype="float32",
            max_output_tokens=self.max_output_tokens,
        )  # fmt: skip

        async def together() -> list[list[Completion]]:
            requests = [
                Request(case.image, (case.question,) * count, self.max_output_tokens, sampling=sampling)
                for case, sampling in zip(cases, samplings, strict=True)
            ]
            return await asyncio.gather(*(engine.answer(request) for request in requests))

        try:
            return asyncio.run(together())
        finally:
            engine.close()

    def _rollout(self, case: Case, completion: Completion) -> Rollout:
        # Completions leave the end out, which was drawn all the same.
        ids = (*completion.token_ids, self.eos_id) if completion.finish_reason == "stop" else completion.token_ids
        return Rollout(ids, completion.text, reward_of(case, completion.text))


def summary(groups: Sequence[Group]) -> dict[str, float]:
    """The mean reward and its heads, the shares of correct responses, of Normal and Easy prompts, and the length."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = [rollout.reward for rollout in rollouts]
    totals = {
        "reward": sum(reward.total for reward in rewards),
        **{head: sum(getattr(reward, head) for reward in rewards) for head in WEIGHTS},
        "correct": sum(reward.correct for reward in rewards),
        "tokens": sum(len(rollout.ids) for rollout in rollouts),
    }
    prompts = {"normal": sum(group.is_normal for group in groups), "easy": sum(group.is_easy for group in groups)}
    return {name: float(total) / len(rollouts) for name, total in totals.items()} | {
        name: total / len(groups) for name, total in prompts.items()
    }


# ---- what is learnt from


def for_reinforcement(groups: Iterable[Group]) -> list[Group]:
    """Those of which 1 <= k < N rollouts are correct."""
    return [group for group in groups if group.is_normal]


def for_rejection(groups: Iterable[Group], seed: int) -> list[Group]:
    """Every Normal prompt and a share of the Easy ones, each with its correct and clean rollouts, no text twice."""
    rng = np.random.default_rng(seed)
    chosen = []
    for group in groups:
        lucky = rng.random() < EASY_SHARE
        good = {rollout.text: rollout for rollout in group.rollouts if rollout.reward.correct and rollout.reward.clean}
        if good and (group.is_normal or (group.is_easy and lucky)):
            chosen.append(Group(group.prompt, group.case, tuple(good.values())))
    return chosen


# ---- a file of them


def write(path: Path, groups: Iterable[Group]) -> None:
    """One JSON line for each rollout: the prompt's name, the tokens, the text, the reward."""
    lines = [
        json.dumps({
            "source": group.prompt.source, "seed": group.prompt.seed, "reward": round(rollout.reward.total, 4),
            "ids": rollout.ids, "text": rollout.text,
        })
        for group in groups for rollout in group.rollouts
    ]  # fmt: skip
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> list[tuple[Prompt, tuple[int, ...]]]:
    """The prompts and tokens of such a file."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(Prompt(row["source"], row["seed"]), tuple(row["ids"])) for row in rows]
