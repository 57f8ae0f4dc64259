"""Policies: what the whole-sequence pass says of a response is what the engine drew it by."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from model import weights
from model.sampling import Sampling
from model.training.batches import cost
from model.training.examples import IGNORE
from model.training.policy import Policy
from model.training.rollouts import Prompt, Sampler
from model.training.whole import How
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CONFIG, CPU, TOKENIZER, checkpoint, group

LIMIT = 40
PROMPTS = [Prompt("maze/easy", seed) for seed in range(3)] + [Prompt("counting/easy", seed) for seed in range(2)]


def policy_of(limit: int = LIMIT, how: How | None = None) -> Policy:
    return Policy(CONFIG, TOKENIZER, limit, how or How())


def test_log_probabilities_are_those_that_the_engine_drew_by(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    cases = [prompt.case() for prompt in PROMPTS]
    sampler, policy = Sampler(DEFAULT_CHECKPOINT, CPU, LIMIT), policy_of()
    answers = sampler.answer(folder, cases, 2, [Sampling(1.0, seed=seed) for seed in range(len(cases))])
    flat = [(case, completion) for case, both in zip(cases, answers, strict=True) for completion in both]
    samples = [policy.sample(case, completion.token_ids) for case, completion in flat]
    model = weights.load(folder)
    seen = 0
    with torch.no_grad():
        for parcel in policy.parcels(samples, 2000, CPU):
            log_L = policy.log_probabilities(model, parcel)
            forced_L = policy.grammar.table[parcel.rows_L].sum(dim=1) == 1
            assert bool((log_L[forced_L] == 0).all()) and bool(forced_L.any())
            for place, number in enumerate(parcel.members):
                mine = log_L[(parcel.member_L == place) & ~forced_L]
                confidence = flat[number][1].confidence
                assert confidence is not None
                assert float(mine.mean()) == pytest.approx(math.log(confidence), rel=0.02), number
                seen += 1
    assert seen == len(flat)


def test_every_sample_is_in_one_parcel_and_none_is_too_large() -> None:
    policy = policy_of(400)
    groups = [group(prompt, "", "") for prompt in PROMPTS]
    samples = [policy.sample(each.case, rollout.ids) for each in groups for rollout in each.rollouts]
    parcels = policy.parcels(samples, 900, CPU)
    assert sorted(number for parcel in parcels for number in parcel.members) == list(range(len(samples)))
    for parcel in parcels:
        most = max(cost(samples[number].example) for number in parcel.members)
        assert len(parcel.members) * most <= 900 or len(parcel.members) == 1
        assert int((parcel.batch.labels_BT != IGNORE).sum()) == len(parcel.rows_L) == len(parcel.member_L)
        drawn = parcel.batch.labels_BT[parcel.batch.labels_BT != IGNORE]
        first = [samples[number].example.labels_T for number in parcel.members]
        assert torch.equal(drawn, torch.cat([labels[labels != IGNORE] for labels in first]))


def test_a_response_cut_at_the_limit_has_no_end_to_learn() -> None:
    case = PROMPTS[0].case()
    ids = TOKENIZER.encode("fork</think>")
    labels = policy_of(len(ids)).sample(case, ids).example.labels_T
    assert labels[labels != IGNORE].tolist() == ids


def test_the_tower_learns_nothing_and_all_that_speaks_does(tmp_path: Path) -> None:
    policy = policy_of(400)
    each = group(PROMPTS[0], "")
    (parcel,) = policy.parcels([policy.sample(each.case, each.rollouts[0].ids)], 2000, CPU)
    model = weights.load(checkpoint(tmp_path / "model")).requires_grad_(True)
    policy.log_probabilities(model, parcel).mean().backward()
    assert all(parameter.grad is None for parameter in model.vision.parameters())
    grads = [model.aligner.w1.weight.grad, model.embed.weight.grad, model.head.weight.grad]
    assert all(grad is not None and bool(grad.isfinite().all()) and bool(grad.any()) for grad in grads)


def test_products_in_bf16_say_nearly_the_same(tmp_path: Path) -> None:
    model, each = weights.load(checkpoint(tmp_path / "model")), group(PROMPTS[0], "", "fork</think>False")
    said = []
    for policy in (policy_of(400), policy_of(400, How(torch.bfloat16))):
        samples = [policy.sample(each.case, rollout.ids) for rollout in each.rollouts]
        (parcel,) = policy.parcels(samples, 4000, CPU)
        said.append(policy.log_probabilities(model, parcel))
    assert 0 < float((said[0] - said[1]).abs().mean()) < 0.05, (said[0] - said[1]).abs().mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_says_what_the_cpu_says(tmp_path: Path) -> None:
    folder, each = checkpoint(tmp_path / "model"), group(PROMPTS[0], "", "fork</think>False")
    said = []
    for device in (CPU, torch.device("cuda")):
        policy = policy_of(400)
        samples = [policy.sample(each.case, rollout.ids) for rollout in each.rollouts]
        (parcel,) = policy.parcels(samples, 4000, device)
        said.append(policy.log_probabilities(weights.load(folder, device=device), parcel).cpu())
    assert torch.allclose(said[0], said[1], atol=1e-2)
