"""The sizes of a catalog's images, from their headers alone, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..catalog import Catalog
from ..decoding import ImageError
from ..images import Limits, header_of
from ..rows import questions_of

_THREADS = 16


class Kind(NamedTuple):
    """Images that cost the same: size in pixels after EXIF orientation, and questions."""

    width: int
    height: int
    questions: int


@dataclass
class Census:
    """How many images of each kind a catalog has, and why some could not be counted."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        return self.kinds.total()

    @property
    def answers(self) -> int:
        return sum(kind.questions * count for kind, count in self.kinds.items())


def take_census(catalog: Catalog, limits: Limits, questions: int | None) -> Census:
    """Count the images by size. `questions`: of each image; None: as many as the catalog asks, at least one."""
    census = Census()
    with ThreadPoolExecutor(_THREADS) as threads:
        for rows in _rows(catalog):
            for row, size in zip(rows, threads.map(lambda row: _size(row, limits), rows), strict=True):
                if isinstance(size, ImageError):
                    census.unreadable[size.kind] += 1
                else:
                    census.kinds[Kind(*size, questions or len(questions_of(row["questions"])))] += 1
    return census


def _rows(catalog: Catalog) -> Iterator[list[dict[str, Any]]]:
    for unit in catalog.units:
        for table in unit.read():
            yield table.select(["image_uri", "image", "questions"]).to_pylist()


def _size(row: dict[str, Any], limits: Limits) -> tuple[int, int] | ImageError:
    try:
        header = header_of(row["image_uri"], row["image"], limits)
    except ImageError as error:
        return error
    return header.width, header.height
