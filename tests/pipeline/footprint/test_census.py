"""Counting a catalog's images by size, from their headers."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline import store
from pipeline.catalog import open_catalog
from pipeline.footprint.census import Census, Kind, take_census
from pipeline.images import HEAD_BYTES, Limits
from pipeline.settings import Settings
from tests.pipeline.pictures import encoded, picture, turned

LIMITS = {"max_bytes": 50_000_000, "max_pixels": 10**7}


def census_of(catalog: Path | str, questions: int | None = None) -> Census:
    opened = open_catalog(Settings(catalog=str(catalog)))
    return take_census(opened, Limits(opened.root, LIMITS["max_bytes"], LIMITS["max_pixels"]), questions)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_folder_is_counted_upright_by_size_and_bad_images_by_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(turned(picture(), 6, "JPEG"))
    (tmp_path / "b.png").write_bytes(encoded(picture()))
    (tmp_path / "c.webp").write_bytes(encoded(picture(30, 20), "WEBP"))
    (tmp_path / "d.jpg").write_bytes(b"this is not a picture\n")
    (tmp_path / "e.png").write_bytes(encoded(Image.new("1", (4000, 4000))))
    census = census_of(tmp_path)
    assert census.kinds == Counter({Kind(60, 40, 1): 2, Kind(30, 20, 1): 1})
    assert census.unreadable == Counter({"not_an_image": 1, "too_many_pixels": 1})
    assert (census.images, census.answers) == (3, 3)


def test_headers_behind_the_first_bytes_are_found_all_the_same(tmp_path: Path) -> None:
    tiff, webp = encoded(noise(300, 200), "TIFF"), encoded(noise(310, 200), "WEBP", lossless=True)
    assert min(len(tiff), len(webp)) > HEAD_BYTES
    (tmp_path / "a.tiff").write_bytes(tiff)
    (tmp_path / "b.webp").write_bytes(webp)
    assert census_of(tmp_path).kinds == Counter({Kind(300, 200, 1): 1, Kind(310, 200, 1): 1})


def test_a_parquet_catalog_counts_its_own_questions_or_those_asked_for(tmp_path: Path) -> None:
    table = {"image_id": ["a", "b"], "image": [encoded(picture())] * 2, "questions": [["Q?", "R?"], ["Q?"]]}
    pq.write_table(pa.table(table), tmp_path / "c.parquet")
    assert census_of(tmp_path / "c.parquet").kinds == Counter({Kind(60, 40, 2): 1, Kind(60, 40, 1): 1})
    assert census_of(tmp_path / "c.parquet", questions=5).answers == 10


def test_objects_are_asked_for_their_first_bytes_only(s3: Any, bucket: str) -> None:
    large = encoded(noise(400, 300))
    assert len(large) > 4 * HEAD_BYTES
    s3.put_object(Bucket=bucket, Key="in/a.png", Body=large)
    assert len(store.read_head(f"s3://{bucket}/in/a.png", HEAD_BYTES)) == HEAD_BYTES
    assert census_of(f"s3://{bucket}/in/").kinds == Counter({Kind(400, 300, 1): 1})


def test_files_outside_the_catalog_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(encoded(picture()))
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    pq.write_table(
        pa.table({"image_id": ["a", "b"], "image_uri": ["../outside.png", "pipe.png"], "question": ["Q?", "Q?"]}),
        folder / "c.parquet",
    )
    census = census_of(folder / "c.parquet")
    assert census.images == 0
    assert census.unreadable == Counter({"outside_root": 1, "unreadable": 1})
