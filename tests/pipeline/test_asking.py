"""One image, one question, without Ray."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.asking import ask, main
from pipeline.rows import ANSWERS
from pipeline.settings import Settings
from tests.pipeline.pictures import encoded, picture, turned


def test_an_image_is_answered_and_drawn_upright_beside_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    image, out = tmp_path / "photo.jpg", io.StringIO()
    image.write_bytes(turned(picture(), 6, "JPEG"))
    argv = [str(image), "Where is it?", "--model", str(tiny_checkpoint), "--max-output-tokens", "8"]
    assert main(argv, out) == 0
    with Image.open(f"{image}.answer.png") as drawn:
        assert drawn.size == (60, 40)
    assert "pixels of 60 x 40" in out.getvalue() and "KV entries" in out.getvalue()


def test_json_is_the_answer_row_and_nothing_else(tiny_checkpoint: Path, tmp_path: Path) -> None:
    image, out = tmp_path / "photo.png", io.StringIO()
    image.write_bytes(encoded(picture()))
    assert main([str(image), "Where?", "--model", str(tiny_checkpoint), "--max-output-tokens", "8", "--json"], out) == 0
    row = json.loads(out.getvalue())
    assert list(row) == ANSWERS.names
    assert (row["status"], row["question"], row["image_id"], row["image_width"]) == ("ok", "Where?", "photo.png", 60)
    assert not Path(f"{image}.answer.png").exists()


@pytest.mark.parametrize(("content", "kind"), [(None, "missing"), (b"", "empty"), (b"text", "not_an_image")])
def test_an_image_without_an_answer_says_why(
    content: bytes | None, kind: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = tmp_path / "photo.png", io.StringIO()
    if content is not None:
        image.write_bytes(content)
    assert main([str(image), "Where?", "--model", str(tiny_checkpoint)], out) == 1
    assert kind in capsys.readouterr().err and out.getvalue() == ""
    assert main([str(image), "Where?", "--model", str(tiny_checkpoint), "--json"], out) == 1
    assert json.loads(out.getvalue())["error"]["kind"] == kind


def test_a_blank_question_and_a_missing_checkpoint_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="question is blank"):
        ask("x.png", " ", Settings(model=str(tiny_checkpoint)))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        ask("x.png", "Where?", Settings(model=str(tmp_path)))
