"""Slots, windows and pages: nothing lost, nothing given twice, never over the budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cache import Cache, CachedSequence
from model.cache_layout import CacheLayout
from tests.tiny import TINY

CPU = torch.device("cpu")
requests = st.tuples(st.integers(5, 90), st.lists(st.integers(1, 80), min_size=1, max_size=4))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(requests, st.integers(0, 30)), max_size=40), st.integers(200_000, 700_000))
def test_any_stream_of_requests_stays_in_the_budget_and_gives_everything_back(stream: list, budget: int) -> None:
    cache = Cache(TINY, budget, torch.float32, CPU, typical_tokens=80)
    running: list[CachedSequence] = []
    for event in stream:
        if isinstance(event, int):
            if running:
                cache.release(running.pop(event % len(running)))
        else:
            footprint = cache.layout.footprint(event[0], event[1])
            before = cache.used_bytes
            if not cache.can_hold(footprint):
                continue
            running += cache.reserve(footprint)
            assert cache.used_bytes - before == footprint.total_bytes
        assert cache.used_bytes <= budget
        pages = {page for sequence in running for page in sequence.pages}
        windows = {window for sequence in running for window in sequence.windows}
        slots = {sequence.slot for sequence in running}
        assert len(slots) == len(running)
        layout, units = cache.layout, (len(slots), len(windows), len(pages))
        each = layout.slot_bytes, layout.window_bytes, layout.page_bytes
        assert cache.used_bytes == sum(a * b for a, b in zip(units, each, strict=True)) == cache.held_bytes(running)
    for sequence in running:
        cache.release(sequence)
    cache.check_integrity()
    assert cache.used_bytes == 0


def test_questions_share_the_full_pages_of_their_image_and_nothing_else() -> None:
    cache = Cache(TINY, 1_000_000, torch.float32, CPU, typical_tokens=80)
    first, second = cache.reserve(cache.layout.footprint(40, [20, 50]))
    shared = set(first.pages) & set(second.pages)
    assert shared == set(first.pages[: 40 // cache.layout.page_tokens])
    assert first.slot != second.slot and not set(first.windows) & set(second.windows)  # their rings come around


def test_a_sequence_has_windows_for_its_length_and_no_more_than_a_ring_takes() -> None:
    layout = CacheLayout(replace(TINY, sliding_window=70), torch.float32)
    assert [layout.windows(tokens) for tokens in (1, 16, 17, 64, 65, 80, 81, 1000)] == [1, 1, 2, 4, 5, 5, 5, 5]
    assert layout.footprint(0, [20]).sliding_bytes == 2 * layout.window_bytes
    assert layout.footprint(0, [900]).sliding_bytes == 5 * layout.window_bytes


def test_questions_share_the_full_windows_of_their_image_where_no_ring_comes_around() -> None:
    config = replace(TINY, sliding_window=70)
    cache = Cache(config, 1_000_000, torch.float32, CPU, typical_tokens=80)
    first, second = cache.reserve(cache.layout.footprint(40, [20, 40]))
    assert [len(sequence.windows) for sequence in (first, second)] == [4, 5]
    assert first.windows[:2] == second.windows[:2] and not set(first.windows[2:]) & set(second.windows[2:])
    long, longer = cache.reserve(cache.layout.footprint(40, [20, 41]))
    assert not set(long.windows) & set(longer.windows)
    for sequence in (first, second, long, longer):
        cache.release(sequence)
    cache.check_integrity()


def test_shorter_sequences_than_the_typical_one_find_room_for_more() -> None:
    cache = Cache(replace(TINY, sliding_window=64), 400_000, torch.float32, CPU, typical_tokens=64)
    held = {}
    for tokens in (64, 32):
        running = []
        while cache.can_hold(footprint := cache.layout.footprint(0, [tokens])):
            running += cache.reserve(footprint)
        held[tokens] = len(running)
        for sequence in running:
            cache.release(sequence)
    assert held[32] > 1.8 * held[64] > 10


def test_a_lost_page_is_noticed_when_nothing_runs() -> None:
    cache = Cache(TINY, 1_000_000, torch.float32, CPU, typical_tokens=80)
    (sequence,) = cache.reserve(cache.layout.footprint(40, [20]))
    sequence.pages.pop()
    cache.release(sequence)
    with pytest.raises(AssertionError, match="held by nobody"):
        cache.check_integrity()


def test_a_budget_too_small_for_one_sequence_is_refused_with_the_bytes_it_takes() -> None:
    with pytest.raises(ValueError, match="raise it to at least that"):
        Cache(TINY, 1_000, torch.float32, CPU, typical_tokens=80)


def test_the_bytes_of_a_layout_are_those_of_its_entries() -> None:
    layout = CacheLayout(TINY, torch.float32)
    assert layout.sliding == 4 * 12 * 16 * 4  # layers x tokens a window x width x fp32
    assert layout.page_tokens == 16
    assert layout.csa == 2 * 4 * 16 * 4  # CSA layers x entries a page x width x fp32
    assert layout.indexer == 2 * 4 * 8 * 4
    assert layout.hca == 1 * 1 * 16 * 4


def test_a_layout_in_fp8_takes_the_bytes_of_its_rows() -> None:
    layout, plain = CacheLayout(TINY, torch.float32, fp8=True), CacheLayout(TINY, torch.float32)
    rotary = TINY.qk_rope_head_dim
    assert layout.sliding == 4 * 12 * (16 - rotary + 2 * rotary + 1)  # codes, bf16, a scale
    assert layout.indexer == 2 * 4 * (8 + 1)
    assert layout.unfinished == plain.unfinished
