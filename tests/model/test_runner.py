"""The packed runner gives the logits of the dense one, and the dense one those of a whole uncached pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cache import Cache, CachedSequence
from model.config import Config
from model.dense import DenseRunner
from model.image import plan
from model.packed import PackedRunner, split
from model.runner import Feed, Picture, Runner, runner_of
from model.vision_language_model import VisionLanguageModel
from tests.tiny import TINY, tiny_model

CPU = torch.device("cpu")
BUDGET = 900_000
IMAGE = TINY.vocab_size - 1
CONFIGS = {
    "tiny": TINY,
    "four streams, three experts of six, no hash layer": replace(
        TINY, hc_mult=4, hc_sinkhorn_iters=20, n_routed_experts=6, num_experts_per_tok=3, num_hash_layers=0,
        compress_ratios=(4, 32, 0, 4),
    ),
    "all sliding": replace(TINY, compress_ratios=(0, 0, 0, 0), sliding_window=7),
    "rings of three windows": replace(TINY, sliding_window=40),
    "windows that no ring comes around to": replace(TINY, sliding_window=300),
}  # fmt: skip


class Pair:
    """One model with two runners, each over a cache of its own, fed the same."""

    def __init__(self, config: Config, threads: int) -> None:
        self.model = tiny_model(config, seed=3)
        self.caches = [Cache(config, BUDGET, torch.float32, CPU, 100) for _ in range(2)]
        self.runners: list[Runner] = [
            DenseRunner(self.model, self.caches[0]), PackedRunner(self.model, self.caches[1], threads),
        ]  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    threads = torch.get_num_threads()
    both = Pair(CONFIGS[request.param], threads=2)
    yield both
    for runner in both.runners:
        runner.close()
    torch.set_num_threads(threads)


def picture_of(model: VisionLanguageModel, width: int, height: int, seed: int) -> tuple[list[int], Picture]:
    """The ids of a prompt with one image, and random pixels for it."""
    geometry = plan(width, height, model.config)
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(geometry.patch_rows * geometry.patch_columns, 3, 14, 14, generator=generator)
    return model.expand([5, 6, IMAGE], [geometry], IMAGE), Picture(geometry, patches)


def text(length: int, seed: int) -> list[int]:
    return torch.randint(TINY.vocab_size, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def in_bf16(model: VisionLanguageModel) -> VisionLanguageModel:
    """The same with its weights in bf16; what is computed once, like frequencies, stays as it is."""
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    return model


images = st.sampled_from([(168, 168), (320, 200), (100, 300), (560, 140)])
tails = st.lists(st.lists(st.integers(1, 13), min_size=1, max_size=5), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(images, tails), min_size=1, max_size=3), st.integers(0, 1000))
def test_packed_and_dense_agree_over_images_forks_and_runs_of_any_length(
    pair: Pair, requests: list[tuple[tuple[int, int], list[list[int]]]], seed: int
) -> None:
    answers = []
    for runner, cache in zip(pair.runners, pair.caches, strict=True):
        prompts = [picture_of(pair.model, *size, seed + n) for n, (size, _) in enumerate(requests)]
        jobs = [
            cache.reserve(cache.layout.footprint(len(ids), [sum(runs) for runs in every]))
            for (ids, _), (_, every) in zip(prompts, requests, strict=True)
        ]
        for sequence in [one for job in jobs for one in job]:
            sequence.length = 0
        first = [Feed(job[0], ids, picture, wanted=False) for job, (ids, picture) in zip(jobs, prompts, strict=True)]
        assert len(runner.run(first)) == 0
        cache.fork([(job[0], other) for job in jobs for other in job[1:]])
        of_jobs = (zip(job, every, strict=True) for job, (_, every) in zip(jobs, requests, strict=True))
        runs = [one for job in of_jobs for one in job]
        logits = []
        for step in range(max(len(lengths) for _, lengths in runs)):
            feeds = [
                Feed(sequence, text(lengths[step], seed + step + 7 * n), None, (n + step) % 3 > 0)
                for n, (sequence, lengths) in enumerate(runs)
                if step < len(lengths)
            ]
            logits.append(runner.run(feeds))
        answers.append(torch.cat(logits))
        for job in jobs:
            for sequence in job:
                cache.release(sequence)
        cache.check_integrity()
    dense, packed = answers
    assert dense.shape == packed.shape
    assert torch.allclose(dense, packed, atol=1e-3, rtol=1e-3), float((dense - packed).abs().max())


def test_runs_of_any_length_and_a_fork_give_the_logits_of_one_uncached_pass(pair: Pair) -> None:
    model, (ids, picture) = pair.model, picture_of(pair.model, 320, 200, 1)
    whole = ids + text(70, 1)
    with torch.inference_mode():
        features = model.see(picture.patches[None], picture.geometry)
        ids_BT = torch.tensor([whole])
        hidden, _ = model(
            model.embed_prompt(ids_BT, features), ids_BT, torch.arange(len(whole))[None], model.empty_state(1)
        )
        wanted = model.head(hidden)[0, len(ids) :]
    for runner, cache in zip(pair.runners, pair.caches, strict=True):
        origin, sequence = cache.reserve(cache.layout.footprint(len(ids), [70, 70]))
        runner.run([Feed(origin, ids, Picture(picture.geometry, picture.patches))])
        cache.fork([(origin, sequence)])
        cache.release(origin)
        at = 0
        for length in (1, 2, 3, 17, 1, 30, 1, 15):
            logits = runner.run([Feed(sequence, whole[len(ids) + at : len(ids) + at + length])])
            at += length
            assert (logits[0] - wanted[at - 1]).abs().max() <= 1e-3, (runner, at)
        assert at == 70
        cache.release(sequence)


def test_the_work_is_shared_evenly_and_nothing_twice() -> None:
    picture = picture_of(tiny_model(TINY), 320, 200, 1)[1]
    nowhere = CachedSequence(0, [], [], 0)
    feeds = [Feed(nowhere, [1] * n, picture if n % 5 == 0 else None) for n in range(1, 40)]
    parts = split(feeds, 3)
    assert sorted(number for part in parts for number in part) == list(range(39))
    assert sum(any(feeds[number].picture for number in part) for part in parts) == 1  # seen once
    assert split(feeds[:1], 3) == [[0]]


def test_what_numba_can_not_run_goes_to_the_dense_runner() -> None:
    model = tiny_model(TINY)
    for layer in model.each_layer():
        layer.ffn.pack()
    cache = Cache(TINY, BUDGET, torch.float32, CPU, 100)
    assert isinstance(runner_of(model, cache, 1), DenseRunner)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bf16_is_packed_where_the_cpu_multiplies_it(has_instructions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.runner.multiplies_bf16", lambda: has_instructions)
    cache = Cache(TINY, BUDGET, torch.bfloat16, CPU, 100)
    runner = runner_of(in_bf16(tiny_model(TINY)), cache, 1)
    assert isinstance(runner, PackedRunner if has_instructions else DenseRunner)
    runner.close()


def logits_of(kind: type[DenseRunner] | type[PackedRunner], model: VisionLanguageModel, cache: Cache) -> torch.Tensor:
    """Of six images, then a run of words each, then one word at a time."""
    runner: Runner = DenseRunner(model, cache) if kind is DenseRunner else PackedRunner(model, cache, 2)
    sequences, given = [], []
    for number in range(6):
        ids, picture = picture_of(model, 168, 168 + 60 * number, number)
        sequences += cache.reserve(cache.layout.footprint(len(ids), [60]))
        runner.run([Feed(sequences[-1], ids, picture, wanted=False)])
    for step, length in enumerate((20, 1, 1, 5, 1)):
        given.append(runner.run([Feed(one, text(length, step + n)) for n, one in enumerate(sequences)]))
    runner.close()
    return torch.cat(given)


def test_packed_bf16_is_no_further_from_fp32_than_dense_bf16() -> None:
    threads = torch.get_num_threads()
    exact, narrow = tiny_model(TINY, seed=3), in_bf16(tiny_model(TINY, seed=3))
    logits = []
    for model, kind in ((exact, DenseRunner), (narrow, DenseRunner), (narrow, PackedRunner)):
        cache = Cache(TINY, BUDGET, model.embed.weight.dtype, CPU, 100)
        logits.append(logits_of(kind, model, cache))
    torch.set_num_threads(threads)
    # The median: an expert or an entry chosen otherwise moves a few rows far, whichever runner it happens to.
    dense_error, packed_error = ((some - logits[0]).abs().median() for some in logits[1:])
    assert 0 < packed_error <= 1.2 * dense_error, (packed_error, dense_error)
    assert packed_error < 0.05 * logits[0].std()


@pytest.mark.parametrize("name", ["tiny", "all sliding"])
def test_entries_in_fp8_are_the_same_for_both_runners_but_for_a_last_digit(name: str) -> None:
    threads = torch.get_num_threads()
    model = tiny_model(CONFIGS[name], seed=3)
    model.keep_in_fp8()
    logits = []
    for kind in (DenseRunner, PackedRunner):
        cache = Cache(model.config, BUDGET, torch.float32, CPU, 100, fp8=True)
        logits.append(logits_of(kind, model, cache))
    torch.set_num_threads(threads)
    off = (logits[0] - logits[1]).abs().amax(dim=1)  # of a row
    # What one of them rounds up and the other down, by a last digit, moves a row by an E4M3 step of one channel.
    assert off.median() < 2e-3 and off.max() < 0.2 * logits[0].std(), off


def test_a_cut_span_and_a_sequence_without_room_are_refused_by_both(pair: Pair) -> None:
    ids, picture = picture_of(pair.model, 168, 168, 1)
    for runner, cache in zip(pair.runners, pair.caches, strict=True):
        for feed, words in ((ids[:-1], "span was cut"), (ids + text(90, 1), "reserved")):
            (sequence,) = cache.reserve(cache.layout.footprint(len(ids), [1]))
            with pytest.raises(AssertionError, match=words):
                runner.run([Feed(sequence, feed, Picture(picture.geometry, picture.patches))])
            cache.release(sequence)
