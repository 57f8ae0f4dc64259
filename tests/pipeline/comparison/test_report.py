"""The comparison's report: a line for each engine and pair, and nothing from a model that steers a terminal."""

from __future__ import annotations

from typing import Any

from pipeline.comparison.comparison import Comparison, Price
from pipeline.comparison.report import as_text
from tests.pipeline.comparison.test_comparison import LEFT, RIGHT, row


def shown(comparison: Comparison, prices: dict[str, Price] | None = None) -> str:
    figures = comparison.figures(prices or {})
    tally = next(iter(comparison.tallies.values()))
    counts = {"images": 1, "questions": tally.rows, "rows": 2 * tally.rows, "differing": comparison.differing}
    record: dict[str, Any] = {"counts": counts, "seconds": 1.0, "output": "out", **figures}
    return as_text(record, comparison.differences())


def asked(answer: str | None, *boxes: list[float]) -> dict[str, Any]:
    return row(answer, *boxes) | {"question": "How many?"}


def line_of(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_engines_and_pairs_have_a_line_each_with_what_is_known_of_them() -> None:
    comparison = Comparison(("native", "openai"))
    comparison.add({"native": asked("2", LEFT), "openai": asked("3", RIGHT)}, "2", [LEFT])
    comparison.add({"native": asked("2"), "openai": asked(None)}, None, None)
    comparison.tallies["native"].took(2.0, 1_000_000, 1, False)
    comparison.tallies["openai"].took(4.0, 2_000_000, 1, True)
    text = shown(comparison, {"openai": Price(per_hour=3.6)})
    assert text.startswith("1 images, 2 questions, 2 engines: 4 rows in 1.0 s\n")
    first, second = line_of(text, "A  native"), line_of(text, "B  openai")
    assert " ".join(first) == "A native 2 100.0 1.000 0.0 100 10.0 1,000,000 1.0"
    assert " ".join(second) == "B openai 1 0.0 0.000 0.0 100 10.0 ~2,000,000 0.2 4.0000"
    assert line_of(text, "A B") == ["A", "B", "1", "0.0", "0.000"]
    assert "errors of B: generate/kv_budget 1" in text and "errors of A" not in text
    assert "differ on 2 questions" in text and "(~: computed" in text
    assert " ".join(line_of(text, "     2.00")) == "2.00 a How many? 2 2 [0 0 10 10] 3 [50 0 60 10]"
    assert "(generate/kv_budget)" in text


def test_columns_that_nobody_has_anything_in_are_left_out() -> None:
    comparison = Comparison(("native", "openai"))
    comparison.add({"native": asked("2"), "openai": asked("2")}, None, None)
    text = shown(comparison)
    titles = line_of(text, "   engine")
    assert titles == ["engine", "answered", "tokens", "in", "out"] and "gold %" not in text
    assert "no question on which they differ" in text and "~" not in text


def test_what_a_model_says_cannot_steer_the_terminal_and_is_cut() -> None:
    comparison = Comparison(("native", "openai"))
    comparison.add({"native": asked("\x1b[2J" + "long " * 40), "openai": asked("2")}, None, None)
    text = shown(comparison)
    assert "\x1b" not in text and "\\x1b" in text and "…" in text and "long " * 20 not in text
