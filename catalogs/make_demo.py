"""Make the bundled catalog: `python catalogs/make_demo.py` writes demo.parquet next to this file.

Scenes come from the test splits of the shapes lesson and of the suites, so no checkpoint has been trained on them or on
their layouts.
"""

from __future__ import annotations

import io
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from model.tasks import shapes
from model.tasks.scenes import draw
from model.tasks.suites import SUITES

DEMO = Path(__file__).with_name("demo.parquet")
SKILL_LEVEL, IMAGES_A_SKILL = "easy", 5

SHAPES_IMAGES = 24
FIRST_SEED = 900_000  # far from the seeds that a checkpoint is scored on
SIZES = ((168, 168), (252, 252), (336, 336), (320, 240), (240, 320), (400, 300))  # width, height in pixels
FORMATS = ("PNG", "JPEG", "WEBP")
LOSSY_QUALITY = 92
THINGS = (1, 6)
KINDS: tuple[tuple[shapes.Kind, ...], ...] = (
    ("count", "locate", "exists"),
    ("count", "exists"),
    ("locate", "count"),
    ("exists", "count", "list"),
)

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), nullable=False),
        pa.field("questions", pa.list_(pa.string()), nullable=False),
        pa.field("gold_answers", pa.list_(pa.string()), nullable=False),
        # One list of boxes for each question; x1, y1, x2, y2 in pixels of the image.
        pa.field("gold_boxes", pa.list_(pa.list_(pa.list_(pa.float32()))), nullable=False),
    ]
)


def make_shapes_row(index: int) -> dict[str, Any]:
    """The index-th row of coloured shapes, a function of the index alone."""
    width, height = SIZES[index % len(SIZES)]
    # Shifted once a round, so that every size meets every format.
    image_format = FORMATS[(index + index // len(SIZES)) % len(FORMATS)]
    rng = shapes.scene_rng(FIRST_SEED + index, "test")
    scene = draw(rng, width=width, height=height, count=THINGS, layouts=shapes.layouts("test"))
    cases = [shapes.pose(scene, rng, (kind,)) for kind in KINDS[index % len(KINDS)]]
    image_id = f"shapes-{index}"
    return {
        "image_id": image_id,
        "image": {"bytes": encode(scene.image, image_format), "path": f"{image_id}.{image_format.lower()}"},
        "questions": [case.question for case in cases],
        "gold_answers": [case.answer for case in cases],
        "gold_boxes": [[[round(x, 2) for x in case.things[i].box] for i in case.targets] for case in cases],
    }


def encode(image: Image.Image, image_format: str) -> bytes:
    """The bytes of an image file; PNG without loss, the others at LOSSY_QUALITY."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **({"optimize": True} if image_format == "PNG" else {"quality": LOSSY_QUALITY}))
    return buffer.getvalue()


def make_skill_row(suite: str, index: int) -> dict[str, Any]:
    """The index-th image row of a suite, with one question: a function of both alone."""
    case = SUITES[suite].case(FIRST_SEED + index, SKILL_LEVEL, "test")
    image_id = f"{suite}-{index}"
    return {
        "image_id": image_id,
        "image": {"bytes": encode(case.image, "PNG"), "path": f"{image_id}.png"},
        "questions": [case.question],
        "gold_answers": [case.answer],
        "gold_boxes": [[[round(edge, 2) for edge in box] for box in case.boxes or ()]],
    }


def make_rows() -> list[dict[str, Any]]:
    """All rows, so that the first ones show every skill."""
    skills = [make_skill_row(suite, index) for index in range(IMAGES_A_SKILL) for suite in SUITES]
    plain = [make_shapes_row(index) for index in range(SHAPES_IMAGES)]
    return [row for pair in zip_longest(plain, skills) for row in pair if row]


def main() -> None:
    rows = make_rows()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), DEMO, compression="zstd")
    print(f"{DEMO.name}: {len(rows)} images, {DEMO.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
