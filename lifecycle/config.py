"""The whole configuration of a run: read from a file, overridden by ``--set``, checked as one.

A configuration has one section a step; each section is that step's ``…Spec`` and a parameter of
the flow. Whatever is wrong is reported at once, each with its path, what it is and what would be
right, before anything is asked of Azure.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from .auth import WorkspaceSpec
from .component import TrainingSpec
from .compute import ComputeSpec
from .dataset import DatasetSpec
from .endpoint import EndpointSpec
from .errors import ConfigurationError
from .evaluation import EvaluationSpec
from .job import JobSpec
from .model import ModelSpec
from .plain import Spec

# What was given may be long, or deep, or no text at all.
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


class FinetuneConfig(Spec):
    """Everything that a run is asked to do; also the flow's parameters, section by section."""

    workspace: WorkspaceSpec = Field(default_factory=WorkspaceSpec)
    model: ModelSpec
    compute: ComputeSpec
    dataset: DatasetSpec
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    job: JobSpec = Field(default_factory=JobSpec)
    endpoint: EndpointSpec
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)


def load_config(path: Path | None, settings: Iterable[str] = ()) -> FinetuneConfig:
    """Read a configuration.

    Args:
        path: A YAML 1.2 file, or None for the defaults alone.
        settings: ``a.b=value`` each, applied in order; the value is read as YAML.

    Raises:
        ConfigurationError: The file is missing or no YAML, or a value is unknown, of the wrong
            type or out of bounds. The message lists all of them.
    """
    return check_config(read_values(path, settings), source=None if path is None else str(path))


def read_values(path: Path | None, settings: Iterable[str] = ()) -> dict[str, Any]:
    """Read a configuration's values without checking what they mean; errors as above.

    A section of which every key is commented out is an empty one.
    """
    values = {} if path is None else _read(path)
    for setting in settings:
        _apply(values, setting)
    return {name: {} if section is None else section for name, section in values.items()}


def check_config(values: Mapping[str, Any], *, source: str | None = None) -> FinetuneConfig:
    """Return *values* as a configuration.

    Raises:
        ConfigurationError: As :func:`load_config`.
    """
    try:
        return FinetuneConfig.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, source) from None


def check_workspace(values: Mapping[str, Any], *, source: str | None = None) -> WorkspaceSpec:
    """Return the ``workspace`` section of *values*; the others need not be there, nor complete.

    Raises:
        ConfigurationError: As :func:`load_config`, of this section and the sections' names.
    """
    try:
        return _Workspace.model_validate(
            {
                name: value
                for name, value in values.items()
                if name == "workspace" or name not in FinetuneConfig.model_fields
            }
        ).workspace
    except ValidationError as error:
        raise _refusal(error, source) from None


class _Workspace(Spec):
    workspace: WorkspaceSpec = Field(default_factory=WorkspaceSpec)


def _refusal(error: ValidationError, source: str | None) -> ConfigurationError:
    problems = [_sentence(problem) for problem in error.errors(include_url=False)]
    first, *others = problems
    message = first[1] if not others else first[1] + _also(others)
    where = first[0] if source is None else f"{source}: {first[0]}"
    return ConfigurationError(message, where=where)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"the file cannot be read ({error.strerror}).",
            where=str(path),
            remedy="Name one of the files in profiles/, or your own.",
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"the file is not YAML: {error}.", where=str(path)) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError("the file must hold sections, not one value.", where=str(path))
    return values


def _parse(text: str) -> Any:
    """Read YAML 1.2, in which 5e-6 is a number (PyYAML's 1.1 reads it as text).

    Raises:
        ValueError: It is not YAML, or has a key twice.
    """
    from ruamel.yaml import YAML

    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception as error:
        # Beside its own errors it lets Python's through: of 2001-99-99, `!!bool x`, a deep nest.
        raise ValueError(" ".join(str(error).split())) from error


def _apply(values: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    keys = name.split(".")
    if not equals or not all(keys):
        raise ConfigurationError(
            f"{setting!r} is not of the form a.b=value.",
            where="--set",
            remedy="For example: --set dataset.percentage=1",
        )
    try:
        value = _parse(text) if text else None
    except ValueError as error:
        raise ConfigurationError(f"{text[:80]!r} cannot be read as a value.", where=name) from error
    section = values
    for key in keys[:-1]:
        # Null: a section of which every key is commented out.
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise ConfigurationError(f"{key!r} is a value and has no parts.", where=name)
    section[keys[-1]] = value


def _sentence(problem: Any) -> tuple[str, str]:
    where = ".".join(_readable(part) for part in problem["loc"]) or "the configuration"
    given = _BRIEF.repr(problem["input"])
    match problem["type"]:
        case "extra_forbidden":
            near = _nearest(problem["loc"])
            return where, f"there is no such parameter{near}"
        case "missing":
            return where, "a value is required and none is given."
        case "value_error":
            return where, f"{problem['ctx']['error']}"
        case _:
            return where, f"{_lower(problem['msg'])}, but it is {given}."


def _readable(part: int | str) -> str:
    """Return a name as it is, or quoted where a terminal could not show it."""
    name = str(part)
    return name if name.isprintable() and len(name) <= _BRIEF.maxstring else _BRIEF.repr(name)


def _nearest(place: tuple[int | str, ...]) -> str:
    model: Any = FinetuneConfig
    for part in place[:-1]:
        field = model.model_fields.get(part)
        if field is None or not hasattr(field.annotation, "model_fields"):
            return "."
        model = field.annotation
    near = difflib.get_close_matches(str(place[-1]), list(model.model_fields), n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(model.model_fields)}."


def _also(others: list[tuple[str, str]]) -> str:
    return " Also: " + " ".join(f"{where}: {message}" for where, message in others)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
