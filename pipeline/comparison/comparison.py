"""Two or more engines' answers to the same questions, laid side by side: what each did, and where they differ most."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

from model.tasks.general import same
from model.tasks.matching import mean_iou

from ..gold import boxes_of, score

Row = Mapping[str, Any]  # of the answers table


class Price(NamedTuple):
    """What answers cost: money for a million tokens, and for an hour of what the engine runs on."""

    prompt_per_million: float = 0.0
    output_per_million: float = 0.0
    per_hour: float = 0.0

    def of(self, prompt_tokens: int, output_tokens: int, seconds: float) -> float:
        tokens = prompt_tokens * self.prompt_per_million + output_tokens * self.output_per_million
        return tokens / 1e6 + seconds / 3600 * self.per_hour


@dataclass
class Tally:
    """Sums over the rows of one engine, and what it took. `kv_bytes`: of `kv_images` images, where that is known."""

    rows: int = 0
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # "stage/kind"
    gold_answers: int = 0
    gold_exact: int = 0
    gold_boxes: int = 0
    gold_iou: float = 0.0
    primitives: int = 0
    invalid: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0  # in which it was asked, one engine after the other
    kv_bytes: float = 0.0
    kv_images: float = 0.0
    kv_predicted: bool = False

    def add(self, row: Row, gold_answer: str | None, gold_boxes: Sequence[Sequence[float]] | None) -> None:
        self.rows += 1
        exact, overlap = score(row, gold_answer, gold_boxes)
        if exact is not None:
            self.gold_answers += 1
            self.gold_exact += exact
        if overlap is not None:
            self.gold_boxes += 1
            self.gold_iou += overlap
        if row["status"] != "ok":
            self.errors[f"{row['error']['stage']}/{row['error']['kind']}"] += 1
            return
        self.answered += 1
        self.primitives += len(row["primitives"])
        self.invalid += sum(not found["valid"] for found in row["primitives"])
        usage = row["usage"]
        self.prompt_tokens += usage["prompt_tokens"] or 0
        self.output_tokens += usage["output_tokens"] or 0

    def took(self, seconds: float, kv_bytes: float, kv_images: float, kv_predicted: bool) -> None:
        """A share of what the engine took, in whatever portions; `kv_predicted`: the bytes were computed, not told."""
        self.seconds += seconds
        self.kv_bytes += kv_bytes
        self.kv_images += kv_images
        self.kv_predicted |= kv_predicted


@dataclass
class Pair:
    """Sums over the questions that two engines both answered."""

    both: int = 0
    agree: int = 0
    pointed: int = 0
    iou: float = 0.0

    def add(self, a: Row, b: Row) -> None:
        if a["status"] != "ok" or b["status"] != "ok":
            return
        self.both += 1
        self.agree += same(a["answer"], b["answer"])
        overlap = mean_iou(boxes_of(a), boxes_of(b))
        if overlap is not None:
            self.pointed += 1
            self.iou += overlap


class Difference(NamedTuple):
    """How far the answers to one question lie apart: 0 for the same, up to 2 for other words at other places."""

    size: float
    image_id: str
    question_id: str
    rows: Mapping[str, Row]
    gold_answer: str | None = None
    picture: bytes | None = None


@dataclass
class Comparison:
    """What is known after so many questions. Memory does not grow with their number."""

    engines: tuple[str, ...]
    keep: int = 20
    tallies: dict[str, Tally] = field(default_factory=dict)
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    differing: int = 0  # questions on which some two engines differ
    _largest: list[tuple[float, int, Difference]] = field(default_factory=list)
    _seen: int = 0

    def __post_init__(self) -> None:
        if len(set(self.engines)) < max(len(self.engines), 2):
            raise ValueError(f"a comparison needs two or more engines with names of their own, got {self.engines}")
        self.tallies = {name: Tally() for name in self.engines}
        self.pairs = {pair: Pair() for pair in combinations(self.engines, 2)}

    def add(
        self,
        rows: Mapping[str, Row],
        gold_answer: str | None,
        gold_boxes: Sequence[Sequence[float]] | None,
        picture: bytes | None = None,
    ) -> None:
        """One question: each engine's row, what is right if that is known, and the image as it would be shown."""
        assert set(rows) == set(self.engines), (set(rows), self.engines)
        for name, row in rows.items():
            self.tallies[name].add(row, gold_answer, gold_boxes)
        for (a, b), pair in self.pairs.items():
            pair.add(rows[a], rows[b])
        self._seen += 1
        size = largest_gap(list(rows.values()))
        if size > 0:
            self.differing += 1
            first = rows[self.engines[0]]
            difference = Difference(size, first["image_id"], first["question_id"], rows, gold_answer, picture)
            heapq.heappush(self._largest, (size, -self._seen, difference))  # of equals, the earlier ones stay
            if len(self._largest) > self.keep:
                heapq.heappop(self._largest)

    def differences(self) -> list[Difference]:
        """The questions on which engines differ most, the largest difference first."""
        return [difference for _, _, difference in sorted(self._largest, key=lambda entry: (-entry[0], -entry[1]))]

    def figures(self, prices: Mapping[str, Price]) -> dict[str, Any]:
        """For each engine and each pair what the table shows; None where there is nothing to divide by."""
        return {
            "engines": {name: _figures(tally, prices.get(name)) for name, tally in self.tallies.items()},
            "pairs": [
                {
                    "engines": [a, b],
                    "both_answered": pair.both,
                    "agreement": _share(pair.agree, pair.both),
                    "primitives_iou": _share(pair.iou, pair.pointed),
                }
                for (a, b), pair in self.pairs.items()
            ],
        }


def apart(a: Row, b: Row) -> float:
    """How far two answers lie apart: 1 for other answers, or one that is missing, and 1 - IoU of where they point."""
    if (a["status"] == "ok") != (b["status"] == "ok"):
        return 2.0
    if a["status"] != "ok":
        return 0.0
    overlap = mean_iou(boxes_of(a), boxes_of(b))
    return float(not same(a["answer"], b["answer"])) + (0.0 if overlap is None else 1 - overlap)


def largest_gap(rows: Sequence[Row]) -> float:
    """How far those two of the answers to one question lie apart that differ most."""
    return max(apart(a, b) for a, b in combinations(rows, 2))


def _figures(tally: Tally, price: Price | None) -> dict[str, Any]:
    cost = None if price is None else price.of(tally.prompt_tokens, tally.output_tokens, tally.seconds)
    return {
        "questions": tally.rows,
        "answered": tally.answered,
        "errors": dict(tally.errors.most_common()),
        "gold_exact": _share(tally.gold_exact, tally.gold_answers),
        "gold_iou": _share(tally.gold_iou, tally.gold_boxes),
        "invalid_primitives": _share(tally.invalid, tally.primitives),
        "prompt_tokens_per_answer": _share(tally.prompt_tokens, tally.answered),
        "output_tokens_per_answer": _share(tally.output_tokens, tally.answered),
        "kv_bytes_per_image": _share(tally.kv_bytes, tally.kv_images),
        "kv_bytes_predicted": tally.kv_predicted,
        "seconds": tally.seconds,
        "answers_per_second": _share(tally.answered, tally.seconds),
        "price_per_1000_answers": None if cost is None else _share(1000 * cost, tally.answered),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
