"""The tables: image rows, which travel from the catalog to the engine, and answer rows, which are written.

Nothing heavy is imported here, so that tasks that only read or write start quickly.
"""

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
        ("primitives", pa.list_(pa.string())),  # modes: one for all the questions or one each; null: the job's
        ("gold_answers", pa.list_(pa.string())),
        ("gold_boxes", GOLD_BOXES),
        ("read_seconds", pa.float64()),
        ("question_ids", pa.list_(pa.string())),  # of the questions that are due; null: all are, "0", "1", …
        ("row_keys", pa.list_(pa.string())),  # of the same, see keys.py
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
        ("notes", pa.list_(pa.string())),  # what was done to the image, see docs/images.md
        ("error", ERROR),
        ("fetch_seconds", pa.float64()),
    ]
)

# The answers table. A row is one (image, question); question_id is the question's place in its image's list: "0", …
SCHEMA_VERSION = "2"

# Lists name their items "element" because Parquet does: so the schema is the same in every file format.
PRIMITIVE = pa.struct(
    [
        ("kind", pa.string()),  # box | point
        ("label", pa.string()),
        ("part", pa.string()),  # reasoning | answer
        ("group", pa.int32()),
        ("item", pa.int32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("frame", pa.list_(pa.field("element", pa.int16()), 4)),
        ("valid", pa.bool_()),
    ]
)
USAGE = pa.struct(
    [
        ("image_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("kv_entries", pa.int32()),
        ("kv_bytes", pa.int64()),
        ("shared_prefill", pa.bool_()),
        ("shared_answer", pa.bool_()),  # made for another row with the same bytes and question
        ("pointing", pa.bool_()),
        ("pointing_reason", pa.string()),
    ]
)
ANSWERS = pa.schema(
    [
        ("run_id", pa.string()),
        ("image_id", pa.string()),
        ("question_id", pa.string()),
        ("image_uri", pa.string()),
        ("image_sha256", pa.string()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("image_notes", pa.list_(pa.field("element", pa.string()))),  # what was done to it: see docs/images.md
        ("question", pa.string()),
        ("status", pa.string()),
        ("error", ERROR),
        ("answer", pa.string()),
        ("answer_markup", pa.string()),  # what follows the reasoning, tags kept
        ("answer_number", pa.float64()),
        ("reasoning", pa.string()),  # tags kept; null when the response never ended its thinking: all is answer
        ("primitives", pa.list_(pa.field("element", PRIMITIVE))),
        ("finish_reason", pa.string()),
        ("confidence", pa.float32()),
        ("usage", USAGE),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("prompt_sha256", pa.string()),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("row_key", pa.string()),  # of the image, the question and the conditions: keys.py
    ],
    metadata={"deixis.schema_version": SCHEMA_VERSION},
)


def questions_of(cell: Sequence[str | None] | None) -> list[str | None]:
    """The questions of one image row; None stands for one that is not there. Never empty: a row is never missing."""
    questions = [question if question and question.strip() else None for question in cell or ()]
    return questions or [None]
