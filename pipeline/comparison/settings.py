"""What a comparison can be told: which engines, each with settings of its own, and what all of them are asked."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from ..redaction import redacted
from ..settings import EngineSettings, ImageSettings, Settings
from ..sources import Flag

# What all engines share, for they sit in one actor and are asked by turns.
_OF_THE_COMMAND = ("actors", "cpus_per_actor", "gpus_per_actor", "images_in_flight", "address")


class CandidateSettings(EngineSettings):
    """One engine of a comparison."""

    price_hour: float = Field(default=0.0, ge=0, description="money for an hour of what the engine runs on")


class Named(NamedTuple):
    """An engine's settings under its name in the tables."""

    name: str
    settings: CandidateSettings


class CompareSettings(ImageSettings):
    """Everything a comparison can be told."""

    about = "Ask several engines the same questions of the same images, and show how they differ. It does not resume."
    prog = "compare.py"

    engine: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="an engine with settings of its own, in one word for the shell: 'native kv_budget_mb=64', 'openai"
        " endpoint=http://HOST/v1 model=NAME price_output=2'; twice or more. The keys are the settings of"
        " catalog_qa.py, and price_hour: money for an hour of what it runs on",
    )
    gold: str | None = Field(
        default=None, description="Parquet column of right answers: a value, or a list of texts [gold_answers, if any]"
    )
    differences: int = Field(default=20, ge=1, description="questions to keep on which engines differ most")
    sheet: bool = Field(default=False, description="draw these into OUTPUT/differences.png, each engine's boxes beside")
    output: str | None = Field(
        default=None,
        description="folder or s3:// prefix for answers-by-engine/, differences.parquet and compare.json"
        " [results/RUN_ID under this folder]",
    )
    overwrite: bool = Field(default=False, description="replace the comparison that OUTPUT holds instead of refusing")
    as_json: Annotated[bool, Flag("json")] = Field(default=False, description="print everything as JSON, no table")

    images_in_flight: int = Field(
        default=32, ge=1, description="images that one engine is asked together before the next one is asked the same"
    )
    cpus_per_actor: float = Field(default=1.0, gt=0, description="CPUs that the engines reserve and use, by turns")
    gpus_per_actor: float = Field(default=0.0, ge=0, description="GPUs that the engines reserve, all of them together")
    address: str | None = Field(default=None, description="Ray cluster to join [RAY_ADDRESS, else a private one]")

    @field_validator("engine", mode="before")
    @classmethod
    def _engines_from_text(cls, value: Any) -> Any:
        """One engine per line: how the environment writes them."""
        return value.splitlines() if isinstance(value, str) else value

    def candidates(self) -> list[Named]:
        """The engines under names of their own: as given, numbered where one is given twice. ValueError names what
        is unknown or unfit, and where."""
        if len(self.engine) < 2:
            raise ValueError(f"a comparison needs two engines or more, got {len(self.engine)}: --engine A --engine B")
        named: dict[str, CandidateSettings] = {}
        for text in self.engine:
            name = given = redacted(text.strip())
            number = 1
            while name in named:
                number += 1
                name = f"{given} ({number})"
            named[name] = candidate(text)
        return [Named(*each) for each in named.items()]

    def of_run(self, one: CandidateSettings) -> Settings:
        """The settings of a run that would ask this engine alone."""
        # Only what was set: some defaults mean "not said".
        own = {name: getattr(one, name) for name in one.model_fields_set if name in EngineSettings.model_fields}
        shared = {name: getattr(self, name) for name in (*ImageSettings.model_fields, *_OF_THE_COMMAND[1:])}
        return Settings.of({**shared, **own})


def candidate(text: str) -> CandidateSettings:
    """The engine that `KIND key=value ...` names. ValueError names what is unknown or unfit."""
    try:
        kind, *words = shlex.split(text)
    except ValueError as error:
        said = "there is no kind in it" if not text.strip() else str(error)
        raise ValueError(f"--engine {text!r}: {said}; it is KIND key=value ...") from None
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in values:
            raise ValueError(f"--engine {text!r}: {word!r} is not key=value, or its key stands there twice")
        if key in _OF_THE_COMMAND:
            where = "one actor holds them" if key == "actors" else f"give --{key.replace('_', '-')} {value}"
            raise ValueError(f"--engine {text!r}: {key} is the same for all engines; {where}")
        if key == "engine" or key not in CandidateSettings.model_fields:
            known = [name for name in CandidateSettings.model_fields if name not in ("engine", *_OF_THE_COMMAND)]
            raise ValueError(f"--engine {text!r}: unknown setting {key}; the settings are: {', '.join(known)}")
        values[key] = value
    try:
        return CandidateSettings.of({"engine": kind, **values})
    except ValueError as error:
        raise ValueError(f"--engine {text!r}: {error}") from None
