from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.primitives import format_boxes, parse
from model.tasks.prices import cents_of, written
from model.tasks.reading import SUITE, WEIGHTS, _lettering_and_size, same_text
from model.tasks.reading_plan import CELL_PX, LEVELS, plan
from model.tasks.suite import SPLITS, Case, Split, final_answer, rng_of, to_frame
from model.tasks.suites import suite_of

SEEDS = st.integers(0, 10**9)
Pieces = list[tuple[str, tuple[int, ...]]]  # label and box of the frame, in the order given


@cache
def case_of(seed: int, level: str, split: Split) -> Case:
    return SUITE.case(seed, level, split)


def some(level: str, split: Split = "train", n: int = 60) -> list[Case]:
    return [case_of(seed, level, split) for seed in range(n)]


def pieces(response: str) -> Pieces:
    return [(primitive.label or "", primitive.frame) for primitive in parse(response)]


def response_of(given: Pieces, answer: str) -> str:
    return "".join(format_boxes(label, [frame]) for label, frame in given) + "</think>" + answer


# ---- the reference


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_reference_response_earns_full_marks(level: str, split: Split) -> None:
    for case in some(level, split, 40):
        verdict = SUITE.judge(case, case.response)
        assert verdict.score == pytest.approx(1.0, abs=1e-12) and verdict.exact and verdict.well_formed, case.response
        assert verdict.iou == 1.0 and verdict.path_valid is None


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_two_thousand_reference_responses_earn_full_marks(level: str) -> None:
    for seed in range(2000):
        case = SUITE.case(seed, level, SPLITS[seed % 3])
        assert SUITE.judge(case, case.response).score == pytest.approx(1.0, abs=1e-12), seed


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, level=st.sampled_from(tuple(LEVELS)), split=st.sampled_from(SPLITS))
def test_the_answer_follows_from_the_shelf(seed: int, level: str, split: Split) -> None:
    """Answered again from what stands on the shelf and the words of the question alone."""
    case = SUITE.case(seed, level, split)
    shelf, question = case.truth["shelf"], case.question
    named = {p["name"]: p["text"] for p in shelf if f"the {p['name']}" in question}
    cents = {p["name"]: cents_of(p["text"]) or 0 for p in shelf}
    if case.kind in ("price", "label"):
        longest = max(named, key=len)  # "red pot" is no answer to "the red potted …"
        assert case.answer == named[longest]
    elif case.kind == "sum":
        asked = [p["name"] for i, p in enumerate(shelf) if i in case.truth["products"]]
        assert all(f"the {name}" in question for name in asked)
        assert case.answer == written(sum(cents[name] for name in asked))
    elif case.kind == "which":
        assert [name for name in cents if f" {written(cents[name])}" in question] == [case.answer]
    else:
        best = (min if case.kind == "cheapest" else max)(cents.values())
        assert [name for name in cents if cents[name] == best] == [case.answer]


def test_the_thinking_points_at_product_and_tag_and_reads() -> None:
    for level in LEVELS:
        for case in some(level):
            shelf = case.truth["shelf"]
            products = [(shelf[i]["name"], to_frame(shelf[i]["box"], case.size)) for i in case.truth["products"]]
            tags = [(shelf[i]["text"], to_frame(shelf[i]["tag"], case.size)) for i in case.truth["tags"]]
            if case.kind in ("price", "label", "sum"):
                due = [piece for pair in zip(products, tags, strict=True) for piece in pair]
            else:
                due = tags + products
            assert pieces(case.response) == due
            assert final_answer(case.response) == case.answer
            assert case.boxes is not None and len(case.boxes) == len(due)


def test_names_and_prices_of_a_shelf_differ() -> None:
    for level in LEVELS:
        for case in some(level):
            for field in ("name", "text"):
                values = [product[field] for product in case.truth["shelf"]]
                assert case.kind == "sum" or len(set(values)) == len(values), values


def test_the_truth_is_plain_json_and_judges_as_the_case_does() -> None:
    for case in some("hard"):
        copied = replace(case, truth=json.loads(json.dumps(case.truth)))
        assert copied.truth == case.truth and SUITE.judge(copied, case.response).score == pytest.approx(1.0)


def test_the_suite_is_known_by_its_name() -> None:
    assert suite_of("reading") is SUITE and SUITE.levels == ("easy", "medium", "hard")
    with pytest.raises(ValueError, match="has the levels"):
        SUITE.case(0, "nightmare", "train")


# ---- damage


