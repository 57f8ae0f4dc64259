"""Catalog in, image rows out: a Parquet file or folder of them, a folder of images, or an s3:// prefix of either.

`open_catalog` looks at names and schemas, `Catalog.check` at ids and questions; neither loads an image. The rows are
then read in units, each by its own task: some rows of a Parquet file, or a run of listed files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import pyarrow as pa

from model.pointing import PrimitivesMode

from . import store
from .keys import Asked, Conditions, among, row_keys, short
from .parquet import Columns, parquet_units
from .rows import IMAGE_ROWS, questions_of
from .settings import ImageSettings

_FILES_PER_UNIT = 32
_EXAMPLES = 3


class Unit(Protocol):
    """What one reading task reads. It travels to a worker, so it is small and picklable."""

    @property
    def num_rows(self) -> int: ...
    def limited(self, num_rows: int) -> Unit: ...
    def asked(self) -> Iterator[list[Asked]]: ...
    def with_next(self, other: Any) -> Unit | None: ...  # both as one, where that saves reading
    def read(self) -> Iterator[pa.Table]: ...  # IMAGE_ROWS


@dataclass(frozen=True)
class Catalog:
    """Where the rows are. `root`: where relative image names start, a folder or an s3:// prefix."""

    name: str
    root: str
    units: tuple[Unit, ...]

    @property
    def num_images(self) -> int:
        return sum(unit.num_rows for unit in self.units)

    def limited(self, num_images: int) -> Catalog:
        """The same catalog, ending after its first `num_images` rows."""
        units: list[Unit] = []
        for unit in self.units:
            if num_images <= 0:
                break
            units.append(unit.limited(min(num_images, unit.num_rows)))
            num_images -= unit.num_rows
        return replace(self, units=tuple(units))

    def asked(self) -> Iterator[Asked]:
        """What is asked, image by image, without the images."""
        return (row for unit in _joined(self.units) for batch in unit.asked() for row in batch)

    def keys(self, conditions: Conditions) -> np.ndarray:
        """[rows] uint64: the short keys of all answer rows to come, in order."""
        digest, wave = conditions.digest(), 65_536
        rows, found = self.asked(), [np.empty(0, np.uint64)]
        while batch := list(itertools.islice(rows, wave)):
            found.append(short(key for row in batch for key in row_keys(row, conditions, digest)))
        return np.concatenate(found)

    def named(self, places: Sequence[int]) -> list[str]:
        """What the answer rows at these places, in the order of `keys`, are about."""
        wanted, names, place = set(places), [], 0
        for row in self.asked():
            for index, question in enumerate(row.questions):
                if place in wanted:
                    names.append(f"question {index} of {row.image_id!r} ({question!r})")
                place += 1
            if len(names) == len(wanted):
                break
        return names

    def check(self) -> int:
        """Looks at every id and question and returns the number of answer rows to come.

        ValueError, with examples, when ids are missing or repeat, modes are unknown, or nobody asks anything.
        """
        _refuse_unfit_ids(self)
        modes: set[str | None] = set()
        num_asked = num_rows = 0
        for row in self.asked():
            modes.update(row.modes or ())
            num_rows += len(row.questions)
            num_asked += sum(question is not None for question in row.questions)
        if unknown := modes - {None, *get_args(PrimitivesMode)}:
            raise ValueError(f"{self.name}: primitives may be on, off or auto, got {_some(sorted(map(repr, unknown)))}")
        if self.num_images and not num_asked:
            raise ValueError(
                f"no questions for {self.name}: give --question, or a column `question` (text) or `questions` (list)"
            )
        return num_rows


