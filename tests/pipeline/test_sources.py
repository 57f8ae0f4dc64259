"""Settings: flags, YAML and environment come from one model, in a fixed order, and unknown keys are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import Settings


def test_questions_repeat_and_keep_their_commas() -> None:
    settings = Settings.load(["--question", "How many cats, or dogs?", "--question", "[Where] is it?"])
    assert settings.question == ["How many cats, or dogs?", "[Where] is it?"]


def test_the_command_line_wins_over_the_environment_and_that_over_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("limit: 1\nactors: 2\nformat: arrow\nquestion: [one, two]\n")
    monkeypatch.setenv("DEIXIS_ACTORS", "3")
    monkeypatch.setenv("DEIXIS_FORMAT", "parquet")
    settings = Settings.load(["--config", str(file), "--format", "arrow"])
    assert (settings.limit, settings.actors, settings.format, settings.question) == (1, 3, "arrow", ["one", "two"])


@pytest.mark.parametrize(("text", "questions"), [("How many, and where?", 1), ("one?\ntwo?", 2), ('["a", "b"]', 2)])
def test_the_environment_holds_one_question_a_line_or_a_json_list(
    text: str, questions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEIXIS_QUESTION", text)
    assert len(Settings.load([]).question) == questions


def test_an_unknown_key_is_named_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("actors: 1\nactorz: 2\n")
    with pytest.raises(ValueError, match="unknown setting actorz"):
        Settings.load(["--config", str(file)])
    with pytest.raises(ValueError, match="unknown setting colour"):
        Settings.of({"colour": "red"})
    with pytest.raises(SystemExit):
        Settings.load(["--limits", "3"])
    assert "--limits" in capsys.readouterr().err
    monkeypatch.setenv("DEIXIS_LIMITS", "3")
    with pytest.raises(ValueError, match="unknown setting DEIXIS_LIMITS"):
        Settings.load([])


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--limit", "0"], "limit: .* greater than or equal to 1, got '0'"),
        (["--kv-share", "1.5"], "kv_share"),
        (["--actors", "many"], "actors"),
        (["--question", " "], "a question is blank"),
        (["--allow-address", "10.0.0.1/8"], "allow_address: .*has host bits set"),
        (["--allow-scheme", "ftp"], "allow_scheme"),
    ],
)
def test_an_unfit_value_is_named_with_what_was_given(argv: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Settings.load(argv)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [\n"])
def test_a_settings_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.yaml"):
        Settings.load(["--config", str(tmp_path / "settings.yaml")])


def test_a_missing_settings_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"can't read the settings file nowhere\.yaml"):
        Settings.load(["--config", "nowhere.yaml"])


def test_help_lists_every_setting_with_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Settings.load(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    for name, field in Settings.model_fields.items():
        assert field.description and f"--{name.replace('_', '-')}" in shown
