"""Step 2, *model*: choose the foundation model, and read what its publisher says about it.

The publisher says it in three places, and moved some of it in June 2026: tags (strings that hold
Python literals), ``properties``, and ``systemMetadata``, which the SDK drops on the way. So the
model version is read once more as plain JSON, by the SDK's own client for the registry.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from pydantic import Field

from lifecycle import clients
from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import ModelNotFound, ModelRetired
from lifecycle.loose import look_up
from lifecycle.plain import Result, Spec

Scalar = str | int | float | bool

_DESCRIPTION = 600
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$"


class ModelSpec(Spec):
    """Which foundation model to fine-tune."""

    name: str = Field(
        pattern=_NAME,
        title="Model",
        description="Name of a model in the registry.",
        examples=["Phi-4-mini-instruct"],
    )
    version: str = Field(
        default="latest",
        pattern=_NAME,
        title="Version",
        description="A version of the model, or latest for the newest that the registry lists.",
        examples=["latest", "7"],
    )
    allow_retired: bool = Field(
        default=False,
        title="Allow retired",
        description="Go on with a model that is archived or past its fine-tuning retirement date.",
        examples=[False],
    )


class ModelResult(Result):
    """The model that was found, and what its publisher says about it."""

    name: str = Field(title="Model", description="Name.", examples=["Phi-4-mini-instruct"])
    version: str = Field(title="Version", description="The version found.", examples=["7"])
    id: str = Field(
        title="Asset id",
        description="What the job takes as its input.",
        examples=["azureml://registries/azureml/models/Phi-4-mini-instruct/versions/7"],
    )
    model_type: str = Field(title="Type", description="Asset type.", examples=["mlflow_model"])
    description: str | None = Field(
        title="Description",
        description=f"What its publisher says of it, {_DESCRIPTION} characters at most.",
        examples=["A small chat model."],
    )
    finetune_allow_list: list[str] | None = Field(
        title="Sizes for fine-tuning",
        description="VM sizes that the publisher allows; None where it does not say.",
        examples=[["Standard_NC24ads_A100_v4"]],
    )
    inference_allow_list: list[str] | None = Field(
        title="Sizes for inference",
        description="VM sizes that the publisher allows; None where it does not say.",
        examples=[["Standard_NC24ads_A100_v4"]],
    )
    allow_list_source: str = Field(
        title="Source of the lists",
        description="Where the two lists were found.",
        examples=["tags", "system_metadata", "none", "finetune: tags, inference: none"],
    )
    defaults: dict[str, Scalar] = Field(
        title="Defaults",
        description="Training parameters that the publisher recommends, unfiltered.",
        examples=[{"apply_lora": "true"}],
    )
    archived: bool = Field(
        title="Archived", description="Whether the registry has archived it.", examples=[False]
    )
    retirement_date: str | None = Field(
        title="Retirement",
        description="Day on which fine-tuning it ends or ended, ISO 8601.",
        examples=["2025-08-30"],
    )
    warnings: list[str] = Field(
        title="Warnings",
        description="What a person should know before money is spent.",
        examples=[["The tag learning_rate is malformed and was ignored."]],
    )


def select_model(ref: WorkspaceRef, spec: ModelSpec) -> ModelResult:
    """Find the model in the registry and read its tags, allow lists and retirement.

    Raises:
        ModelNotFound: The registry has no such model or version.
        ModelRetired: It is archived or past its date, and ``spec.allow_retired`` is not set.
        ServiceError: The registry did not answer, or with an error.
    """
    doing = f"reading the model {spec.name} in the registry {ref.registry}"
    where = "model.name" if spec.version == "latest" else "model.version"
    with translated(doing, where=where, not_found=ModelNotFound):
        version = _resolve_version(ref, spec)
        model = clients.registry_client(ref).models.get(spec.name, version=version)
        raw = clients.registry_get(ref, f"models/{spec.name}/versions/{version}", {})
    found = read_model(
        raw, name=spec.name, version=version, asset_id=str(model.id), model_type=str(model.type)
    )
    return refuse_retired(found, spec, datetime.now(UTC).date())


def read_model(
    raw: Mapping[str, Any], *, name: str, version: str, asset_id: str, model_type: str
) -> ModelResult:
    """Read a model version as the registry's REST API gives it.

    Accepts ``systemMetadata`` and ``system_metadata``, at the top or in ``properties``, as object
    or JSON text: which of them is on the live wire is not documented. A malformed value becomes a
    warning. Where no list for fine-tuning is found, that is a warning too, and the list is None.
    """
    places = _places(raw)
    warnings: list[str] = []
    finetune, finetune_source = _allow_list(places, "finetune", warnings)
    inference, inference_source = _allow_list(places, "inference", warnings)
    if finetune is None:
        warnings.append(
            f"{name} version {version} does not say which VM sizes it can be fine-tuned on: "
            "the size is not checked, and the job may run out of memory."
        )
    if inference is None:
        warnings.append(
            f"{name} version {version} does not say which VM sizes can serve it: "
            "the instance type is not checked."
        )
    return ModelResult(
        name=name,
        version=version,
        id=asset_id,
        model_type=model_type,
        description=_description(places),
        finetune_allow_list=finetune,
        inference_allow_list=inference,
        allow_list_source=finetune_source
        if finetune_source == inference_source
        else f"finetune: {finetune_source}, inference: {inference_source}",
        defaults=_defaults(places, warnings),
        archived=any(_truth(look_up(place, "isArchived")) for place in places.values()),
        retirement_date=_retirement_date(places, warnings),
        warnings=warnings,
    )


def refuse_retired(found: ModelResult, spec: ModelSpec, today: date) -> ModelResult:
    """Return ``found``, with a warning where it is retired or soon to be.

    Raises:
        ModelRetired: It is archived or past its date, and ``spec.allow_retired`` is not set.
    """
    ends = date.fromisoformat(found.retirement_date) if found.retirement_date else None
    over = ends is not None and ends < today
    said = ["is archived in the registry"] if found.archived else []
    if ends is not None:
        said.append(f"{'could' if over else 'can'} be fine-tuned until {ends.isoformat()}")
    if not said:
        return found
    message = f"{found.name} version {found.version} {' and '.join(said)}."
    if (found.archived or over) and not spec.allow_retired:
        raise ModelRetired(message, where="model.name")
    return found.model_copy(update={"warnings": [message, *found.warnings]})


def parse_literal(text: Any) -> Any:
    """Parse a tag that holds a Python or JSON literal, within bounds.

    A value that is no string is returned as it is. At most 20 000 characters and three levels
    of brackets, since the parser's stack is as deep as the text.

    Raises:
        ValueError: It is longer, deeper, or no literal.
    """
    if not isinstance(text, str):
        return text
    if len(text) > 20_000:
        raise ValueError("longer than 20 000 characters")
    depth = deepest = 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        deepest = max(deepest, depth)
    if deepest > 3 or re.search(r"[-+~]{3}", text):
        raise ValueError("nested too deep")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError(f"no literal: {type(error).__name__}") from error


def _resolve_version(ref: WorkspaceRef, spec: ModelSpec) -> str:
    if spec.version != "latest":
        return spec.version
    from azure.ai.ml.exceptions import ValidationException

    registry = clients.registry_client(ref)
    try:
        return str(registry.models.get(spec.name, label="latest").version)
    except ValidationException:
        # The registry lists no archived versions unless it is asked for them, so a model that was
        # retired looks like one that never was.
        newest = _newest_archived(ref, spec.name)
        if newest is None:
            raise
        return newest


def _newest_archived(ref: WorkspaceRef, name: str) -> str | None:
    listed = clients.registry_get(ref, f"models/{name}/versions", {"listViewType": "All"})
    versions = listed.get("value") or []
    if not versions:
        return None

    def age(version: Mapping[str, Any]) -> str:
        created = version.get("systemData") or {}
        return str(created.get("createdAt", ""))

    return str(max(versions, key=age)["name"])


def _places(raw: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return where the publisher may have put something, by the name to report it under."""
    properties = _mapping(raw.get("properties"))
    metadata: dict[str, Any] = {}
    for place in (properties, raw):
        for spelling in ("systemMetadata", "system_metadata"):
            metadata = metadata or dict(_mapping(place.get(spelling)))
    return {
        "tags": _mapping(properties.get("tags")),
        "system_metadata": metadata,
        "deprecation": _mapping(look_up(metadata, "deprecation")),
        "properties": _mapping(properties.get("properties")),
        "version": properties,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _allow_list(
    places: Mapping[str, Mapping[str, Any]], use: str, warnings: list[str]
) -> tuple[list[str] | None, str]:
    supported = _mapping(look_up(places["system_metadata"], "supportedComputes"))
    candidates = {
        "tags": (f"{use}_compute_allow_list", places["tags"]),
        "system_metadata": (f"{use}Computes", supported),
    }
    for source, (name, place) in candidates.items():
        value = look_up(place, name)
        if value is None:
            continue
        try:
            return _sizes(parse_literal(value)), source
        except ValueError as error:
            warnings.append(f"{name} in the model's {source} is malformed ({error}): ignored.")
    return None, "none"


def _sizes(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError("no list of strings")
    if not 0 < len(value) <= 1000:
        raise ValueError(f"{len(value)} sizes")
    return [item.strip() for item in value]


def _defaults(places: Mapping[str, Mapping[str, Any]], warnings: list[str]) -> dict[str, Scalar]:
    name = "model_specific_defaults"
    value = look_up(places["tags"], name)
    if value is None:
        value = look_up(places["system_metadata"], name)
    if value is None:
        return {}
    try:
        return dict(_scalars(parse_literal(value)))
    except ValueError as error:
        warnings.append(f"{name} of the model is malformed ({error}): ignored.")
        return {}


def _scalars(value: Any) -> Iterator[tuple[str, Scalar]]:
    if not isinstance(value, Mapping):
        raise ValueError("no mapping")
    if len(value) > 1000:
        raise ValueError(f"{len(value)} entries")
    for key, item in value.items():
        if not isinstance(key, str):
            raise ValueError(f"the name {key!r:.40} is no string")
        if not isinstance(item, (str, int, float)):
            raise ValueError(f"the value of {key} is no string or number")
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"the value of {key} is not finite")
        yield key, item


def _description(places: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the beginning of the description, on one line: some are whole pages of Markdown."""
    text = " ".join(str(look_up(places["version"], "description") or "").split())
    return (text if len(text) <= _DESCRIPTION else f"{text[: _DESCRIPTION - 1]}…") or None


def _truth(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _retirement_date(places: Mapping[str, Mapping[str, Any]], warnings: list[str]) -> str | None:
    for place in places.values():
        value = look_up(place, "finetuneRetirementDate")
        if not value:
            continue
        try:
            return date.fromisoformat(str(value).strip()[:10]).isoformat()
        except ValueError:
            warnings.append(f"The model's retirement date {str(value)[:40]!r} is not understood.")
    return None
