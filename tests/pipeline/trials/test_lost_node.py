"""A node of the cluster goes away during a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipeline.sources import PROJECT
from tests.pipeline.noop import Noop
from tests.pipeline.tables import answers, write_catalog
from tests.pipeline.trials.drivers import start

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without room for an engine, and two nodes with room for one each."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
    try:
        yield made
    finally:
        made.shutdown()


def test_a_node_that_is_removed_takes_no_row_along(cluster: Cluster, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=100_000_000) for _ in range(2)]
    catalog = write_catalog(tmp_path / "c.parquet", 200, ["Where is it?", "How many?"])
    driver = start(
        tmp_path / "r.json", Noop(seconds=1.0), catalog=str(catalog), output=str(tmp_path / "out"), actors=2,
        address=cluster.address, images_in_flight=8, rows_per_file=20, commit_seconds=0.5,
    )  # fmt: skip
    parts, deadline = tmp_path / "out" / "answers", time.monotonic() + 240
    while len(list(parts.glob("part-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    there = sum(1 for _ in parts.glob("part-*"))
    began = time.monotonic()
    cluster.remove_node(nodes[0], allow_graceful=False)
    cluster.add_node(num_cpus=2, object_store_memory=100_000_000)
    record = driver.finished()
    rows = answers(tmp_path / "out")
    assert len(rows) == record["counts"]["ok"] == 400
    print(f"\nnode removed when {there} of {record['counts']['files']} files were there;", end=" ")
    print(f"400 rows once, {time.monotonic() - began:.0f} s later; {record['engine_deaths']} deaths blamed on images")
    assert record["engine_deaths"] == 0, "images were suspected of what the node did"
