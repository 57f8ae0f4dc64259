"""Secrets are masked wherever a run speaks of itself, and nothing it prints steers a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding import ImageError
from pipeline.redaction import printable, redacted, shown, without_secrets
from pipeline.store import StoreError


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:hunter2pass@host/x", "https://***@host/x"),
        ("s3://b/x?X-Amz-Signature=abcdef12&part=1", "s3://b/x?X-Amz-Signature=***&part=1"),
        ("https://h/?X-Amz-Security-Token=abc%2Fdef&X-Amz-Credential=AKIA/x", "https://h/?X-Amz-Security-Token=***&X-Amz-Credential=***"),
        ("https://h/?se=2026&sig=abc%3D&sp=r", "https://h/?se=2026&sig=***&sp=r"),
        ("https://h/?X-Goog-Signature=abc'", "https://h/?X-Goog-Signature=***'"),
        ("https://h/?Key-Pair-Id=K1&Policy=eyJ&v=2", "https://h/?Key-Pair-Id=***&Policy=***&v=2"),
        ("https://h/?access_token=abc&apikey=def", "https://h/?access_token=***&apikey=***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: ***"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': '***'}"),
        ("sent Bearer eyJhbGciOi.x.y", "sent Bearer ***"),
        ("key AKIAIOSFODNN7EXAMPLE is", "key *** is"),
    ],
)  # fmt: skip
def test_secrets_are_masked_and_the_rest_is_kept(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize(
    "text",
    ["a keyboard at s3://bucket/key/monkey.png", "https://h/x?width=3&page=2", "How many keys=3 are there?",
     "a basic question", "me@example.com"],
)  # fmt: skip
def test_innocent_texts_are_left_alone(text: str) -> None:
    assert redacted(text) == text


@given(st.text())
def test_masking_twice_masks_nothing_more(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


def test_what_the_environment_keeps_secret_is_masked_in_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("SOME_API_TOKEN", "short")
    monkeypatch.setenv("EDITOR", "a-long-editor-name")
    text = "wJalrXUtnFEMI/K7MDENG short a-long-editor-name"
    assert redacted(text) == "*** short a-long-editor-name"


def test_errors_are_masked_where_they_are_made() -> None:
    for error in (ImageError("fetch", "x", "https://a:secret@h/"), StoreError("x", "https://a:secret@h/")):
        assert "secret" not in error.message and "secret" not in str(error) and "secret" not in repr(error)


def test_settings_are_masked_in_their_lists_and_mappings() -> None:
    assert without_secrets({"a": ["https://u:p@h", 3], "b": ("x",)}) == {"a": ["https://***@h", 3], "b": ["x"]}


def test_nothing_printed_steers_a_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202etxt\nnext"
    assert printable(hostile) == "\\x1b]0;owned\\x07\\x1b[2J\\r\\x9b31m\\u202etxt␤next"
    assert printable("naïve 猫 🐈") == "naïve 猫 🐈"
    assert shown(ValueError("\x1b[2Jhttps://a:b@h")) == "\\x1b[2Jhttps://***@h"


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert printable(text).isprintable()


def test_a_traceback_is_shown_without_secrets_and_escapes() -> None:
    code = (
        "import sys\nfrom pipeline.redaction import excepthook\nsys.excepthook = excepthook\n"
        "raise RuntimeError('no \\x1b[2J https://me:hunter2@h/?sig=abc')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert "Traceback" in done.stderr and "RuntimeError: no \\x1b[2J https://***@h/?sig=***" in done.stderr
    assert "hunter2" not in done.stderr and "\x1b" not in done.stderr
