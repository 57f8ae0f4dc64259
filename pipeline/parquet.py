"""Parquet catalogs: which columns hold what, and reading them a row group at a time."""

from __future__ import annotations

import hashlib
import json
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
from .keys import Asked
from .rows import GOLD_BOXES, IMAGE_ROWS, questions_of

_ROWS_PER_BATCH = 32  # with image bytes, of up to max_image_bytes each
# A row group is read by several tasks, so that it feeds several actors. Each must pass over the rows before its own:
# cheap for addresses, some copying for bytes on a disk; bytes from S3 would be fetched as often, so they are not split.
_SLICES_OF_ADDRESSES, _SLICES_OF_BYTES = 256, 8
_ROWS_PER_SLICE = 32  # at least
_IDS_PER_BATCH = 65_536
ID_COLUMN = "image_id"
_IMAGE_COLUMNS = ("image", "image_uri", "uri", "url", "path")


@dataclass(frozen=True)
class Columns:
    """What the settings say about columns. `questions`, when given, are asked instead of the file's.

    No `id`: the usual column, or content ids in a file without one. `gold`: a column of right answers, in place of the
    usual one.
    """

    id: str | None
    image: str | None
    questions: tuple[str, ...]
    gold: str | None = None


class Layout(NamedTuple):
    """Where a file keeps things: names of columns, None where it has no such column."""

    id: str | None  # None: an image's id is a hash of what it is and what is asked of it
    image: str | None  # bytes, or {bytes, path}
    uri: str | None
    questions: str | None  # text or list of texts
    gold_answers: str | None
    gold_boxes: str | None
    primitives: str | None  # text or list of texts
    path: str | None  # `IMAGE.path`, where the image is {bytes, path}


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

    def with_next(self, other: Any) -> ParquetUnit | None:
        """Both, where they are neighbours in a row group: each alone would pass over all rows before its own."""
        if (other.file, other.row_group, other.start) != (self.file, self.row_group, self.start + self.num_rows):
            return None
        return replace(self, num_rows=self.num_rows + other.num_rows)

    def asked(self) -> Iterator[list[Asked]]:
        """Row by row, without the images; with them where only they can tell the rows apart."""
        layout = self.layout
        columns = [layout.id, layout.uri, layout.questions, layout.primitives]
        if layout.id is None:
            columns.append(layout.image)
        elif layout.path:
            columns.append(layout.path)
        wanted = [name for name in dict.fromkeys(columns) if name]
        for batch in self._batches(wanted, _ROWS_PER_BATCH if layout.id is None and layout.image else _IDS_PER_BATCH):
            addresses = self._addresses(batch).to_pylist()
            questions = [questions_of(cell) for cell in self._questions(batch)]
            modes = _as_lists(batch.column(layout.primitives)).to_pylist() if layout.primitives else [None] * len(batch)
            ids = self._ids(batch).to_pylist()
            yield [Asked(*cells) for cells in zip(ids, addresses, questions, modes, strict=True)]

    def read(self) -> Iterator[pa.Table]:
        """IMAGE_ROWS, some rows at a time."""
        began = time.perf_counter()
        for batch in self._batches([name for name in dict.fromkeys(self.layout[:-1]) if name], _ROWS_PER_BATCH):
            yield self._image_rows(batch, (time.perf_counter() - began) / batch.num_rows)
            began = time.perf_counter()

    def _image_rows(self, batch: pa.RecordBatch, seconds_per_row: float) -> pa.Table:
        layout, rows = self.layout, batch.num_rows
        cells: dict[str, Any] = {"image_id": self._ids(batch), "image_uri": self._addresses(batch)}
        cells["image"] = _bytes_of(batch.column(layout.image)) if layout.image else pa.nulls(rows)
        cells["questions"] = self._questions(batch)
        cells["primitives"] = _as_lists(batch.column(layout.primitives)) if layout.primitives else pa.nulls(rows)
        cells["gold_answers"] = _gold(batch.column(layout.gold_answers)) if layout.gold_answers else pa.nulls(rows)
        cells["gold_boxes"] = batch.column(layout.gold_boxes) if layout.gold_boxes else pa.nulls(rows)
        cells["read_seconds"] = [seconds_per_row] * rows
        cells |= {name: pa.nulls(rows) for name in ("question_ids", "row_keys")}  # see `reading`
        columns = [
            cells[field.name].cast(field.type)
            if isinstance(cells[field.name], pa.Array)
            else pa.array(cells[field.name], field.type)
            for field in IMAGE_ROWS
        ]
        return pa.Table.from_arrays(columns, schema=IMAGE_ROWS)

    def _ids(self, batch: pa.RecordBatch) -> pa.Array:
        if self.layout.id is not None:
            return batch.column(self.layout.id).cast(pa.string())
        images = _bytes_of(batch.column(self.layout.image)) if self.layout.image else pa.nulls(batch.num_rows)
        cells = zip(images, self._addresses(batch).to_pylist(), self._questions(batch), strict=True)
        return pa.array([_content_id(image.as_buffer() if image.is_valid else None, *rest) for image, *rest in cells])

    def _addresses(self, batch: pa.RecordBatch) -> pa.Array:
        """The column of addresses, and for rows without one the path that stands beside the bytes."""
        layout, rows = self.layout, batch.num_rows
        uri = batch.column(layout.uri).cast(pa.string()) if layout.uri else pa.nulls(rows, pa.string())
        if layout.path and layout.image in batch.schema.names:
            uri = pc.coalesce(uri, pc.struct_field(batch.column(layout.image), "path").cast(pa.string()))
        return uri

    def _questions(self, batch: pa.RecordBatch) -> list[list[str | None] | None]:
        if self.layout.questions is None:
            return [list(self.questions)] * batch.num_rows
        return _as_lists(batch.column(self.layout.questions)).to_pylist()

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

    id_ = columns.id or present(ID_COLUMN)
    if id_ is not None and id_ not in schema.names:
        raise refuse(f"no column {id_!r} with the images' ids (--id-column names another; without it, ids of content)")
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
    gold_answers = columns.gold or (present("gold_answers") if questions else None)
    gold_boxes = present("gold_boxes") if questions else None
    if gold_answers and gold_answers not in schema.names:
        raise refuse(f"no column {gold_answers!r} with gold answers")
    one_each = (
        gold_answers and columns.gold and _item(schema.field(gold_answers).type) == schema.field(gold_answers).type
    )
    texts = pa.string() if one_each else pa.list_(pa.string())
    for name, wanted in ((gold_answers, texts), (gold_boxes, GOLD_BOXES)):
        kind = schema.field(name).type if name else None
        if kind and (_is_bytes(kind) or not _castable(kind, wanted)):
            raise refuse(f"column {name!r} must be {wanted}")
    kind = schema.field(image).type if image else None
    path = f"{image}.path" if kind and pa.types.is_struct(kind) and any(f.name == "path" for f in kind) else None
    return Layout(id_, image, uri, questions, gold_answers, gold_boxes, modes, path)


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


def _bytes_of(column: pa.Array) -> pa.Array:
    """The column of a {bytes, path} that holds the bytes; a column of bytes as it is."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _content_id(image: Any, address: str | None, questions: list[str | None] | None) -> str | None:
    """`sha-` and 24 digits of a hash over an image (its bytes; without any, its address) and its questions."""
    if image is None and not address:
        return None
    digest = hashlib.sha256(address.encode() if image is None and address else image)
    digest.update(json.dumps(questions).encode())
    return f"sha-{digest.hexdigest()[:24]}"


def _gold(column: pa.Array) -> pa.Array:
    """Gold answers as lists of texts; a single value is that of the first question."""
    single = _item(column.type) == column.type
    return _as_lists(column.cast(pa.string()) if single else column)


def _as_lists(column: pa.Array) -> pa.Array:
    """A column of texts as a column of lists of one text; a column of lists as it is."""
    if not _is_text(column.type):
        return column.cast(pa.list_(pa.string()))
    return pa.array([None if text is None else [text] for text in column.to_pylist()], pa.list_(pa.string()))
