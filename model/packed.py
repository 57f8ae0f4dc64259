"""The fast runner for a CPU: the tokens of all sequences in one row, no padding, prefill and decode in one pass.

Products are torch's, one for each matrix; everything between them is a loop compiled by numba (`kernels/`), which reads
and writes the cache where it lies. Each core has a thread of its own with a share of the sequences, from embeddings to
logits: they meet once a pass.

Shapes: N tokens of a share, B sequences, R rows (tokens whose outputs are wanted), S streams, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch
from torch import Tensor

from .cache import Cache, CachedSequence
from .image import plan, span
from .kernels import attention, streams
from .packed_attention import Blocks, Pass
from .packed_layer import PackedLayer, arrays, by_input
from .packed_vision import PackedVision
from .runner import Feed, Picture
from .vision_language_model import VisionLanguageModel

PATCH_COST = 0.5  # of a patch in the tower, in tokens through the layers
SHARE_TOKENS = 512  # more at a time leave the core's cache and gain nothing


class PackedRunner:
    """See the module. `runner_of` gives it only what it can run: fp32 on a CPU, experts that are not packed."""

    def __init__(self, model: VisionLanguageModel, cache: Cache, threads: int) -> None:
        self.model, self.cache, self.config = model, cache, model.config
        self.vision = PackedVision(model)
        self.layers = [PackedLayer(layer, pool) for layer, pool in zip(model.each_layer(), cache.layers, strict=True)]
        self._frequencies = {layer.compressed: torch.from_numpy(layer.frequencies) for layer in self.layers}
        self._collapse = arrays(model.hc_head_fn, model.hc_head_base, model.hc_head_scale, model.norm.weight)
        self._head = by_input(model.head.weight.float())  # logits in bf16 would be full of ties
        # One core a thread: torch's own threads would wait for each other many times a layer. The setting reaches
        # beyond the thread that makes it (MKL has one for the process), so close() takes it back.
        self._threads_before, self._shares = torch.get_num_threads(), threads
        self._threads = ThreadPoolExecutor(threads, "pass", initializer=torch.set_num_threads, initargs=(1,))
        self._warm_up()

    def run(self, feeds: Sequence[Feed]) -> Tensor:
        shares = split(feeds, self._shares)
        wanted = np.cumsum([feed.wanted for feed in feeds]) - 1  # the row of each feed's logits
        logits = torch.empty(int(wanted[-1]) + 1 if feeds else 0, self.config.vocab_size)
        running = []
        for share in shares:
            rows = torch.tensor([wanted[number] for number in share if feeds[number].wanted], dtype=torch.int64)
            running.append(self._threads.submit(self._run, [feeds[number] for number in share], logits, rows))
        wait(running)
        for done in running:
            done.result()
        for feed in feeds:
            feed.sequence.length += len(feed.ids)
        return logits

    def close(self) -> None:
        self._threads.shutdown()
        torch.set_num_threads(self._threads_before)

    def _warm_up(self) -> None:
        """Compile the loops, or load them, before the first request: a quarter of a minute the first time."""
        config, side = self.config, self.config.vision_patch_size
        picture = Picture(plan(side, side, config), torch.zeros(0))
        picture.patches = torch.zeros(picture.geometry.patch_rows * picture.geometry.patch_columns, 3, side, side)
        types = span(picture.geometry.rows, picture.geometry.columns, 0).types
        # Into slot 0, window 0 and page 0 of a cache that nobody uses yet.
        layout = self.cache.layout
        windows, pages = [0] * layout.windows(len(types)), [0] * -(-len(types) // layout.page_tokens)
        ids = [config.vocab_size + kind for kind in types]
        nowhere = torch.empty(1, config.vocab_size), torch.zeros(1, dtype=torch.int64)
        self._threads.submit(self._run, [Feed(CachedSequence(0, windows, pages, 0), ids, picture)], *nowhere).result()

    @torch.inference_mode()
    def _run(self, feeds: list[Feed], logits: Tensor, rows: Tensor) -> None:
        """One share: what is wanted of it goes to `rows` of `logits`."""
        pictures = {id(feed.picture): feed.picture for feed in feeds if feed.picture is not None}
        self.vision.see([picture for picture in pictures.values() if picture.features is None])
        batch = self._pack(feeds)
        kept = self._embed(feeds, batch)[:, None].repeat(1, self.config.hc_mult, 1)  # [N, S, H]
        for layer in self.layers[:-1]:
            kept = layer(kept, batch, batch.every)
        # In the last layer the other tokens leave their raw and compressed entries, and nobody reads more of them.
        kept = self.layers[-1](kept, batch, batch.wanted)
        hidden = torch.empty(len(kept), self.config.hidden_size)
        eps = np.float32(self.config.hc_eps), np.float32(self.config.rms_norm_eps)
        streams.collapse(kept.numpy(), *self._collapse, *eps, hidden.numpy())
        logits[rows] = hidden @ self._head

    def _embed(self, feeds: list[Feed], batch: Pass) -> Tensor:
        seen = [feed.picture.features for feed in feeds if feed.picture and feed.picture.features is not None]
        ids_BT = torch.from_numpy(batch.ids)[None]
        return self.model.embed_prompt(ids_BT, torch.cat(seen)[None] if seen else None)[0].float()

    def _pack(self, feeds: list[Feed]) -> Pass:
        config, sequences = self.config, [feed.sequence for feed in feeds]
        ids = np.array([token for feed in feeds for token in feed.ids], np.int64)
        lengths = np.array([len(feed.ids) for feed in feeds])
        offsets = np.concatenate([[0], lengths.cumsum()])
        starts = np.array([sequence.length for sequence in sequences])
        sequence_of = np.repeat(np.arange(len(feeds)), lengths)
        every_row = np.arange(len(ids))
        positions = every_row - offsets[sequence_of] + starts[sequence_of]
        first, last = np.empty_like(ids), np.empty_like(ids)
        window, farthest = config.sliding_window, config.vision_max_n_token
        attention.reach(ids, positions, config.vocab_size, window, farthest, first, last)
        turns = {}
        for compressed, frequencies in self._frequencies.items():
            angles = torch.from_numpy(positions)[:, None].float() * frequencies
            turns[compressed] = angles.cos().numpy(), angles.sin().numpy()
        wanted = offsets[1:][[feed.wanted for feed in feeds]] - 1
        table = self.cache.page_table(sequences, (starts + lengths).tolist()).numpy()
        slots = np.array([sequence.slot for sequence in sequences])
        rings = self.cache.rings(sequences), self.cache.layout.ring_tokens
        of_all, of_wanted = (Blocks.of(rows, sequence_of, first, last) for rows in (every_row, wanted))
        return Pass(
            ids, positions, sequence_of, offsets, starts, slots, *rings, table, first, last, of_all, of_wanted, turns
        )  # fmt: skip


def split(feeds: Sequence[Feed], shares: int) -> list[list[int]]:
    """The numbers of the feeds in `shares` or more of about equal work, those of one picture together, none empty."""
    groups: dict[int, list[int]] = {}
    for number, feed in enumerate(feeds):
        groups.setdefault(-number if feed.picture is None else id(feed.picture), []).append(number)
    costs = {}
    for key, members in groups.items():
        costs[key] = len(feeds[members[0]].ids) if len(members) == 1 else sum(len(feeds[n].ids) for n in members)
        picture = feeds[members[0]].picture
        if picture is not None and picture.features is None:
            costs[key] += int(len(picture.patches) * PATCH_COST)
    shares = max(shares, -(-sum(costs.values()) // SHARE_TOKENS))
    parts: list[list[int]] = [[] for _ in range(shares)]
    loads = [0] * shares
    for key in sorted(groups, key=costs.__getitem__, reverse=True):
        lightest = loads.index(min(loads))
        parts[lightest] += groups[key]
        loads[lightest] += costs[key]
    return [part for part in parts if part]
