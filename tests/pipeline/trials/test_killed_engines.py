"""Engines die: by images that kill them, and by a hand from outside. Every row is answered or explained."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.makers import ENGINES
from pipeline.run import RunStopped
from tests.pipeline.noop import DEADLY, Deadly, Noop
from tests.pipeline.pictures import encoded, picture
from tests.pipeline.tables import answers, ran_noop, write_catalog
from tests.pipeline.trials.drivers import start
from tests.pipeline.trials.processes import alive, below, command, named

pytestmark = pytest.mark.slow

ANSWERER = "Answerer"
AT_WORK = "Answerer)).submit"  # what Ray calls it while it has images
KILLS = 10


def test_three_images_among_three_hundred_that_kill_the_engine_are_explained(
    local_ray: None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    deadly = {7, 150, 151}
    images = [encoded(DEADLY if n in deadly else picture(60 + n % 7, 40 + n // 7)) for n in range(300)]
    catalog = write_catalog(tmp_path / "c.parquet", 300, ["Where is it?"], image=images)
    began = time.monotonic()
    settings: dict[str, Any] = {"model": str(tiny_checkpoint), "max_output_tokens": 4, "images_in_flight": 32}
    record, _ = ran_noop(catalog, tmp_path / "out", Deadly("exits", ENGINES["native"]), **settings)
    rows = answers(tmp_path / "out")
    explained = {row["image_id"]: row["error"] for row in rows if row["status"] == "error"}
    assert len(rows) == 300 and set(explained) == {f"i{n}" for n in deadly}
    assert {(error["stage"], error["kind"]) for error in explained.values()} == {("generate", "killed_worker")}
    attempts = {name: error["attempts"] for name, error in explained.items()}
    print(f"\n297 answered, 3 explained; {record['engine_deaths']} deaths, attempts {attempts};", end=" ")
    print(f"{time.monotonic() - began:.0f} s")
    assert record["engine_deaths"] <= 3 * len(deadly)


def test_an_engine_killed_ten_times_from_outside_loses_no_row(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 200, ["Where is it?", "How many?"])
    driver = start(
        tmp_path / "result.json", Noop(seconds=0.4), catalog=str(catalog), output=str(tmp_path / "out"),
        images_in_flight=8, rows_per_file=20, commit_seconds=0.5,
    )  # fmt: skip
    moments, killed = random.Random(6), set[int]()
    began = time.monotonic()
    while len(killed) < KILLS and driver.process.is_alive() and time.monotonic() - began < 500:
        fresh = [pid for pid in named(driver.process.pid, AT_WORK) if pid not in killed]
        if not fresh:
            time.sleep(0.2)
            continue
        time.sleep(moments.uniform(0.2, 2.0))
        os.kill(fresh[0], signal.SIGKILL)
        killed.add(fresh[0])
    record = driver.finished()
    rows = answers(tmp_path / "out")
    print(f"\n{len(killed)} kills, {record['engine_deaths']} with images in flight;", end=" ")
    print(f"{Counter(row['status'] for row in rows)} in {time.monotonic() - began:.0f} s")
    assert len(killed) == KILLS and len(rows) == 400 and record["engine_deaths"] > KILLS // 2
    assert all(row["status"] == "ok" for row in rows), [row["error"] for row in rows if row["error"]][:3]


def test_engines_that_die_whatever_they_are_shown_end_the_run(local_ray: None, tmp_path: Path) -> None:
    images = [encoded(DEADLY)] * 40
    catalog = write_catalog(tmp_path / "c.parquet", 40, ["Where is it?"], image=images)
    began = time.monotonic()
    with pytest.raises(
        RunStopped, match=r"\d+ engines died in a row and nothing was answered.*the same command goes on"
    ):
        ran_noop(catalog, tmp_path / "out", Deadly("exits"), images_in_flight=40)
    print(f"\nstopped after {time.monotonic() - began:.0f} s")


def test_a_killed_driver_takes_its_own_ray_along(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 40, ["Where is it?"])
    driver = start(tmp_path / "r.json", Noop(seconds=0.5), catalog=str(catalog), output=str(tmp_path / "out"))
    deadline = time.monotonic() + 120
    while not named(driver.process.pid, ANSWERER) and time.monotonic() < deadline:
        time.sleep(0.2)
    family = {pid: command(pid) for pid in below(driver.process.pid)}
    assert len(family) > 3, "Ray's processes were not found"
    driver.process.kill()
    driver.process.join()
    deadline = time.monotonic() + 180  # Ray's own wait for each other for a minute and more
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {pid: called for pid, called in family.items() if alive(pid)} == {}
    print(f"\n{len(family)} processes of Ray ended with their driver")
