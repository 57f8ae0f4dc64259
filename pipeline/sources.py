"""Where settings come from: one pydantic model each command; flags, YAML file and environment are derived from it.

What is set later wins: defaults, the YAML file (`--config`), the environment (`DEIXIS_LIMIT=5`), the command line.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

PROJECT = Path(__file__).resolve().parents[1]
ENV_PREFIX = "DEIXIS_"


class Flag(NamedTuple):
    """In a field's annotation: the name of its flag, where the field's own would not do."""

    name: str


class Sources(BaseSettings):
    """Settings of a command. `load(argv)` reads all their sources; the constructor takes values only."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    about: ClassVar[str]  # what `--help` says of the command
    prog: ClassVar[str]

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` reads the others, in an order that can be seen

    @classmethod
    def load(cls, argv: Sequence[str]) -> Self:
        """The settings of a command line, its YAML file and the environment.

        ValueError names an unknown or unfit setting and where it came from; unknown flags end as argparse ends them.
        """
        flags = vars(_parser(cls).parse_args(argv))
        config = flags.pop("config", None)
        for key in os.environ:
            if key.startswith(ENV_PREFIX) and key.removeprefix(ENV_PREFIX).lower() not in cls.model_fields:
                raise ValueError(f"unknown setting {key} in the environment; {_known(cls)}")
        return cls.of({**_from_yaml(cls, config), **EnvSettingsSource(cls)(), **flags})

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The settings with these values; ValueError names what is unknown or unfit."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ValueError("; ".join(_explained(detail) for detail in error.errors())) from None


def _known(cls: type[Sources]) -> str:
    return f"the settings are: {', '.join(cls.model_fields)}"


def _from_yaml(cls: type[Sources], path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"can't read the settings file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"the settings file {path} is not YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"the settings file {path} must map names to values, got a {type(values).__name__}")
    unknown = [str(key) for key in values if key not in cls.model_fields]
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)} in {path}; {_known(cls)}")
    return values


def _explained(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown setting {name}"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')}, got {detail['input']!r}"


def _parser(cls: type[Sources]) -> argparse.ArgumentParser:
    """One flag for each field, with its description, so that no list of flags is kept by hand."""
    parser = argparse.ArgumentParser(
        prog=cls.prog,
        description=cls.about,
        epilog=f"Each setting may also stand in a YAML file (--config) or in the environment ({ENV_PREFIX}LIMIT=5).",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="read settings from this file")
    for name, field in cls.model_fields.items():
        called = next((mark.name for mark in field.metadata if isinstance(mark, Flag)), name.replace("_", "-"))
        flag, text = f"--{called}", (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
        elif get_origin(field.annotation) is list:
            parser.add_argument(flag, dest=name, action="append", metavar="TEXT", help=text)
        else:
            options = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
            shown = "" if field.default is None else f" [{_shown(field.default)}]"
            metavar = "{" + ",".join(options) + "}" if options else _metavar(field.annotation)
            parser.add_argument(flag, dest=name, metavar=metavar, choices=options, help=text + shown)
    return parser


def _shown(default: Any) -> str:
    text = str(default)
    return str(Path(text).relative_to(PROJECT)) if text.startswith(str(PROJECT)) else text


def _metavar(annotation: Any) -> str:
    types = get_args(annotation) or (annotation,)
    return "N" if int in types else "X" if float in types else "TEXT"