def moved(frame: tuple[int, ...]) -> tuple[int, ...]:
    """A box half its width to the side, kept inside."""
    x1, y1, x2, y2 = frame
    step = max(2, (x2 - x1) // 2)
    step = step if x2 + step <= 999 else -step
    return (x1 + step, y1, x2 + step, y2)


def on_first(case: Case, change: Callable[[str, tuple[int, ...]], Pieces], tag: bool) -> str:
    """The reference with its first product or its last tag changed."""
    given = pieces(case.response)
    names = {product["name"] for product in case.truth["shelf"]}
    at = [i for i, (label, _) in enumerate(given) if (label not in names) == tag][-1 if tag else 0]
    return response_of([*given[:at], *change(*given[at]), *given[at + 1 :]], case.answer)


def misread(text: str) -> str:
    """The text with its first digit or letter another one."""
    return ("8" if text[0] != "8" else "3") + text[1:]


def neighbour(case: Case) -> dict[str, object]:
    """A product on the shelf that the answer is not about."""
    return next(p for i, p in enumerate(case.truth["shelf"]) if i not in case.truth["products"])


def wrong_answer(case: Case) -> str:
    """The answer as it would be for a neighbour."""
    text = str(neighbour(case)["text" if case.kind in ("price", "label", "sum") else "name"])
    return text if not same_text(text, case.answer) else misread(text)


def neighbours_tag(case: Case) -> str:
    """The tag of another product, boxed, read and answered in good faith; of kinds that read one tag."""
    other = neighbour(case)
    frame = to_frame(other["tag"], case.size)  # type: ignore[arg-type]
    return on_first(case, lambda *_: [(str(other["text"]), frame)], tag=True).split("</think>")[0] + (
        f"</think>{wrong_answer(case)}"
    )


# Each damage, and the least and the most it costs on any case.
DAMAGES: dict[str, tuple[Callable[[Case], str], float, float]] = {
    "product's box shifted": (lambda c: on_first(c, lambda t, f: [(t, moved(f))], tag=False), 0.04, 0.12),
    "tag's box shifted": (lambda c: on_first(c, lambda t, f: [(t, moved(f))], tag=True), 0.01, 0.22),
    "product's box missing": (lambda c: on_first(c, lambda *_: [], tag=False), 0.07, 0.16),
    "tag's box missing": (lambda c: on_first(c, lambda *_: [], tag=True), 0.02, 0.26),
    "product's box twice": (lambda c: on_first(c, lambda *p: [p, p], tag=False), 0.14, 0.18),
    "tag's box twice": (lambda c: on_first(c, lambda *p: [p, p], tag=True), 0.12, 0.23),
    "digit misread, answer right": (lambda c: on_first(c, lambda t, f: [(misread(t), f)], tag=True), 0.01, 0.11),
    "answer misread": (lambda c: response_of(pieces(c.response), misread(c.answer)), 0.5, 0.5),
    "answer of a neighbour": (lambda c: response_of(pieces(c.response), wrong_answer(c)), 0.5, 0.5),
    "product of another name": (
        lambda c: on_first(c, lambda _, f: [(str(neighbour(c)["name"]), f)], tag=False), 0.07, 0.16,
    ),
    "tag broken": (lambda c: c.response.replace("<｜/box｜>", "", 1), 0.1, 0.1),
    "no end of thinking": (lambda c: c.response.replace("</think>", " "), 0.6, 0.6),
    "no thinking": (lambda c: f"</think>{c.answer}", 0.4, 0.4),
    "empty": (lambda c: "", 1.0, 1.0),
}  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, level=st.sampled_from(tuple(LEVELS)), split=st.sampled_from(SPLITS))
def test_every_damage_costs_what_it_should(seed: int, level: str, split: Split) -> None:
    case = SUITE.case(seed, level, split)
    for name, (damaged, least, most) in DAMAGES.items():
        lost = 1 - SUITE.judge(case, damaged(case)).score
        assert least - 1e-9 <= lost <= most + 1e-9, (name, lost, case.kind)


def test_the_neighbours_tag_read_in_good_faith_costs_answer_tag_and_reading() -> None:
    for case in some("hard", n=120):
        if case.kind in ("price", "label"):
            parts = SUITE.judge(case, neighbours_tag(case)).parts
            assert (parts["answer"], parts["tag"], parts["reading"]) == (0, 0, 0)
            assert (parts["product"], parts["form"]) == (1, 1)


