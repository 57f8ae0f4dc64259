"""A comparison's settings: what all engines share, and what each says for itself in one word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.comparison.settings import CompareSettings, candidate
from pipeline.engines.makers import Plan
from pipeline.settings import BUNDLED_MODEL


def test_each_engine_has_settings_of_its_own_and_shares_the_rest() -> None:
    settings = CompareSettings.load(
        ["--engine", "native kv_budget_mb=8 primitives=off model='a b'", "--engine", "native", "--limit", "3",
         "--image-seconds", "7", "--cpus-per-actor", "2", "--allow-host", "example.com"]
    )  # fmt: skip
    first, second = (settings.of_run(one.settings) for one in settings.candidates())
    assert (first.kv_budget_mb, first.primitives, first.model) == (8, "off", "a b")
    assert (second.kv_budget_mb, second.primitives, second.model) == (None, "auto", str(BUNDLED_MODEL))
    for of_run in (first, second):
        assert (of_run.limit, of_run.image_seconds, of_run.allow_host) == (3, 7, ["example.com"])
        assert (of_run.actors, of_run.cpus_per_actor) == (1, 2) and Plan.of(of_run, "r").threads == 2


def test_names_are_as_given_and_made_unique() -> None:
    named = CompareSettings(engine=["native", " native ", "native seed=1", "native"]).candidates()
    assert [one.name for one in named] == ["native", "native (2)", "native seed=1", "native (3)"]


def test_no_name_holds_a_secret() -> None:
    secret = "openai model=m endpoint=https://example.com/v1?X-Amz-Signature=abcdef0123456789"
    first, _ = CompareSettings(engine=[secret, "native"]).candidates()
    assert "abcdef" not in first.name and "abcdef" in (first.settings.endpoint or "")


def test_the_environment_writes_one_engine_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEIXIS_ENGINE", "native\nnative seed=1")
    assert CompareSettings.load([]).engine == ["native", "native seed=1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("native colour=red", "unknown setting colour; the settings are: model, frame"),
        ("native engine=openai", "unknown setting engine"),
        ("native kv_budget_mb", "'kv_budget_mb' is not key=value"),
        ("native seed=1 seed=2", "'seed=2' is not key=value, or its key stands there twice"),
        ("native kv_budget_mb=many", "kv_budget_mb: Input should be a valid integer"),
        ("native actors=2", "actors is the same for all engines; one actor holds them"),
        ("native images_in_flight=2", "the same for all engines; give --images-in-flight 2"),
        ("telepathy", "engine: Input should be 'native', 'openai', 'transformers' or"),
        ("native 'model", "No closing quotation; it is KIND key=value"),
        ("  ", "there is no kind in it"),
    ],
)
def test_a_mistake_is_told_with_the_engine_it_stands_in(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        candidate(text)
    assert said in str(caught.value) and str(caught.value).startswith(f"--engine {text!r}: ")


@given(st.text())
def test_no_text_makes_an_engine_fail_otherwise_than_with_a_value_error(text: str) -> None:
    try:
        assert candidate(text).engine in ("native", "openai", "transformers")
    except ValueError as error:
        assert str(error).startswith("--engine ")


@pytest.mark.parametrize("engines", [[], ["native"]])
def test_one_engine_is_no_comparison(engines: list[str]) -> None:
    with pytest.raises(ValueError, match=f"two engines or more, got {len(engines)}: --engine A --engine B"):
        CompareSettings(engine=engines).candidates()


def test_what_was_not_said_of_an_endpoint_stays_unsaid() -> None:
    settings = CompareSettings(engine=["openai endpoint=http://localhost/v1", "native"])
    with pytest.raises(ValueError, match="which model of the endpoint"):
        Plan.of(settings.of_run(settings.candidates()[0].settings), "r")


def test_help_says_that_it_does_not_resume_and_leaves_out_what_means_nothing_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        CompareSettings.load(["--help"])
    text = capsys.readouterr().out
    assert "does not resume" in text and "--gold" in text and "price_hour" in text
    assert not any(flag in text for flag in ("--retry-errors", "--on-change", "--rows-per-file", "--actors"))
