"""The actor, called as Ray Data calls it, around a real engine: every question of every image gets its row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.exceptions import RayActorError

from model.sampling import GREEDY
from pipeline.answering import Answerer, ByteGate
from pipeline.collector import DEATHS_ALLOWED, Collector
from pipeline.engines import ENGINES, Plan, kv_budget_bytes
from pipeline.images import Limits, fetch_and_check
from pipeline.rows import IMAGE_ROWS
from pipeline.tally import TRACED_ANSWERS
from tests.pipeline.pictures import broken_pictures, encoded, picture


def plan(checkpoint: Path, kv_budget_mb: int | None = 8) -> Plan:
    return Plan("run-1", str(checkpoint), "cpu", "auto", kv_budget_mb, 0.6, 6, "auto", GREEDY, 5, 1)


def images(*rows: dict[str, Any]) -> pa.Table:
    full = [{"image_id": str(n), "questions": ["Where?"], "read_seconds": 0.5, **row} for n, row in enumerate(rows)]
    return fetch_and_check(pa.Table.from_pylist(full, schema=IMAGE_ROWS), Limits("nowhere", 10**6, 10**6))


@pytest.fixture(scope="module")
def collector(local_ray: None) -> Any:
    return ray.remote(num_cpus=0)(Collector).remote()


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
        images(*({"image": encoded(picture(60 + n, 40)), "image_id": f"{t}-{n}"} for n in range(4))) for t in range(3)
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


def test_gold_is_scored_for_answers_and_errors_alike(answerer: Answerer) -> None:
    gold = {"gold_answers": ["no such answer"], "gold_boxes": [[[0.0, 0.0, 5.0, 5.0]]]}
    (rows,) = answered(answerer, images({"image": encoded(picture()), **gold}, gold))
    assert [row["trace"]["gold_exact"] for row in rows] == [False, False]
    assert rows[1]["trace"]["gold_iou"] == 0


def test_a_request_that_can_never_fit_the_budget_is_an_error_row(answerer: Answerer) -> None:
    (rows,) = answered(answerer, images({"image": encoded(picture()), "questions": ["word " * 5000]}))
    assert (rows[0]["status"], rows[0]["error"]["stage"]) == ("error", "generate")


def test_a_dead_engine_ends_its_process_until_too_many_have_died(local_ray: None, tiny_checkpoint: Path) -> None:
    collector: Any = ray.remote(num_cpus=0)(Collector).remote()

    class Worker:
        def answer_with_a_dead_engine(self) -> None:
            answerer = Answerer(plan(tiny_checkpoint), ENGINES["native"], collector)
            answerer._engine.close()
            asyncio.run(answerer(images({"image": encoded(picture())})))

    remote_worker: Any = ray.remote(num_cpus=0)(Worker)
    with pytest.raises(RayActorError):
        ray.get(remote_worker.remote().answer_with_a_dead_engine.remote())
    for death in range(2, DEATHS_ALLOWED + 1):
        assert ray.get(collector.report_death.remote("another")) == death
    with pytest.raises(RuntimeError, match="4 engines have died, the last one with: the engine"):
        ray.get(remote_worker.remote().answer_with_a_dead_engine.remote())


def test_the_gate_holds_back_what_is_too_much_and_lets_the_huge_through_alone() -> None:
    async def run() -> list[str]:
        gate, events = ByteGate(10), []

        async def work(name: str, size: int) -> None:
            async with gate.holding(size):
                events.append(f"+{name}")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                events.append(f"-{name}")

        await asyncio.gather(work("a", 6), work("b", 4), work("huge", 1000))
        return events

    events = asyncio.run(run())
    assert set(events[:2]) == {"+a", "+b"} and events[-2:] == ["+huge", "-huge"]


def test_the_budget_is_what_was_set_or_small_on_a_cpu() -> None:
    assert kv_budget_bytes(plan(Path("x"), kv_budget_mb=3)) == 3_000_000
    assert kv_budget_bytes(plan(Path("x"), kv_budget_mb=None)) == 64_000_000


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
