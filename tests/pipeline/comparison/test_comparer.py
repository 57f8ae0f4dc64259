"""The actor of a comparison, called as Ray Data calls it: every engine's row for every question, whatever happens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.primitives import format_boxes
from pipeline.comparison.comparer import COMPARED, Candidate, Comparer, batches
from pipeline.engines.frames import FRAMES
from pipeline.engines.makers import Maker
from pipeline.engines.views import SentView
from pipeline.footprint.backbones import peer_of
from pipeline.images import Limits, fetch_and_check
from pipeline.rows import IMAGE_ROWS
from tests.pipeline.noop import Scripted
from tests.pipeline.pictures import broken_pictures, encoded, picture
from tests.pipeline.test_answering import plan

TWO, THREE = Scripted("</think>2", 1000), Scripted(f"{format_boxes('it', [(0, 0, 499, 999)])}</think>3", 3000)


def images(*rows: dict[str, Any]) -> pa.Table:
    full = [{"image_id": str(n), "image": encoded(picture()), "questions": ["a?"], **row} for n, row in enumerate(rows)]
    return fetch_and_check(pa.Table.from_pylist(full, schema=IMAGE_ROWS), Limits("nowhere", 10**6, 10**6))


def comparer(*makers: Maker, pictures: bool = False, image_seconds: float = 600.0) -> Comparer:
    of_all = replace(plan(Path("x")), image_seconds=image_seconds)
    return Comparer([Candidate("AB"[n], of_all, maker) for n, maker in enumerate(makers)], pictures)


def compared(table: pa.Table, *makers: Maker, **options: Any) -> list[dict[str, Any]]:
    made = comparer(*makers, **options)(table)
    assert made.schema.equals(COMPARED)
    rows: list[dict[str, Any]] = made.to_pylist()
    assert set(Counter((row["image_id"], row["question_id"], row["engine"]) for row in rows).values()) == {1}
    return rows


def test_each_engine_answers_each_question_once_and_its_answers_stand_side_by_side() -> None:
    gold = {"gold_answers": ["3", None, "2"], "gold_boxes": [[[0.0, 0.0, 30.0, 40.0]]], "row_keys": ["x", "y", "z"]}
    rows = compared(images({"questions": ["a?", None, "b?"], **gold}, {}), TWO, THREE)
    told = [(row["image_id"], row["question_id"], row["engine"], row["answer"]) for row in rows]
    assert told == [
        ("0", "0", "A", "2"), ("0", "0", "B", "3"), ("0", "1", "A", None), ("0", "1", "B", None),
        ("0", "2", "A", "2"), ("0", "2", "B", "3"), ("1", "0", "A", "2"), ("1", "0", "B", "3"),
    ]  # fmt: skip
    assert {row["error"]["kind"] for row in rows[2:4]} == {"no_question"}
    assert [row["trace"]["gold_answer"] for row in rows] == ["3", "3", None, None, "2", "2", None, None]
    assert rows[1]["trace"]["gold_boxes"] == [[0, 0, 30, 40]] and rows[1]["primitives"][0]["label"] == "it"
    assert {row["row_key"] for row in rows} == {None}


def test_what_an_engine_took_adds_up_over_its_rows() -> None:
    rows = compared(images({"questions": ["a?", "b?"]}, {}, {"image": b"no picture"}), TWO, THREE)
    for engine, kv_bytes in (("A", 2000), ("B", 6000)):
        of_engine = [row["trace"] for row in rows if row["engine"] == engine]
        assert len(of_engine) == 4
        assert sum(trace["kv_bytes"] for trace in of_engine) == pytest.approx(kv_bytes)
        assert sum(trace["kv_images"] for trace in of_engine) == pytest.approx(2)  # one of the three can't be asked
        assert sum(trace["seconds"] for trace in of_engine) > 0
        assert not any(trace["kv_predicted"] for trace in of_engine)


def test_the_bytes_of_a_known_model_that_does_not_tell_are_computed() -> None:
    known = Scripted("2", model="Qwen/Qwen3-VL-8B-Instruct", look=SentView(FRAMES["qwen3-vl"], 10**6))
    rows = compared(images({"questions": ["a?", "b?"], "image": encoded(picture(640, 320))}), TWO, known)
    traces = [row["trace"] for row in rows if row["engine"] == "B"]
    peer = peer_of("Qwen3-VL-8B")
    assert peer is not None
    image_tokens = 640 * 320 // 32**2 + 2  # shared by the questions, of 500 tokens and 10 of the answer each
    due = (image_tokens + 2 * (500 - image_tokens + 10)) * peer.bytes_per_token
    assert sum(trace["kv_bytes"] for trace in traces) == due and all(trace["kv_predicted"] for trace in traces)
    assert not any(row["trace"]["kv_predicted"] for row in rows if row["engine"] == "A")


@pytest.mark.parametrize(
    ("fails", "stage", "kind", "asked"),
    [
        ("refuses", "prepare", "kv_budget", 1 + 6),
        ("breaks", "generate", "KeyError", 1 + 6),
        ("dies", "generate", "engine_dead", 1 + 1),
        ("hangs", "generate", "hung", 1 + 3),  # they were together in it
    ],
)
def test_what_one_engine_cannot_do_is_its_own_error(fails: str, stage: str, kind: str, asked: int) -> None:
    both = comparer(TWO, Scripted("3", fails=fails), image_seconds=0.3 if fails == "hangs" else 600.0)
    first, second = (both(images({}, {}, {})).to_pylist() for _ in range(2))
    assert [row["answer"] for row in (*first, *second) if row["engine"] == "A"] == ["2"] * 6
    errors = [row["error"] for row in (*first, *second) if row["engine"] == "B"]
    assert [(error["stage"], error["kind"]) for error in errors] == [(stage, kind)] * 6
    engine: Any = both._contenders[1]._engine
    assert len(engine.seen) == asked  # once to warm up; who is gone is not asked again


def test_an_image_that_nobody_can_see_is_every_engines_error() -> None:
    rows = compared(images({"image": broken_pictures()["cut.jpg"][0]}, {"image": None}, {}), TWO, THREE)
    kinds = [row["error"] and row["error"]["kind"] for row in rows]
    assert kinds == ["truncated", "truncated", "no_image", "no_image", None, None]


def test_each_engine_sees_the_image_on_its_own_canvas_and_on_a_common_one_it_is_decoded() -> None:
    sent = SentView(FRAMES["unit"], 5000)
    big = images({"image": encoded(picture(300, 200))})
    alike = comparer(Scripted("2", look=sent), Scripted("3", look=sent))
    apart = comparer(Scripted("2", look=sent), Scripted("3", look=SentView(FRAMES["unit"], 20_000)))
    for both in (alike, apart):
        both(big)
    assert alike._canvas((300, 200)) == sent.canvas((300, 200)) and apart._canvas((300, 200)) is None
    seen: list[Any] = [one._engine for both in (alike, apart) for one in both._contenders]
    assert [set(engine.seen) for engine in seen] == [{(86, 58)}, {(86, 58)}, {(86, 58)}, {(173, 115)}]


def test_pictures_come_along_where_answers_differ_and_they_are_wanted() -> None:
    table = images({"questions": ["a?", "b?"]})
    wanted, alike = compared(table, TWO, THREE, pictures=True), compared(table, TWO, TWO, pictures=True)
    assert [row["trace"]["picture"] is not None for row in wanted] == [True, False, True, False]
    assert all(row["trace"]["picture"] is None for row in alike)


@given(st.lists(st.integers(0, 12)))
def test_batches_hold_everything_in_order_and_no_more_than_fits(sizes: list[int]) -> None:
    made = list(batches(sizes, lambda size: size, 10))
    assert [size for batch in made for size in batch] == sizes
    assert all(sum(batch) <= 10 or len(batch) == 1 for batch in made)
