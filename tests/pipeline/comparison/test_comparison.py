"""Engines side by side: who answered, who was right, where they agree and where they point elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.comparison.comparison import Comparison, Pair, Price, Tally, apart

LEFT, RIGHT = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]


def row(answer: str | None, *boxes: list[float], image: str = "a", question: str = "0", **more: Any) -> dict[str, Any]:
    """An answer row with boxes in its answer; None: an error."""
    names = ("x1", "y1", "x2", "y2")
    primitives = [{"kind": "box", "part": "answer", "valid": True} | dict(zip(names, b, strict=True)) for b in boxes]
    usage = {"prompt_tokens": 100, "output_tokens": 10}
    if answer is None:
        error = {"stage": "generate", "kind": "kv_budget", "message": "too much", "attempts": 1}
        nothing = {"status": "error", "error": error, "answer": None, "primitives": None}
        return {"image_id": image, "question_id": question} | nothing
    found = {"status": "ok", "answer": answer, "primitives": primitives, "usage": usage}
    return {"image_id": image, "question_id": question} | found | more


def compared(*questions: tuple[dict[str, Any], dict[str, Any]], keep: int = 20) -> Comparison:
    comparison = Comparison(("A", "B"), keep)
    for a, b in questions:
        comparison.add({"A": a, "B": b}, None, None)
    return comparison


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [
        (row("2", LEFT), row("2.", LEFT), 0.0),
        (row("2"), row("2"), 0.0),
        (row("2", LEFT), row("3", LEFT), 1.0),
        (row("2", LEFT), row("2", RIGHT), 1.0),
        (row("2", LEFT), row("2"), 1.0),
        (row("2", LEFT), row("3", RIGHT), 2.0),
        (row("2", LEFT), row("2", LEFT, RIGHT), 0.5),
        (row("2"), row(None), 2.0),
        (row(None), row(None), 0.0),
    ],
)
def test_answers_lie_apart_by_their_words_and_by_where_they_point(a: Any, b: Any, size: float) -> None:
    assert apart(a, b) == apart(b, a) == size


def test_agreement_is_over_what_both_answered() -> None:
    comparison = compared((row("2", LEFT), row("2", LEFT)), (row("2"), row("3")), (row("2"), row(None)))
    assert comparison.pairs["A", "B"] == Pair(both=2, agree=1, pointed=1, iou=1.0)
    (figures,) = comparison.figures({})["pairs"]
    assert figures == {"engines": ["A", "B"], "both_answered": 2, "agreement": 0.5, "primitives_iou": 1.0}


def test_each_engine_is_scored_against_gold_and_a_missing_answer_is_wrong() -> None:
    comparison = Comparison(("A", "B"))
    comparison.add({"A": row("2", LEFT), "B": row(None)}, "2", [LEFT])
    comparison.add({"A": row("1", RIGHT), "B": row("2", LEFT)}, "2", [LEFT])
    engines = comparison.figures({})["engines"]
    assert (engines["A"]["gold_exact"], engines["A"]["gold_iou"]) == (0.5, 0.5)
    assert (engines["B"]["gold_exact"], engines["B"]["gold_iou"]) == (0.5, 0.5)
    assert (engines["A"]["answered"], engines["B"]["answered"]) == (2, 1)
    assert (engines["A"]["errors"], engines["B"]["errors"]) == ({}, {"generate/kv_budget": 1})


def test_invalid_primitives_and_tokens_are_shares_of_their_own_kind() -> None:
    comparison = Comparison(("A", "B"))
    bad = row("2", LEFT, RIGHT)
    bad["primitives"][1]["valid"] = False
    unknown = row("2", usage={"prompt_tokens": None, "output_tokens": None})
    comparison.add({"A": bad, "B": unknown}, None, None)
    comparison.add({"A": row("1", question="1"), "B": unknown}, None, None)
    engines = comparison.figures({})["engines"]
    assert engines["A"]["invalid_primitives"] == 0.5
    assert (engines["A"]["prompt_tokens_per_answer"], engines["A"]["output_tokens_per_answer"]) == (100, 10)
    assert engines["B"]["output_tokens_per_answer"] == 0


def test_what_an_engine_took_is_added_up_in_whatever_portions() -> None:
    comparison = compared((row("2"), row("2")), (row("3"), row("3")))
    for portion in (0.25, 0.75):
        comparison.tallies["A"].took(4 * portion, 6000 * portion, 2 * portion, False)
    comparison.tallies["B"].took(1.0, 0.0, 0.0, False)
    engines = comparison.figures({})["engines"]
    shown = ("seconds", "answers_per_second", "kv_bytes_per_image", "kv_bytes_predicted")
    assert [engines["A"][name] for name in shown] == [4.0, 0.5, 3000.0, False]
    assert [engines["B"][name] for name in shown] == [1.0, 2.0, None, False]


def test_the_price_counts_tokens_and_hours() -> None:
    comparison = compared((row("2"), row("2")))
    comparison.tallies["A"].seconds = 36.0
    prices = {"A": Price(prompt_per_million=1.0, output_per_million=10.0, per_hour=2.0)}
    engines = comparison.figures(prices)["engines"]
    assert engines["A"]["price_per_1000_answers"] == pytest.approx(1000 * (100e-6 + 100e-6 + 0.02))
    assert engines["A"]["answers_per_second"] == pytest.approx(1 / 36)
    assert engines["B"]["price_per_1000_answers"] is None
    assert engines["B"]["answers_per_second"] is None


def test_the_largest_differences_are_kept_in_their_order_and_equal_answers_are_none() -> None:
    questions = [(row("2", image=f"{n}"), row("2" if n % 2 else "3", image=f"{n}")) for n in range(10)]
    questions.append((row("2", LEFT, image="far"), row("3", RIGHT, image="far")))
    kept = compared(*questions, keep=3).differences()
    assert [(found.image_id, found.size) for found in kept] == [("far", 2.0), ("0", 1.0), ("2", 1.0)]
    assert kept[0].rows["B"]["answer"] == "3"
    assert compared(*questions, keep=3).differing == 6


@pytest.mark.parametrize("engines", [("A",), ("A", "A"), ()])
def test_fewer_than_two_engines_or_equal_names_are_refused(engines: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="two or more engines"):
        Comparison(engines)


def test_no_rows_make_no_figures() -> None:
    figures = Comparison(("A", "B")).figures({})
    assert figures["engines"]["A"]["gold_exact"] is None
    assert figures["pairs"][0]["agreement"] is None
    assert Tally() == Comparison(("A", "B")).tallies["B"]
