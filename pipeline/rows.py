"""The image row, as a table: what travels from the catalog to the engine."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

GOLD_BOXES = pa.list_(pa.list_(pa.list_(pa.float64())))  # for each question its boxes, each x1, y1, x2, y2 in pixels

IMAGE_ROWS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        ("image_uri", pa.string()),
        ("image", pa.large_binary()),  # encoded, never decoded pixels; null: to be fetched from image_uri
        ("questions", pa.list_(pa.string())),
        ("gold_answers", pa.list_(pa.string())),
        ("gold_boxes", GOLD_BOXES),
        ("read_seconds", pa.float64()),
    ]
)

ERROR = pa.struct([("stage", pa.string()), ("kind", pa.string()), ("message", pa.string()), ("attempts", pa.int32())])

# After images.py: the bytes are there and looked at, or the error says why not.
CHECKED_ROWS = pa.schema(
    [
        *IMAGE_ROWS,
        ("image_sha256", pa.string()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("notes", pa.list_(pa.string())),  # what was done to the image, e.g. "first frame of 12"
        ("error", ERROR),
        ("fetch_seconds", pa.float64()),
    ]
)


def questions_of(cell: Sequence[str | None] | None) -> list[str | None]:
    """The questions of one image row; None stands for one that is not there. Never empty: a row is never missing."""
    questions = [question if question and question.strip() else None for question in cell or ()]
    return questions or [None]