def test_a_sums_products_must_carry_their_own_names() -> None:
    case = next(c for c in some("hard") if c.kind == "sum")
    (one, a), tag, (two, b), other = pieces(case.response)
    swapped = response_of([(two, a), tag, (one, b), other], case.answer)
    assert SUITE.judge(case, swapped).parts["product"] == 0.0


@settings(deadline=None)
@given(to_right=st.floats(0, 1), upwards=st.floats(0, 1))
def test_a_box_that_strays_further_never_earns_more(to_right: float, upwards: float) -> None:
    case = some("easy")[0]

    def at(share: float) -> float:
        def shift(text: str, frame: tuple[int, ...]) -> Pieces:
            x1, y1, x2, y2 = frame
            x, y = round((999 - x2) * to_right * share), round(y1 * upwards * share)
            return [(text, (x1 + x, y1 - y, x2 + x, y2 - y))]

        return SUITE.judge(case, on_first(case, shift, tag=False)).score

    scores = [at(share) for share in (0.0, 0.3, 0.6, 1.0)]
    assert scores == sorted(scores, reverse=True)


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(
    ["<｜ref｜>", "<｜/ref｜>", "<｜box｜>", "<｜/box｜>", "</think>", "[[1,2,3,4]]", "red jar", "3.50", " "])
).map("".join))  # fmt: skip
def test_any_text_is_judged_and_none_earns_an_answer_by_chance(text: str) -> None:
    case = some("easy")[0]
    verdict = SUITE.judge(case, text)
    assert 0.0 <= verdict.score <= 0.3 and not verdict.exact


def test_a_price_may_carry_a_sign_and_names_and_labels_ignore_case() -> None:
    by_kind = {case.kind: case for case in some("hard")}
    price, label, name = (by_kind[kind] for kind in ("price", "label", "cheapest"))
    for answer in (f"${price.answer}", f"{price.answer} €", price.answer.replace(".", ","), f" {price.answer}. "):
        assert SUITE.judge(price, response_of(pieces(price.response), answer)).exact, answer
    for case in (label, name):
        assert SUITE.judge(case, response_of(pieces(case.response), f"{case.answer.upper()}.")).exact
        assert not SUITE.judge(case, response_of(pieces(case.response), f"{case.answer} 1")).exact


def test_the_weights_are_those_written_down() -> None:
    assert WEIGHTS == {"answer": 0.5, "product": 0.15, "tag": 0.15, "reading": 0.1, "form": 0.1}


# ---- drawing


@pytest.mark.parametrize("level", LEVELS)
def test_sides_are_whole_cells_of_the_levels_range(level: str) -> None:
    sides = {side for case in some(level) for side in case.size}
    low, high = LEVELS[level].cells
    assert sides == {cells * CELL_PX for cells in range(low, high + 1)}


@settings(deadline=None)
@given(seed=SEEDS, level=st.sampled_from(tuple(LEVELS)), split=st.sampled_from(SPLITS))
def test_an_image_does_not_tell_by_its_size_what_it_says(seed: int, level: str, split: Split) -> None:
    """Another price, label, name or place of the same question gives the same font and size."""
    of_level = LEVELS[level]
    one, two = (plan(rng_of("reading", level, split, seed + i), seed, of_level, split) for i in range(2))
    two = replace(two, sign=one.sign, items=tuple(replace(item, label="a", price="1") for item in two.items))
    lines = {len(item.lines) for item in one.items}
    two = replace(two, items=tuple(replace(i, label=i.label if lines == {2} else None) for i in two.items))
    drawn = [_lettering_and_size(np.random.default_rng(seed), of_level, p, split) for p in (one, two)]
    assert drawn[0] == drawn[1]


def test_the_same_seed_gives_the_same_case_and_splits_give_others() -> None:
    for level in LEVELS:
        one, two = (SUITE.draw(5, level, "train") for _ in range(2))
        assert one.image.tobytes() == two.image.tobytes() and one.response == two.response
        assert len({case_of(5, level, split).image.tobytes() for split in SPLITS}) == 3


def test_every_kind_of_question_is_as_common_as_any_other_and_has_its_phrasings() -> None:
    for level, of_level in LEVELS.items():
        n = 10 * len(of_level.kinds)
        assert Counter(case.kind for case in some(level, n=n)) == dict.fromkeys(of_level.kinds, 10)
    for kind in LEVELS["hard"].kinds:
        asked = [case for case in some("hard", n=120) if case.kind == kind]
        assert len({case.question.split("the ")[0].split(" for ")[0] for case in asked}) >= 2