def open_catalog(settings: ImageSettings, gold: str | None = None) -> Catalog:
    """The catalog that the settings name. `gold`: its column of right answers, if not the usual one. ValueError when
    there is none, or its columns don't fit."""
    source = settings.catalog.rstrip("/") if settings.catalog != "/" else "/"
    if (scheme := store.scheme(source)) not in ("", "s3"):
        raise ValueError(f"a catalog is a local path or an s3:// address, got {scheme}:// in {source}")
    source = source if scheme else str(Path(source).expanduser().absolute())
    files = _parquet_files(source)
    root = settings.image_root or (source.rpartition("/")[0] if files == [source] else source)
    if not store.is_s3(root):
        root = str(Path(root).expanduser().absolute())
    if files:
        columns = Columns(settings.id_column, settings.image_column, tuple(settings.question), gold)
        units: Iterable[Unit] = itertools.chain.from_iterable(parquet_units(file, columns) for file in files)
    else:
        if gold:
            raise ValueError(f"{source} is a folder of images: gold answers stand in a column of a Parquet catalog")
        names = list(store.list_under(source))
        units = (
            ListedUnit(source, tuple(names[start : start + _FILES_PER_UNIT]), tuple(settings.question))
            for start in range(0, len(names), _FILES_PER_UNIT)
        )
    catalog = Catalog(source, root, tuple(units))
    return catalog if settings.limit is None else catalog.limited(settings.limit)


def _parquet_files(source: str) -> list[str]:
    """The Parquet files that a catalog's address means; none when it is a folder or prefix of images."""
    if source.endswith(".parquet"):
        if not store.exists(source):
            raise ValueError(f"no catalog at {source}")
        return [source]
    if not store.is_s3(source):
        if not Path(source).exists():
            raise ValueError(f"no catalog at {source}: give a Parquet file, a folder or an s3:// prefix")
        if Path(source).is_file():
            raise ValueError(f"{source} is neither a Parquet file (.parquet) nor a folder of images")
        return [str(path) for path in sorted(Path(source).glob("*.parquet"))]
    names = [name for name in store.list_under(source) if name.endswith(".parquet") and "/" not in name]
    return [store.join(source, name) for name in names]


def _joined(units: Iterable[Unit]) -> Iterator[Unit]:
    held: Unit | None = None
    for unit in units:
        both = held.with_next(unit) if held is not None else unit
        if both is None and held is not None:
            yield held
        held = both or unit
    if held is not None:
        yield held


def _refuse_unfit_ids(catalog: Catalog) -> None:
    """Ids are compared by a 64-bit hash first, so that a million of them take 8 MB; then the suspects by value."""
    hashes = np.fromiter((hash(row.image_id) for row in catalog.asked()), dtype=np.int64)
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    suspects |= {blank for blank in (hash(None), hash("")) if among(np.array([blank]), hashes)[0]}
    if not suspects:
        return
    seen: dict[str, int] = {}
    repeated: list[str] = []
    blank: list[int] = []
    for row, (id_, *_) in enumerate(catalog.asked()):
        if hash(id_) not in suspects:
            continue
        if not id_:
            blank.append(row)
        elif id_ in seen:
            repeated.append(f"{id_!r} in rows {seen[id_]} and {row}")
        else:
            seen[id_] = row
    if blank:
        raise ValueError(f"{len(blank)} rows of {catalog.name} have no id, e.g. rows {_some(blank)}: all need one")
    if repeated:
        raise ValueError(f"{len(repeated)} ids of {catalog.name} repeat, e.g. {_some(repeated)}: ids must be unique")


def _some(examples: Sequence[Any]) -> str:
    return ", ".join(str(example) for example in examples[:_EXAMPLES])


@dataclass(frozen=True)
class ListedUnit:
    """A run of files below a folder or prefix; a file's relative path is its id."""

    root: str
    names: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        return len(self.names)

    def limited(self, num_rows: int) -> ListedUnit:
        return replace(self, names=self.names[:num_rows])

    def asked(self) -> Iterator[list[Asked]]:
        # The id says where it is: the catalog's folder may be moved.
        yield [Asked(name, None, questions_of(self.questions), None) for name in self.names]

    def with_next(self, other: Any) -> None:
        return None

    def read(self) -> Iterator[pa.Table]:
        rows = [
            {"image_id": name, "image_uri": f"{self.root.rstrip('/')}/{name}", "questions": list(self.questions)}
            for name in self.names
        ]
        yield pa.Table.from_pylist(rows, schema=IMAGE_ROWS)
