"""The catalog as a Ray Data source: one reading task for each of its units."""

from __future__ import annotations

from typing import Any

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from .catalog import Catalog
from .rows import IMAGE_ROWS


class CatalogSource(Datasource):
    """Image rows of a catalog. As a source of its own, not an in-memory one, its rows can be tracked by id."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self._catalog = catalog

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                unit.read,
                BlockMetadata(num_rows=unit.num_rows, size_bytes=None, input_files=None, exec_stats=None),
                schema=IMAGE_ROWS,
                per_task_row_limit=per_task_row_limit,
            )
            for unit in self._catalog.units
            if unit.num_rows
        ]
