"""The worst catalog: every image comes out, decoded or explained; nothing crashes, nothing grows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.decoder_pool import DecoderPool
from pipeline.decoding import ImageError
from pipeline.images import Limits, fetch_and_check
from pipeline.rows import CHECKED_ROWS, IMAGE_ROWS
from tests.pipeline.nasties import damaged, nasties

LIMITS = (4_000_000, 20_000_000)  # bytes, pixels
STAGES = {"fetch", "check", "decode"}


def outcome(pool: DecoderPool, row: dict[str, Any]) -> str:
    """`stage/kind` of the error of a checked row, or of decoding it; or `decoded`."""
    if row["error"] is None:
        try:
            size = (row["image_width"], row["image_height"])
            assert pool.decode(row["image"], size).size == size
        except ImageError as error:
            return f"{error.stage}/{error.kind}"
        return "decoded"
    assert row["error"]["message"] and row["error"]["attempts"] >= 1
    return f"{row['error']['stage']}/{row['error']['kind']}"


def peak_mb(process: str) -> float:
    """The most memory that a process ever held (its pid, or self)."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def outcomes(folder: Path, files: dict[str, bytes]) -> tuple[dict[str, str], float]:
    """Through the real road: files in a folder, fetched, checked in batches, decoded in the pool. And the most memory,
    in MB, that the decoder held."""
    limits = Limits(str(folder), *LIMITS, decode_seconds=20.0)
    pool = DecoderPool(1, *LIMITS, 20.0)
    found: dict[str, str] = {}
    peak = 0.0
    names = list(files)
    for start in range(0, len(names), 500):
        batch = names[start : start + 500]
        for name in batch:
            (folder / name).write_bytes(files[name])
        rows = [{"image_id": name, "image_uri": name, "questions": ["Q?"]} for name in batch]
        table = fetch_and_check(pa.Table.from_pylist(rows, schema=IMAGE_ROWS), limits)
        assert table.schema.equals(CHECKED_ROWS)
        for row in table.to_pylist():
            found[row["image_id"]] = outcome(pool, row)
        if (child := pool._free.queue[0]._child) is not None:
            peak = max(peak, peak_mb(str(child.pid)))
    pool.close()
    return found, peak


def test_forty_nasty_files_are_explained_one_by_one(tmp_path: Path) -> None:
    files = {f"{number:02} {name}".replace("/", " "): data for number, (name, data) in enumerate(nasties().items())}
    assert len(files) == 40
    found, peak = outcomes(tmp_path, files)
    assert found.keys() == files.keys()
    assert {kind.split("/")[0] for kind in found.values()} <= {*STAGES, "decoded"}
    # What is a picture in spite of it all is one; nothing took its process with it.
    decoded = {name[3:] for name, kind in found.items() if kind == "decoded"}
    assert {"jpeg with a page behind it", "jpeg, broken exif", "png bomb within the size"} <= decoded
    assert not [name for name, kind in found.items() if kind.endswith(("/crashed", "/timeout"))], found
    assert peak < 400
    print(found, peak)


@pytest.mark.parametrize("count", [240, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_images_come_out_decoded_or_explained(count: int, tmp_path: Path) -> None:
    before = peak_mb("self")
    made = nasties() if count == 5000 else {}
    files = {f"nasty {number}": data for number, data in enumerate(made.values())}
    files |= dict(damaged(count - len(files)))
    found, decoder = outcomes(tmp_path, files)
    assert len(found) == count == len(files)
    kinds = Counter(found.values())
    assert {kind.split("/")[0] for kind in kinds} <= {*STAGES, "decoded"}
    assert kinds["decoded"] > count // 20 and sum(kinds.values()) - kinds["decoded"] > count // 3, kinds
    grown = peak_mb("self") - before
    print(f"{count} images: {dict(kinds)}; at most {grown:.0f} MB more here, {decoder:.0f} MB in the decoder")
    assert grown < 200 and decoder < 400
