"""What a row stands for, as one key: the same image, question and conditions give the same key in every run.

A key is over the image's id and address, the question, its place and mode, and the conditions of the run: the engine,
its weights and how it samples. What is not known before an image is fetched (its bytes) is not in it. The answers table
keeps 128 bits in `row_key`; in memory 64 of them stand for a row, so that a million rows take 8 MB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np


class Asked(NamedTuple):
    """What a catalog asks of one image, as far as it is known without the image."""

    image_id: str | None
    address: str | None  # as the catalog writes it; None where the image itself or its name is all there is
    questions: list[str | None]
    modes: list[str | None] | None  # one for all questions, or one each; none: the job's


@dataclass(frozen=True)
class Conditions:
    """What all answers of a run depend on, whatever the row."""

    engine: str
    model_revision: str
    max_output_tokens: int
    primitives: str  # of questions without a mode of their own
    frame: str | None  # None, as the pixels, where the checkpoint decides
    send_pixels: int | None
    temperature: float
    top_p: float | None  # None, as the seed, where nothing is drawn
    seed: int | None

    def digest(self) -> str:
        """All but the mode, which goes into each row's key as it is resolved."""
        values = {name: value for name, value in asdict(self).items() if name != "primitives"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def mode_of(modes: Sequence[str | None] | None, index: int) -> str | None:
    """One mode stands for all questions, several for one each; None: the job's."""
    if not modes:
        return None
    return modes[0] if len(modes) == 1 else modes[index] if index < len(modes) else None


def row_keys(asked: Asked, conditions: Conditions, digest: str) -> list[str]:
    """The keys of an image's rows, in the order of its questions: 32 hex digits each."""
    keys = []
    for index, question in enumerate(asked.questions):
        mode = mode_of(asked.modes, index) or conditions.primitives
        text = json.dumps([digest, asked.image_id, asked.address, index, question, mode])
        keys.append(hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
    return keys


def short(keys: Iterable[str] | Any) -> np.ndarray:
    """[N] uint64: the first half of each key."""
    return np.frombuffer(bytes.fromhex("".join(keys)), dtype=">u8")[::2].astype(np.uint64)


def among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[N] bool: which of the keys [N] are in `known` [M], which is sorted."""
    if not len(known):
        return np.zeros(len(keys), dtype=bool)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return known[places] == keys
