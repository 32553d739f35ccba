"""What the publisher says about a model is read safely, wherever it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle.clients import WorkspaceRef
from lifecycle.errors import ModelNotFound, ModelRetired
from lifecycle.model import (
    ModelResult,
    ModelSpec,
    parse_literal,
    read_model,
    refuse_retired,
    select_model,
)

SIZES = ["Standard_NC24ads_A100_v4", "Standard_ND96asr_v4"]
TAGS = {
    "finetune_compute_allow_list": str(SIZES),
    "inference_compute_allow_list": str(SIZES[:1]),
    "model_specific_defaults": "{'apply_lora': 'true', 'deepspeed_stage': 2, 'precision': 16}",
}


def read(properties: dict[str, Any] | None = None, **top: Any) -> ModelResult:
    """Read a model version of this shape."""
    raw = {"name": "3", "properties": properties or {}, **top}
    return read_model(
        raw, name="Phi", version="3", asset_id="azureml://x", model_type="mlflow_model"
    )


def test_allow_lists_and_defaults_come_from_tags() -> None:
    """The tutorial's way: strings that hold a Python list and a Python dict."""
    found = read({"tags": TAGS})

    assert SIZES == found.finetune_allow_list
    assert SIZES[:1] == found.inference_allow_list
    assert {"apply_lora": "true", "deepspeed_stage": 2, "precision": 16} == found.defaults
    assert "tags" == found.allow_list_source
    assert [] == found.warnings


def test_the_description_is_kept_on_one_line_and_within_bounds() -> None:
    """A stand-in that calls itself one is named so; a whole model card is not carried along."""
    card = "A stand-in.\n\n## Use\n" + "word " * 1000

    assert "A stand-in. ## Use word" == (read({"description": card}).description or "")[:23]
    assert 600 == len(read({"description": card}).description or "")
    assert None is read({"description": " "}).description
    assert None is read().description


@pytest.mark.parametrize("spelling", ["systemMetadata", "system_metadata"])
@pytest.mark.parametrize("at_top", [False, True])
@pytest.mark.parametrize("wrap", [lambda value: value, json.dumps], ids=["object", "text"])
@pytest.mark.parametrize(
    "inner", [lambda value: value, json.dumps, str], ids=["list", "json", "py"]
)
def test_allow_lists_come_from_system_metadata_however_it_is_spelled(
    spelling: str, at_top: bool, wrap: Callable[[Any], Any], inner: Callable[[Any], Any]
) -> None:
    """What the registry publishes since June 2026 is read in each form the wire may have."""
    supported = {"finetuneComputes": inner(SIZES), "inferenceComputes": inner(SIZES[:1])}
    metadata = {spelling: wrap({"supportedComputes": supported})}
    found = read(None, **metadata) if at_top else read(metadata)

    assert SIZES == found.finetune_allow_list
    assert SIZES[:1] == found.inference_allow_list
    assert "system_metadata" == found.allow_list_source


def test_each_list_says_its_own_source() -> None:
    """A model may have moved only one of its lists."""
    tags = {"finetune_compute_allow_list": str(SIZES)}
    metadata = {"supportedComputes": {"inferenceComputes": SIZES}}
    found = read({"tags": tags, "systemMetadata": metadata})

    assert "finetune: tags, inference: system_metadata" == found.allow_list_source


def test_no_list_at_all_is_a_loud_warning_and_no_silent_deny_list() -> None:
    """None means "not checked", and says so: the tutorial falls back to four K80 sizes."""
    found = read()

    assert found.finetune_allow_list is None
    assert "none" == found.allow_list_source
    assert any("fine-tuned" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "['a', 1]",
        "{'a': 'b'}",
        "[]",
        "['unclosed",
        "[" * 50 + "]" * 50,
        "-" * 5000 + "1",
        "['" + "x" * 30_000 + "']",
        "1+" * 4000 + "1",
    ],
)
def test_a_malformed_list_is_a_warning_and_not_a_crash(text: str) -> None:
    """A publisher's slip, or malice, costs the check and is named; it runs no code."""
    found = read({"tags": {"finetune_compute_allow_list": text}})

    assert found.finetune_allow_list is None
    assert any("finetune_compute_allow_list" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "text", ["{'a': [1]}", "{1: 'a'}", "['a']", "{'a': 1e999}", "{'a': None}", "no dict"]
)
def test_malformed_defaults_are_a_warning_and_not_a_crash(text: str) -> None:
    """Defaults that are no flat table of strings and numbers are left out, by name."""
    found = read({"tags": {**TAGS, "model_specific_defaults": text}})

    assert {} == found.defaults
    assert any("model_specific_defaults" in warning for warning in found.warnings)


