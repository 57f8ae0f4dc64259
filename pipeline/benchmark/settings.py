"""What a benchmark can be told; the flags, the YAML file and the environment are derived from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from ..settings import EngineSettings, Settings
from ..sources import Flag, Sources


class CaseSettings(Sources):
    """Which cases are asked, and where the figures go."""

    suite: Annotated[list[str], NoDecode] = Field(
        default=[], description="a suite, or easy-vqa; may be repeated [every suite but easy-vqa]"
    )
    level: Annotated[list[str], NoDecode] = Field(
        default=[], description="only this level of the suites; may be repeated [all]"
    )
    cases: int | None = Field(
        default=None,
        ge=1,
        description="cases for each suite and level [50 of a suite that draws them, all of easy-vqa or a folder]",
    )
    split: Literal["train", "validation", "test"] = Field(default="test", description="which cases of the suites")
    case_dir: str | None = Field(default=None, description="a folder of cases instead, as docs/cases.md describes it")
    blind_cases: int = Field(
        default=400, ge=0, description="training cases, for each suite and level, that the blind guesser learns from"
    )
    greyed: bool = Field(default=False, description="grey all images out: what a blind model can say is asked of it")
    score: bool = Field(default=True, description="ask the model; --no-score only draws, for --export and --sheet")

    output: str | None = Field(
        default=None,
        description="folder or s3:// prefix for the cases, the answers, the verdicts and benchmark.json"
        " [results/RUN_ID under this folder]",
    )
    overwrite: bool = Field(default=False, description="replace what OUTPUT already holds instead of refusing")
    as_json: Annotated[bool, Flag("json")] = Field(default=False, description="print everything as JSON, no table")
    card: bool = Field(default=False, description="write the table into the checkpoint's CARD.md")
    export: str | None = Field(default=None, description="write the cases into this folder, as --case-dir reads them")
    sheet: str | None = Field(default=None, description="draw 24 cases of each suite into this folder, as PNG")

    @field_validator("suite", "level", mode="before")
    @classmethod
    def _names_from_text(cls, value: Any) -> Any:
        """Names parted by commas: how the environment writes a list."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class BenchmarkSettings(EngineSettings, CaseSettings):
    """Everything a benchmark can be told."""

    about = "Score a checkpoint on the task suites, or on your own cases, with exact verifiers."
    prog = "benchmark.py"

    max_output_tokens: int = Field(
        default=2048, ge=1, description="longest response to one question, in tokens; mazes take the most"
    )

    def of_run(self, catalog: str, output: str) -> Settings:
        """The settings of the run over a catalog that holds the cases."""
        told = self.model_fields_set | {"max_output_tokens"}  # of the others a run has its own defaults
        shared = {name: getattr(self, name) for name in EngineSettings.model_fields if name in told}
        return Settings.of({**shared, "catalog": catalog, "output": output, "overwrite": self.overwrite})
