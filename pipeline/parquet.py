"""Parquet catalogs: which columns hold what, and reading them a row group at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import boto3
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import S3FileSystem

from . import store
from .rows import GOLD_BOXES, IMAGE_ROWS, questions_of

_ROWS_PER_BATCH = 32  # with image bytes, of up to max_image_bytes each
# A row group is read by several tasks, so that it feeds several actors. Each must pass over the rows before its own:
# cheap for addresses, some copying for bytes on a disk; bytes from S3 would be fetched as often, so they are not split.
_SLICES_OF_ADDRESSES, _SLICES_OF_BYTES = 256, 8
_ROWS_PER_SLICE = 32  # at least
_IDS_PER_BATCH = 65_536
_IMAGE_COLUMNS = ("image", "image_uri", "uri", "url", "path")


@dataclass(frozen=True)
class Columns:
    """What the settings say about columns. `questions`, when given, are asked instead of the file's."""

    id: str
    image: str | None
    questions: tuple[str, ...]


class Layout(NamedTuple):
    """Where a file keeps things: names of columns, None where it has no such column."""

    id: str
    image: str | None  # bytes, or {bytes, path}
    uri: str | None
    questions: str | None  # text or list of texts
    gold_answers: str | None
    gold_boxes: str | None
    primitives: str | None  # text or list of texts


