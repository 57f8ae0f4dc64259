"""What an image costs in KV bytes: by branch, for one request, from its size alone.

Two figures for each request. The live one counts the entries that the mechanism needs, in any cache type; it is what
the released model's own figures count. The allocated one is what our engine takes, in whole slots, windows and pages.
Source: reference section 8. A request is one image with some questions, that share the image's compressed entries, and
its raw ones as long as all of it fits the sliding window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from model.attention import CSA_RATIO
from model.cache_layout import CacheLayout
from model.config import Config
from model.image import TokenType, plan, span

CacheKind = Literal["fp8", "bf16", "fp32"]
COMPUTED_IN: dict[CacheKind, torch.dtype] = {"fp8": torch.bfloat16, "bf16": torch.bfloat16, "fp32": torch.float32}

IMAGE_POSITION = 2  # of the placeholder: the begin-of-sentence mark and the user's mark stand before it
FP8_BLOCK = 64  # dimensions of an attention entry that share a scale of one byte
FP8_ALIGNMENT = 8  # bytes that the scales of an entry are padded to
INDEX_BLOCK = 128  # dimensions of an indexer entry that share a scale, an fp32
ARTICLE_ENTRIES = 870  # "about 870 entries": what the article says others keep where this model keeps 81


@dataclass(frozen=True)
class Workload:
    """What is asked of each image. `text_tokens` are one question's prompt without the image span and its pads."""

    text_tokens: int = 64
    output_tokens: int = 0
    questions: int = 1
    cache: CacheKind = "bf16"

    def __post_init__(self) -> None:
        for name, least in (("text_tokens", IMAGE_POSITION), ("output_tokens", 0), ("questions", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Branches:
    """Bytes by branch. The unfinished windows stand beside the other four: `total_bytes` leaves them out."""

    sliding_bytes: int
    csa_bytes: int
    indexer_bytes: int
    hca_bytes: int
    unfinished_window_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.sliding_bytes + self.csa_bytes + self.indexer_bytes + self.hca_bytes

    @property
    def held_bytes(self) -> int:
        """What memory really has to hold."""
        return self.total_bytes + self.unfinished_window_bytes

    @property
    def largest(self) -> str:
        """The branch that takes most, so that limits how many fit."""
        return max(vars(self), key=lambda name: vars(self)[name]).removesuffix("_bytes").replace("_", " ")


@dataclass(frozen=True)
class Peer:
    """Another model's cache: bytes of a token, and the image tokens that a size in pixels becomes."""

    name: str
    bytes_per_token: int
    image_tokens: Callable[[int, int], int]


@dataclass(frozen=True)
class Cost:
    """What one image with its questions costs under one configuration."""

    width: int
    height: int
    workload: Workload
    canvas_width: int
    canvas_height: int
    patches: int
    image_tokens: int
    span_tokens: int  # with newlines and marks, without the alignment pads before it
    alignment_pads: int
    csa_entries: int  # of the span, in each CSA layer
    csa_entries_image_only: int
    prefix_tokens: int  # up to and with the span: shared by the questions
    request_tokens: int  # of one question, its longest response included
    shared: Branches  # all questions, the image's compressed entries once
    unshared: Branches  # all questions, each with the image to itself
    image_alone: Branches  # what the span adds to a context that is long already
    uncompressed_bf16_bytes: int  # the same backbone, raw entries only, the image's shared by the questions
    allocated_bytes: int  # by our engine

    def peer_tokens(self, peer: Peer) -> int:
        """Tokens of all questions for a peer that shares the image between them too."""
        load = self.workload
        each = load.text_tokens - IMAGE_POSITION + load.output_tokens
        return IMAGE_POSITION + peer.image_tokens(self.width, self.height) + load.questions * each

    def peer_bytes(self, peer: Peer) -> int:
        return self.peer_tokens(peer) * peer.bytes_per_token


def entry_bytes(config: Config, cache: CacheKind) -> tuple[int, int]:
    """Bytes of one attention entry and of one indexer entry.

    fp8: the rotary part of an attention entry stays bf16; scales are padded to FP8_ALIGNMENT, as the released kernels
    lay them. Our engine pads nothing (`model/entries.py`), which only the allocated bytes show.
    """
    if cache != "fp8":
        itemsize = COMPUTED_IN[cache].itemsize
        return config.head_dim * itemsize, config.index_head_dim * itemsize
    plain = config.head_dim - config.qk_rope_head_dim
    scales = -(-plain // FP8_BLOCK)
    attention = plain + 2 * config.qk_rope_head_dim + -(-scales // FP8_ALIGNMENT) * FP8_ALIGNMENT
    return attention, config.index_head_dim + 4 * -(-config.index_head_dim // INDEX_BLOCK)


def cost(config: Config, width: int, height: int, workload: Workload) -> Cost:
    """The cost of an image of `width` x `height` pixels, after EXIF orientation. ValueError for an empty image."""
    geometry = plan(width, height, config)
    types = span(geometry.rows, geometry.columns, IMAGE_POSITION).types
    pads = types.index(TokenType.START)
    span_tokens = len(types) - pads
    prefix = IMAGE_POSITION + len(types)
    tail = workload.text_tokens - IMAGE_POSITION + workload.output_tokens
    attention_bytes, _ = entry_bytes(config, "bf16")
    layout = CacheLayout(config, COMPUTED_IN[workload.cache], fp8=workload.cache == "fp8")
    footprint = layout.footprint(prefix, [tail] * workload.questions)
    tokens_together = prefix + workload.questions * tail
    return Cost(
        width,
        height,
        workload,
        geometry.canvas_width,
        geometry.canvas_height,
        geometry.num_patches,
        geometry.num_image_tokens,
        span_tokens,
        pads,
        (span_tokens - 2) // CSA_RATIO,  # START and END lie in windows that are not the image's
        -(-geometry.num_image_tokens // CSA_RATIO),
        prefix,
        prefix + tail,
        _branches(config, workload, prefix, tail, workload.questions, shared=True),
        _branches(config, workload, prefix, tail, workload.questions, shared=False),
        _image_alone(config, workload.cache, span_tokens),
        tokens_together * config.num_hidden_layers * attention_bytes,
        footprint.total_bytes,
    )


def _branches(config: Config, load: Workload, prefix: int, tail: int, sequences: int, shared: bool) -> Branches:
    attention, index = entry_bytes(config, load.cache)
    ratios = [ratio for ratio in config.compress_ratios if ratio]

    def entries(ratio: int) -> int:
        image = prefix // ratio if shared else 0
        return image + sequences * ((prefix + tail) // ratio - image)

    csa = ratios.count(CSA_RATIO) * entries(CSA_RATIO)
    hca = sum(entries(ratio) for ratio in ratios if ratio != CSA_RATIO)
    window = min(prefix + tail, config.sliding_window)
    # The image's raw entries are one sequence's like another's until a window slides past the first of them.
    common = prefix if shared and prefix + tail <= config.sliding_window else 0
    return Branches(
        (common + sequences * (window - common)) * config.num_hidden_layers * attention,
        csa * attention,
        csa * index,
        hca * attention,
        sequences * CacheLayout(config, torch.float32).unfinished,
    )


def _image_alone(config: Config, cache: CacheKind, span_tokens: int) -> Branches:
    """Of a span in a long context: windows are full already, a share of an HCA entry counts as a share."""
    attention, index = entry_bytes(config, cache)
    ratios = [ratio for ratio in config.compress_ratios if ratio]
    csa = ratios.count(CSA_RATIO) * ((span_tokens - 2) // CSA_RATIO)
    hca = sum(span_tokens / ratio for ratio in ratios if ratio != CSA_RATIO)
    return Branches(0, csa * attention, csa * index, int(hca * attention + 0.5), 0)


def fitting(memory_bytes: int, bytes_each: int) -> int:
    """Requests that fit a card's memory for KV cache."""
    return memory_bytes // bytes_each


def as_record(spent: Cost, peers: tuple[Peer, ...], memory_bytes: int | None) -> dict[str, Any]:
    """All of a cost as plain values, for programs and for the tables. Bytes unless the name says otherwise."""
    shared, alone = spent.shared, spent.image_alone
    load = spent.workload
    record: dict[str, Any] = {
        "image": f"{spent.width}x{spent.height}",
        **vars(load),
        "canvas": f"{spent.canvas_width}x{spent.canvas_height}",
        **{
            name: getattr(spent, name)
            for name in (
                *("patches", "image_tokens", "span_tokens", "alignment_pads", "csa_entries"),
                *("csa_entries_image_only", "prefix_tokens", "request_tokens"),
            )
        },
        **vars(shared),
        "total_bytes": shared.total_bytes,
        "held_bytes": shared.held_bytes,
        "total_bytes_unshared": spent.unshared.total_bytes,
        "held_bytes_unshared": spent.unshared.held_bytes,
        "image_alone_bytes": alone.total_bytes,
        "allocated_bytes": spent.allocated_bytes,
        "uncompressed_bf16_bytes": spent.uncompressed_bf16_bytes,
        "uncompressed_ratio": round(spent.uncompressed_bf16_bytes / shared.total_bytes, 2),
        "article_entries": ARTICLE_ENTRIES,
        "peers": [
            {
                "name": peer.name,
                "image_tokens": peer.image_tokens(spent.width, spent.height),
                "bytes_per_token": peer.bytes_per_token,
                "bytes": spent.peer_bytes(peer),
                "ratio": round(spent.peer_bytes(peer) / shared.total_bytes, 2),
                "bytes_at_same_tokens": spent.request_tokens * peer.bytes_per_token,
            }
            for peer in peers
        ],
    }
    if memory_bytes is not None:
        record["fit"] = {
            "memory_bytes": memory_bytes,
            "requests_sharing_the_image": fitting(memory_bytes, shared.held_bytes),
            "requests_not_sharing": fitting(memory_bytes, spent.unshared.held_bytes),
            "requests_without_unfinished_windows": fitting(memory_bytes, shared.total_bytes),
            "requests_uncompressed": fitting(memory_bytes, spent.uncompressed_bf16_bytes),
            **{f"requests_{peer.name}": fitting(memory_bytes, spent.peer_bytes(peer)) for peer in peers},
            "limited_by": shared.largest,
        }
    return record
