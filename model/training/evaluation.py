"""Scores of a checkpoint on held-out scenes, beside those of a blind one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from PIL import Image

from ..engine import NativeEngine, Request
from ..tasks import shapes
from ..tasks.scenes import draw
from ..tasks.shapes import Case

# Sizes of the held-out scenes, in pixels: squares at, below and above what the tower sees, and common photo shapes.
TEST_CANVASES = ((168, 168), (252, 252), (400, 400), (320, 240), (240, 320), (300, 200), (200, 300), (320, 180))
MAX_OUTPUT_TOKENS = 96


def test_cases(scenes: int, count: tuple[int, int] = (1, 6)) -> list[tuple[Case, ...]]:
    """For each of `scenes` held-out scenes one question of every kind. Layouts and seeds were never trained on."""
    cases = []
    for seed in range(scenes):
        rng = shapes.scene_rng(seed, "test")
        width, height = TEST_CANVASES[seed % len(TEST_CANVASES)]
        scene = draw(rng, width=width, height=height, count=count, layouts=shapes.layouts("test"))
        cases.append(tuple(shapes.pose(scene, rng, [kind]) for kind in shapes.KINDS))
    return cases


def respond(engine: NativeEngine, cases: Sequence[tuple[Case, ...]], blind: bool = False) -> list[tuple[str, ...]]:
    """The engine's responses, in the order of the cases; `blind`: every image greyed out."""

    async def ask(questions: tuple[Case, ...]) -> tuple[str, ...]:
        image = questions[0].image
        image = Image.new("RGB", image.size, (127, 127, 127)) if blind else image
        request = Request(image, tuple(case.question for case in questions), MAX_OUTPUT_TOKENS)
        return tuple(completion.text for completion in await engine.answer(request))

    async def together() -> list[tuple[str, ...]]:
        return await asyncio.gather(*(ask(questions) for questions in cases))

    return asyncio.run(together())


def score(cases: Sequence[tuple[Case, ...]], responses: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """Percent right by kind of question and over all, mean IoU of the boxes (0..1), percent well formed."""
    right: dict[str, list[bool]] = {kind: [] for kind in shapes.KINDS}
    overlaps, formed = [], []
    for questions, texts in zip(cases, responses, strict=True):
        for case, text in zip(questions, texts, strict=True):
            judgement = shapes.judge(case, text)
            right[case.kind].append(judgement.exact)
            formed.append(judgement.well_formed)
            if judgement.mean_iou is not None:
                overlaps.append(judgement.mean_iou)
    figures = {f"{kind}_exact_percent": _percent(values) for kind, values in right.items()}
    figures["mean_iou"] = round(sum(overlaps) / max(len(overlaps), 1), 4)
    return figures | {"well_formed_percent": _percent(formed), "questions": float(len(formed))}


def best_constant(cases: Sequence[tuple[Case, ...]]) -> dict[str, float]:
    """Percent that the commonest answer of each kind of question would get: what can be had without looking."""
    answers: dict[str, Counter[str]] = {kind: Counter() for kind in shapes.KINDS}
    for questions in cases:
        for case in questions:
            answers[case.kind][case.answer] += 1
    return {
        f"{kind}_exact_percent": round(100 * counter.most_common(1)[0][1] / counter.total(), 1)
        for kind, counter in answers.items()
        if counter
    }


def evaluate(engine: NativeEngine, scenes: int) -> dict[str, dict[str, float]]:
    """All figures of the card: the checkpoint, the same one blind, and the best constant answers."""
    cases = test_cases(scenes)
    return {
        "seeing": score(cases, respond(engine, cases)),
        "blind": score(cases, respond(engine, cases, blind=True)),
        "best_constant": best_constant(cases),
    }


def _percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / max(len(values), 1), 1)
