"""One image, one question, no Ray: the engine asked directly, its answer as a row and as a picture."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from PIL import Image

from model.config import Config
from model.engine import Completion, NativeEngine, Request, RequestError
from model.sampling import Sampling

from . import store
from .answers import Author, answer_row, error_row
from .decoding import ImageError, check, decode
from .drawing import draw
from .engines.views import NativeView
from .redaction import printable, redacted
from .rows import ANSWERS
from .settings import Settings, require_checkpoint

_KV_BUDGET_MB = 64


def ask(path: str, question: str, settings: Settings) -> tuple[dict[str, Any], Image.Image | None]:
    """The answer row of one image file, and the picture with the primitives drawn; no picture when it is an error.

    ValueError when the question is blank or the checkpoint none; whatever is wrong with the image is an error row.
    """
    if not question.strip():
        raise ValueError("the question is blank: write one")
    require_checkpoint(settings.model)
    now = datetime.now(UTC)
    run_id = f"ask-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    config = Config.from_file(Path(settings.model) / "config.json")
    image: dict[str, Any] = dict.fromkeys(("image_sha256", "image_width", "image_height", "notes"))
    image |= {"image_id": Path(path).name, "image_uri": path, "questions": [question]}
    try:
        picture = _picture(path, image, settings)
        author, completion = _complete(picture, image["image_sha256"], question, run_id, config, settings)
    except ImageError as error:
        # The engine was not needed, so the revision is not known.
        nobody = Author(run_id, Path(settings.model).name, None, NativeView(config))
        return error_row(nobody, image, 0, error.as_row(), now), None
    row = answer_row(author, image, 0, completion, datetime.now(UTC))
    return row, draw(picture, row["primitives"])


def _picture(path: str, image: dict[str, Any], settings: Settings) -> Image.Image:
    """The decoded picture; what its header says goes into `image`. ImageError says why it can't be had."""
    try:
        data, _ = store.read(path, settings.max_image_bytes)
    except store.StoreError as error:
        raise ImageError("fetch", error.kind, error.message, error.attempts) from None
    image["image_sha256"] = hashlib.sha256(data).hexdigest()
    header = check(data, settings.max_image_bytes, settings.max_image_pixels)
    image |= {"image_width": header.width, "image_height": header.height, "notes": header.notes}
    return decode(data)


def _complete(
    picture: Image.Image, image_sha256: str, question: str, run_id: str, config: Config, settings: Settings
) -> tuple[Author, Completion]:
    engine = NativeEngine(
        settings.model,
        kv_budget_bytes=(settings.kv_budget_mb or _KV_BUDGET_MB) * 1_000_000,
        device=settings.device,
        dtype=settings.dtype,
        kv_dtype=settings.kv_dtype,
        max_output_tokens=settings.max_output_tokens,
    )
    try:
        sampling = Sampling(settings.temperature, settings.top_p, settings.seed).for_image(image_sha256)
        request = Request(picture, (question,), settings.max_output_tokens, (settings.primitives,), sampling)
        (completion,) = asyncio.run(engine.answer(request))
        return Author(run_id, engine.name, engine.revision, NativeView(config)), completion
    except RequestError as error:
        raise ImageError("generate", error.kind, str(error)) from None
    finally:
        engine.close()


def main(argv: Sequence[str], out: TextIO = sys.stdout) -> int:
    """The command `ask.py IMAGE QUESTION`; returns its exit status, 1 for an image without an answer."""
    parser = argparse.ArgumentParser(prog="ask.py", description="Ask one question of one image.", allow_abbrev=False)
    parser.add_argument("image", help="path or s3:// address of the image")
    parser.add_argument("question")
    parser.add_argument("--model", help="checkpoint folder [model/checkpoints/default]")
    parser.add_argument("--max-output-tokens", type=int, metavar="N", help="longest response, in tokens [256]")
    parser.add_argument("--primitives", choices=("auto", "on", "off"), help="whether the answer points [auto]")
    parser.add_argument("--temperature", type=float, metavar="X", help="of sampling; 0: the likeliest token [0]")
    parser.add_argument("--seed", type=int, metavar="N", help="of sampling [0]")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs [auto]")
    parser.add_argument("--json", action="store_true", help="print the answer row as JSON, draw nothing")
    flags = vars(parser.parse_args(argv))
    path, question, as_json = flags.pop("image"), flags.pop("question"), flags.pop("json")
    row, picture = ask(path, question, Settings.of({name: value for name, value in flags.items() if value is not None}))
    if as_json:
        print(_as_json(row), file=out)
    elif row["status"] == "error":
        error = row["error"]
        print(
            f"{printable(redacted(path))}: no answer: {error['stage']}/{error['kind']}: {printable(error['message'])}",
            file=sys.stderr,
        )
    else:
        assert picture is not None
        target = f"{Path(path).name if store.is_s3(path) else path}.answer.png"
        picture.save(target)
        print(_as_text(row, target), file=out)
    return 0 if row["status"] == "ok" else 1


def _as_json(row: dict[str, Any]) -> str:
    """The row exactly as the answers table would hold it: through its schema, then JSON."""
    (typed,) = pa.Table.from_pylist([row], schema=ANSWERS).to_pylist()
    return json.dumps(typed, ensure_ascii=False, default=lambda value: value.isoformat())


def _as_text(row: dict[str, Any], target: str) -> str:
    lines = [printable(row["answer"]) or "(the response held no answer)"]
    for found in row["primitives"]:
        if found["valid"]:
            numbers = [found[name] for name in ("x1", "y1", "x2", "y2") if found[name] is not None]
            place = ", ".join(f"{number:.0f}" for number in numbers)
            lines.append(f"  {found['kind']:5} [{place}]  {printable(found['label'] or '')}  ({found['part']})")
    if row["finish_reason"] == "length":
        lines.append("  (cut off at --max-output-tokens)")
    size = f"{row['image_width']} x {row['image_height']}"
    return "\n".join(
        [*lines, f"{row['usage']['kv_entries']} KV entries; pixels of {size}; drawn in {printable(target)}"]
    )
