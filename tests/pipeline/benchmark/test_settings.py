"""The benchmark's settings come from the same machinery as the job's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.benchmark.settings import BenchmarkSettings
from pipeline.settings import EngineSettings


def test_flags_yaml_and_environment_are_read_in_the_jobs_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text("suite: [maze]\ncases: 7\nactors: 2\n")
    monkeypatch.setenv("DEIXIS_SUITE", "counting, reading")
    monkeypatch.setenv("DEIXIS_CASES", "8")
    settings = BenchmarkSettings.load(["--config", str(file), "--cases", "9", "--json", "--no-score"])
    assert (settings.suite, settings.cases, settings.actors) == (["counting", "reading"], 9, 2)
    assert settings.as_json and not settings.score
    assert BenchmarkSettings.load(["--suite", "maze", "--suite", "spatial"]).suite == ["maze", "spatial"]


def test_what_only_a_catalog_needs_is_unknown_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        BenchmarkSettings.load(["--catalog", "x"])
    monkeypatch.setenv("DEIXIS_LIMIT", "3")
    with pytest.raises(ValueError, match="unknown setting DEIXIS_LIMIT in the environment; the settings are: suite"):
        BenchmarkSettings.load([])


def test_help_names_the_command_and_its_own_settings_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        BenchmarkSettings.load(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: benchmark.py") and "--json" in text and "as-json" not in text
    assert text.index("--suite") < text.index("--model")


def test_the_run_gets_everything_that_an_engine_is_told() -> None:
    settings = BenchmarkSettings(actors=3, max_output_tokens=99, temperature=0.5, seed=4, overwrite=True)
    of_run = settings.of_run("cases.parquet", "out")
    assert (of_run.catalog, of_run.output, of_run.overwrite, of_run.limit) == ("cases.parquet", "out", True, None)
    for name in EngineSettings.model_fields:
        assert getattr(of_run, name) == getattr(settings, name)
