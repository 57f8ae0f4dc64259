"""Settings: what they refuse before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import Settings, require_checkpoint


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lacks tokenizer\.json, \*\.safetensors"):
        require_checkpoint(str(tmp_path))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everywhere", ""])
def test_a_network_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="allow_address"):
        Settings.of({"allow_address": [text]})


def test_a_blank_question_is_refused() -> None:
    with pytest.raises(ValueError, match="a question is blank"):
        Settings.of({"question": ["  "]})