def test_a_malformed_tag_falls_back_to_system_metadata() -> None:
    """A list that can be read is used, and the one that could not is named."""
    found = read(
        {
            "tags": {"finetune_compute_allow_list": "oops"},
            "systemMetadata": {"supportedComputes": {"finetuneComputes": SIZES}},
        }
    )

    assert SIZES == found.finetune_allow_list
    assert any("malformed" in warning for warning in found.warnings)


def test_literals_are_bounded() -> None:
    """The parser is as deep as its text, so text is measured before it is parsed."""
    assert ["a"] == parse_literal("  ['a'] ")
    assert {"a": True} == parse_literal('{"a": true}')
    assert ["a"] == parse_literal(["a"])
    for text in ["[" * 4 + "]" * 4, "x" * 20_001]:
        with pytest.raises(ValueError, match=r"deep|longer"):
            parse_literal(text)


@pytest.mark.parametrize(
    "properties",
    [
        {"isArchived": True},
        {"is_archived": True},
        {"tags": {"isArchived": "true"}},
        {"properties": {"isArchived": "True"}},
        {"systemMetadata": {"isArchived": True}},
    ],
)
def test_an_archived_model_is_refused(properties: dict[str, Any]) -> None:
    """Nothing is spent on a model that its publisher has withdrawn, wherever that is said."""
    found = read(properties)

    with pytest.raises(ModelRetired, match="archived"):
        refuse_retired(found, ModelSpec(name="Phi"), date(2026, 11, 21))


@pytest.mark.parametrize("place", ["tags", "properties", "systemMetadata"])
@pytest.mark.parametrize("name", ["finetuneRetirementDate", "FinetuneRetirementDate"])
def test_a_model_past_its_date_is_refused_naming_the_date(place: str, name: str) -> None:
    """The message says since when, so that nobody looks for a fault of their own."""
    found = read({place: {name: "2025-08-30"}})

    with pytest.raises(ModelRetired, match="2025-08-30"):
        refuse_retired(found, ModelSpec(name="Phi"), date(2025, 8, 31))


def test_the_date_is_found_under_deprecation() -> None:
    """Where today's specs of the registry keep it."""
    stated = {"finetuneRetirementDate": "2025-08-30T00:00:00.000000Z"}
    found = read({"systemMetadata": {"deprecation": stated}})

    assert "2025-08-30" == found.retirement_date


def test_the_last_day_is_still_allowed_with_a_warning() -> None:
    """A date to come is a warning: a schedule will fail on it."""
    found = read({"tags": {**TAGS, "FinetuneRetirementDate": "2025-08-30T00:00:00Z"}})
    kept = refuse_retired(found, ModelSpec(name="Phi"), date(2025, 8, 30))

    assert any("2025-08-30" in warning for warning in kept.warnings)


def test_a_retired_model_may_be_allowed_with_a_warning() -> None:
    """allow_retired goes on, and still says what it goes on with."""
    found = read({"isArchived": True, "tags": {**TAGS, "FinetuneRetirementDate": "2025-08-30"}})
    kept = refuse_retired(found, ModelSpec(name="Phi", allow_retired=True), date(2026, 1, 1))

    assert kept.archived
    assert "archived" in kept.warnings[0]
    assert "2025-08-30" in kept.warnings[0]


def test_a_date_that_is_not_understood_is_a_warning() -> None:
    """A publisher's slip in a date stops nobody."""
    found = read({"tags": {**TAGS, "FinetuneRetirementDate": "end of summer"}})

    assert found.retirement_date is None
    assert any("end of summer" in warning for warning in found.warnings)


@pytest.fixture
def running(start_emulator: Callable[..., Any], tmp_path: Path) -> Any:
    """An emulator whose registry has a model in each state."""

    def model(name: str, version: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "version": version,
            "type": "mlflow_model",
            "tags": {},
            "properties": {},
            "system_metadata": {},
            "archived": False,
            "created": f"2024-04-{int(version):02}",
            "description": "A test's own.",
            **more,
        }

    table = {
        "location": "eastus2",
        "sizes": [],
        "quotas": {},
        "components": [],
        "models": [
            model("Served", "1", tags=TAGS),
            model(
                "Served",
                "2",
                system_metadata={"supportedComputes": {"finetuneComputes": SIZES}},
            ),
            model("Gone", "14", archived=True),
            model("Gone", "15", archived=True, tags={"FinetuneRetirementDate": "2025-08-30"}),
        ],
    }
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(json.dumps(table))
    return start_emulator(catalog=str(catalog))