@dataclass(frozen=True)
class ParquetUnit:
    """Some rows of one row group."""

    file: str
    row_group: int
    start: int
    num_rows: int
    layout: Layout
    questions: tuple[str, ...]

    def limited(self, num_rows: int) -> ParquetUnit:
        return replace(self, num_rows=num_rows)

    def ids(self) -> Iterator[list[str | None]]:
        for batch in self._batches([self.layout.id], _IDS_PER_BATCH):
            yield batch.column(0).cast(pa.string()).to_pylist()

    def question_lists(self) -> Iterator[list[list[str | None]]]:
        if self.layout.questions is None:
            yield [questions_of(self.questions)] * self.num_rows
            return
        for batch in self._batches([self.layout.questions], _IDS_PER_BATCH):
            yield [questions_of(cell) for cell in _as_lists(batch.column(0)).to_pylist()]

    def mode_lists(self) -> Iterator[list[list[str | None] | None]]:
        if self.layout.primitives is not None:
            for batch in self._batches([self.layout.primitives], _IDS_PER_BATCH):
                yield _as_lists(batch.column(0)).to_pylist()

    def read(self) -> Iterator[pa.Table]:
        """IMAGE_ROWS, some rows at a time."""
        began = time.perf_counter()
        for batch in self._batches([name for name in dict.fromkeys(self.layout) if name], _ROWS_PER_BATCH):
            yield self._image_rows(batch, (time.perf_counter() - began) / batch.num_rows)
            began = time.perf_counter()

    def _image_rows(self, batch: pa.RecordBatch, seconds_per_row: float) -> pa.Table:
        layout, rows = self.layout, batch.num_rows
        cells: dict[str, Any] = {"image_id": batch.column(layout.id).cast(pa.string())}
        image = batch.column(layout.image) if layout.image else pa.nulls(rows)
        uri = batch.column(layout.uri).cast(pa.string()) if layout.uri else pa.nulls(rows, pa.string())
        if pa.types.is_struct(image.type):
            paths = [index for index, field in enumerate(image.type) if field.name == "path"]
            if paths:
                uri = pc.coalesce(uri, pc.struct_field(image, paths[0]).cast(pa.string()))
            image = pc.struct_field(image, "bytes")
        cells["image"] = image
        cells["image_uri"] = uri
        asked = [list(self.questions)] * rows if layout.questions is None else _as_lists(batch.column(layout.questions))
        cells["questions"] = asked
        cells["primitives"] = _as_lists(batch.column(layout.primitives)) if layout.primitives else pa.nulls(rows)
        cells["gold_answers"] = batch.column(layout.gold_answers) if layout.gold_answers else pa.nulls(rows)
        cells["gold_boxes"] = batch.column(layout.gold_boxes) if layout.gold_boxes else pa.nulls(rows)
        cells["read_seconds"] = [seconds_per_row] * rows
        columns = [
            cells[field.name].cast(field.type)
            if isinstance(cells[field.name], pa.Array)
            else pa.array(cells[field.name], field.type)
            for field in IMAGE_ROWS
        ]
        return pa.Table.from_arrays(columns, schema=IMAGE_ROWS)

    def _batches(self, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        position, end = 0, self.start + self.num_rows
        with _open(self.file) as file:
            for batch in file.iter_batches(batch_size, [self.row_group], columns):
                wanted = batch.slice(max(self.start - position, 0), end - max(position, self.start))
                if wanted.num_rows:
                    yield wanted
                position += batch.num_rows
                if position >= end:
                    return


def parquet_units(file: str, columns: Columns) -> Iterator[ParquetUnit]:
    """The rows of a file, in slices. ValueError when it is no Parquet file or lacks a column that is needed."""
    with _open(file) as parquet:
        layout = _layout(file, parquet.schema_arrow, columns)
        slices = _SLICES_OF_ADDRESSES if layout.image is None else 1 if store.is_s3(file) else _SLICES_OF_BYTES
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            step = max(_ROWS_PER_SLICE, -(-rows // slices))
            for start in range(0, rows, step):
                yield ParquetUnit(file, group, start, min(step, rows - start), layout, columns.questions)


def _open(file: str) -> pq.ParquetFile:
    try:
        if store.is_s3(file):
            return pq.ParquetFile(file.removeprefix(store.S3), filesystem=_s3_filesystem())
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"can't read {file} as Parquet: {error}") from None


def _s3_filesystem() -> Any:
    """Arrow's S3 with the credentials, region and endpoint that boto3 found, so that both see the same store."""
    client, credentials = store.s3_client(), boto3.Session().get_credentials()
    known: dict[str, Any] = {"anonymous": True}
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        known = {"access_key": frozen.access_key, "secret_key": frozen.secret_key, "session_token": frozen.token}
    if client.meta.region_name and client.meta.region_name != "aws-global":
        known["region"] = client.meta.region_name
    scheme, _, host = client.meta.endpoint_url.partition("://")
    if not host.endswith(".amazonaws.com"):
        known |= {"endpoint_override": host, "scheme": scheme}
    return S3FileSystem(**known)


def _layout(file: str, schema: pa.Schema, columns: Columns) -> Layout:
    def refuse(problem: str) -> ValueError:
        return ValueError(f"{file}: {problem}; it has {', '.join(f'{f.name} ({f.type})' for f in schema)}")

    def present(name: str) -> str | None:
        return name if name in schema.names else None

    if columns.id not in schema.names:
        raise refuse(f"no column {columns.id!r} with the images' ids (--id-column names another)")
    image = columns.image or next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    if image is None or image not in schema.names:
        raise refuse(f"no column {image or ' or '.join(_IMAGE_COLUMNS)!r} with images (--image-column names another)")
    uri = None if image == "image_uri" else present("image_uri")
    if _is_text(schema.field(image).type):
        image, uri = None, image
    elif not _is_bytes(schema.field(image).type):
        raise refuse(f"column {image!r} must hold bytes, {{bytes, path}} or URIs, not {schema.field(image).type}")
    questions = None if columns.questions else present("questions") or present("question")
    if questions and not _is_text(_item(schema.field(questions).type)):
        raise refuse(f"column {questions!r} must hold texts or lists of texts")
    # Modes and gold belong to the file's own questions.
    modes = present("primitives") if questions else None
    if modes and not _is_text(_item(schema.field(modes).type)):
        raise refuse("column 'primitives' must hold on, off or auto, or lists of these")
    gold_answers = present("gold_answers") if questions else None
    gold_boxes = present("gold_boxes") if questions else None
    for name, wanted in ((gold_answers, pa.list_(pa.string())), (gold_boxes, GOLD_BOXES)):
        if name and not _castable(schema.field(name).type, wanted):
            raise refuse(f"column {name!r} must be {wanted}")
    return Layout(columns.id, image, uri, questions, gold_answers, gold_boxes, modes)


def _castable(type_: pa.DataType, wanted: pa.DataType) -> bool:
    try:
        pa.nulls(1, type_).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _is_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in type_)
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_)


def _is_text(type_: pa.DataType) -> bool:
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _item(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_list(type_) or pa.types.is_large_list(type_) else type_


def _as_lists(column: pa.Array) -> pa.Array:
    """A column of texts as a column of lists of one text; a column of lists as it is."""
    if not _is_text(column.type):
        return column.cast(pa.list_(pa.string()))
    return pa.array([None if text is None else [text] for text in column.to_pylist()], pa.list_(pa.string()))
