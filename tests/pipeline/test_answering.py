"""The actor, called as Ray Data calls it, around a real engine: every question of every image gets its row."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.exceptions import RayActorError

from model.sampling import GREEDY
from pipeline.answering import Answerer
from pipeline.collector import Collector
from pipeline.engines.makers import ENGINES, Maker, Plan
from pipeline.images import Limits, fetch_and_check
from pipeline.rows import IMAGE_ROWS
from pipeline.tally import TRACED_ANSWERS
from tests.pipeline.noop import DEADLY, Deadly
from tests.pipeline.pictures import broken_pictures, encoded, picture


def plan(checkpoint: Path, kv_budget_mb: int | None = 8) -> Plan:
    decoding = (10**6, 10**6, 20.0)
    held = "auto", "auto", kv_budget_mb, 0.6, 6
    return Plan("run-1", str(checkpoint), "cpu", *held, "auto", GREEDY, 5, 600.0, 1, decoding)


def images(*rows: dict[str, Any]) -> pa.Table:
    full = [{"image_id": str(n), "questions": ["Where?"], "read_seconds": 0.5, **row} for n, row in enumerate(rows)]
    return fetch_and_check(pa.Table.from_pylist(full, schema=IMAGE_ROWS), Limits("nowhere", 10**6, 10**6))


@pytest.fixture(scope="module")
def collector(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = str(tmp_path_factory.mktemp("out"))
    return ray.remote(num_cpus=0)(Collector).remote(output, 1)


@pytest.fixture(scope="module")
def answerer(collector: Any, tiny_checkpoint: Path) -> Iterator[Answerer]:
    yield (made := Answerer(plan(tiny_checkpoint), ENGINES["native"], collector))
    made._engine.close()


def answered(answerer: Answerer, *tables: pa.Table) -> list[list[dict[str, Any]]]:
    async def all_at_once() -> list[pa.Table]:
        return await asyncio.gather(*(answerer(table) for table in tables))

    got = asyncio.run(all_at_once())
    assert all(table.schema.equals(TRACED_ANSWERS) for table in got)
    return [table.to_pylist() for table in got]


def test_each_question_of_an_image_gets_its_row_in_order(answerer: Answerer) -> None:
    (rows,) = answered(answerer, images({"image": encoded(picture()), "questions": ["Where?", None, "How many?"]}))
    assert [(row["question_id"], row["question"], row["status"]) for row in rows] == [
        ("0", "Where?", "ok"), ("1", None, "error"), ("2", "How many?", "ok"),
    ]  # fmt: skip
    assert rows[1]["error"]["kind"] == "no_question"
    assert [row["usage"]["shared_prefill"] for row in (rows[0], rows[2])] == [False, True]
    assert [row["trace"]["read_seconds"] for row in rows] == [0.5, None, None]


def test_batches_in_flight_together_keep_their_own_rows(answerer: Answerer, collector: Any) -> None:
    tables = [
        images(*({"image": encoded(picture(60 + n, 40 + t)), "image_id": f"{t}-{n}"} for n in range(4)))
        for t in range(3)
    ]
    batches = answered(answerer, *tables)
    assert [[row["image_id"] for row in rows] for rows in batches] == [[f"{t}-{n}" for n in range(4)] for t in range(3)]
    assert [[row["image_width"] for row in rows] for rows in batches] == [[60, 61, 62, 63]] * 3
    assert ray.get(collector.progress.remote())["answers"] >= 12
    (engine,) = ray.get(collector.engines.remote())
    assert engine["requests"] >= 12 and engine["images_in_flight_peak"] <= 5  # as planned
    assert engine["kv_peak_bytes"] <= engine["kv_budget_bytes"] == 8_000_000


def test_an_image_that_breaks_on_decoding_costs_its_own_rows_only(answerer: Answerer) -> None:
    cut = broken_pictures()["cut.jpg"][0]
    (rows,) = answered(answerer, images({"image": encoded(picture())}, {"image": cut, "questions": ["a?", "b?"]}, {}))
    assert [row["status"] for row in rows] == ["ok", "error", "error", "error"]
    assert [(row["error"]["stage"], row["error"]["kind"]) for row in rows[1:]] == [
        ("decode", "truncated"), ("decode", "truncated"), ("fetch", "no_image"),
    ]  # fmt: skip


def test_equal_bytes_and_questions_are_asked_once_and_fanned_out(answerer: Answerer, collector: Any) -> None:
    same, other = encoded(picture(70, 50)), encoded(picture(71, 50))
    before = answerer._engine.stats().requests
    first, second = answered(
        answerer,
        images({"image": same}, {"image": other}, {"image": same, "questions": ["Where?", "How many?"]}),
        images({"image": same}),
    )
    assert answerer._engine.stats().requests - before == 3  # `same` once for each question, `other` once
    assert [row["status"] for row in (*first, *second)] == ["ok"] * 5
    shared = [row for row in (first[0], first[2], second[0])]
    assert sum(row["usage"]["shared_answer"] for row in shared) == 2
    assert len({(row["answer"], row["confidence"]) for row in shared}) == 1
    assert [row["image_id"] for row in (*first, *second)] == ["0", "1", "2", "2", "0"]


def test_gold_is_scored_for_answers_and_errors_alike(answerer: Answerer) -> None:
    gold = {"gold_answers": ["no such answer"], "gold_boxes": [[[0.0, 0.0, 5.0, 5.0]]]}
    (rows,) = answered(answerer, images({"image": encoded(picture()), **gold}, gold))
    assert [row["trace"]["gold_exact"] for row in rows] == [False, False]
    assert rows[1]["trace"]["gold_iou"] == 0


def test_a_request_that_can_never_fit_the_budget_is_an_error_row(answerer: Answerer) -> None:
    (rows,) = answered(answerer, images({"image": encoded(picture()), "questions": ["word " * 5000]}))
    assert (rows[0]["status"], rows[0]["error"]["stage"]) == ("error", "prepare")


class Lonely:
    """An actor around an Answerer, as Ray Data would make it."""

    def __init__(self, maker: Maker, collector: Any, image_seconds: float = 600.0) -> None:
        self._answerer = Answerer(replace(plan(Path("x")), image_seconds=image_seconds), maker, collector)

    def answer(self, table: pa.Table) -> list[dict[str, Any]]:
        return asyncio.run(self._answerer(table)).to_pylist()


def lonely(maker: Maker, collector: Any, image_seconds: float = 600.0) -> Any:
    made: Any = ray.remote(num_cpus=0)(Lonely)
    return made.remote(maker, collector, image_seconds)


@pytest.mark.parametrize(
    ("maker", "seconds", "kind", "said"),
    [
        pytest.param(
            Deadly("dies"), 600.0, "killed_worker", "the engine stopped: it was told to", marks=pytest.mark.slow
        ),
        pytest.param(Deadly("hangs"), 0.3, "hung", r"no answer within 0\.3 s", marks=pytest.mark.slow),
        (Deadly("exits"), 600.0, "killed_worker", "died 2 times"),
    ],
)
def test_an_image_that_kills_its_process_is_found_and_its_neighbours_are_answered(
    maker: Maker, seconds: float, kind: str, said: str, local_ray: None, tmp_path: Path
) -> None:
    collector: Any = ray.remote(num_cpus=0)(Collector).remote(str(tmp_path), 1)
    table = images({"image": encoded(picture())}, {"image": encoded(DEADLY)}, {"image": encoded(picture())})
    for _ in range(3):  # together, then alone, then alone
        with pytest.raises(RayActorError):
            ray.get(lonely(maker, collector, seconds).answer.remote(table))
    rows = ray.get(lonely(maker, collector, seconds).answer.remote(table))
    assert [row["status"] for row in rows] == ["ok", "error", "ok"]
    error = rows[1]["error"]
    assert (error["stage"], error["kind"], error["attempts"]) == ("generate", kind, 4)
    assert re.search(said, error["message"])
    assert ray.get(collector.deaths.remote()) == 3


def test_a_row_that_no_table_can_hold_or_no_parser_reads_is_an_error_of_its_own(
    local_ray: None, tmp_path: Path
) -> None:
    collector: Any = ray.remote(num_cpus=0)(Collector).remote(str(tmp_path), 1)
    questions = ["Half a surrogate?", "No text?", "Where?"]
    actor = lonely(Deadly("babbles"), collector)
    rows = ray.get(actor.answer.remote(images({"image": encoded(picture()), "questions": questions})))
    assert [(row["question_id"], row["status"], row["error"] and row["error"]["stage"]) for row in rows] == [
        ("0", "error", "write"), ("1", "error", "parse"), ("2", "ok", None),
    ]  # fmt: skip


def test_the_mode_of_a_question_wins_over_the_jobs_and_its_reason_is_in_the_row(answerer: Answerer) -> None:
    asked = ["describe it.", "How many?", None, "describe it."]
    own, one, none = answered(
        answerer,
        images({"image": encoded(picture()), "questions": asked, "primitives": ["on", "off", None, None]}),
        images({"image": encoded(picture()), "questions": asked, "primitives": ["on"]}),
        images({"image": encoded(picture()), "questions": asked}),
    )

    def pointing(rows: list[dict[str, Any]]) -> list[bool | None]:
        return [row["usage"] and row["usage"]["pointing"] for row in rows]

    assert pointing(own) == [True, False, None, False]
    assert pointing(one) == [True, True, None, True]
    assert pointing(none) == [False, True, None, False]
    reasons = [row["usage"]["pointing_reason"] for row in (own[0], own[3], none[1])]
    assert reasons == ["as asked", "asks about the whole image", "asks to count"]