@pytest.fixture
def registry(running: Any) -> WorkspaceRef:
    """The workspace from which that registry is read."""
    from azureml_emulator import settings as names

    return WorkspaceRef(
        subscription_id=names.SUBSCRIPTION_ID,
        resource_group=names.RESOURCE_GROUP,
        name=names.WORKSPACE_NAME,
    )


def test_latest_is_the_newest_version(registry: WorkspaceRef) -> None:
    """What latest means is resolved once, and the rest of the run uses the version found."""
    found = select_model(registry, ModelSpec(name="Served"))

    assert ("Served", "2", "mlflow_model") == (found.name, found.version, found.model_type)
    assert "azureml://registries/azureml/models/Served/versions/2" == found.id
    assert SIZES == found.finetune_allow_list


def test_a_fixed_version_is_that_version(registry: WorkspaceRef) -> None:
    """A version that is named is not replaced by a newer one."""
    found = select_model(registry, ModelSpec(name="Served", version="1"))

    assert "1" == found.version
    assert "tags" == found.allow_list_source


@pytest.mark.parametrize(
    ("name", "version", "where"),
    [("NoSuch", "latest", "model.name"), ("Served", "99", "model.version")],
)
def test_a_model_that_is_not_there_is_refused(
    registry: WorkspaceRef, name: str, version: str, where: str
) -> None:
    """A typing error is told as such, with the parameter at fault."""
    with pytest.raises(ModelNotFound) as raised:
        select_model(registry, ModelSpec(name=name, version=version))

    assert where == raised.value.where


@pytest.mark.parametrize("version", ["latest", "15"])
def test_an_archived_model_is_told_from_one_that_never_was(
    registry: WorkspaceRef, version: str
) -> None:
    """The registry hides archived versions; a person still learns that theirs was retired."""
    with pytest.raises(ModelRetired, match="archived"):
        select_model(registry, ModelSpec(name="Gone", version=version))

    found = select_model(registry, ModelSpec(name="Gone", version=version, allow_retired=True))
    assert ("15", "2025-08-30") == (found.version, found.retirement_date)


@pytest.mark.parametrize(
    "spec", [{"name": ""}, {"name": "../models"}, {"name": "Phi", "version": "a/b"}]
)
def test_a_name_that_is_no_name_is_refused(spec: dict[str, str]) -> None:
    """What goes into an address is checked before it does."""
    with pytest.raises(ValueError, match="pattern"):
        ModelSpec(**spec)


def test_a_registry_that_hides_archived_versions_is_asked_for_them(
    registry: WorkspaceRef, running: Any
) -> None:
    """Where "latest" finds nothing, what was there before is looked for, and its newest told."""
    hidden = {
        "match": {"method": "GET", "path": "/models/Gone/versions$"},
        "nth": [1],
        "effect": {
            "status": 200,
            "headers": {"Content-Type": "application/json"},
            "body": '{"value": []}',
        },
    }
    running.faults(hidden)

    with pytest.raises(ModelRetired, match="version 15"):
        select_model(registry, ModelSpec(name="Gone"))


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
_PLACE = st.dictionaries(
    st.sampled_from(
        [
            "finetune_compute_allow_list",
            "model_specific_defaults",
            "supportedComputes",
            "finetuneComputes",
            "finetuneRetirementDate",
            "isArchived",
            "description",
            "deprecation",
        ]
    ),
    _ANYTHING,
)
_VERSION = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.fixed_dictionaries(
            {},
            optional={
                "tags": _PLACE | _ANYTHING,
                "properties": _PLACE | _ANYTHING,
                "systemMetadata": _PLACE | _ANYTHING,
                "description": _ANYTHING,
            },
        )
        | _ANYTHING,
        "system_metadata": _PLACE | _ANYTHING,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_VERSION)
def test_a_model_version_of_whatever_shape_is_read(raw: dict[str, Any]) -> None:
    """What the publisher says is a courtesy: what is not understood becomes a warning."""
    found = read_model(
        raw, name="m", version="1", asset_id="azureml://m", model_type="mlflow_model"
    )

    assert found.finetune_allow_list is None or found.finetune_allow_list
    assert all(isinstance(warning, str) for warning in found.warnings)
