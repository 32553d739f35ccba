"""The form of a run: whoever has read nothing can fill it in, and a wrong value starts no run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema

from flows.finetune import finetune_chat_model
from flows.restart import restart_crashed_run, restart_missed_runs
from flows.sweep import sweep_endpoints

RIGHT: dict[str, dict[str, Any]] = {
    "model": {"name": "Phi-4"},
    "dataset": {"path": "HuggingFaceH4/ultrachat_200k", "percentage": 5},
    "compute": {"name": "gpu-cluster-big", "size": "Standard_NC24ads_A100_v4"},
    "endpoint": {"name_prefix": "ultrachat", "instance_type": "Standard_NC24ads_A100_v4"},
}
SHOWN = [
    json.loads(text)
    for page in sorted(Path("docs").rglob("*.md"))
    for text in re.findall(r"--params '(.+?)'", page.read_text(encoding="utf-8"))
]


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field of each section, and each that is in none, as the forms are given it."""
    for flow in (finetune_chat_model, sweep_endpoints, restart_crashed_run, restart_missed_runs):
        schema = parameter_schema(flow).model_dump()
        sections = {name: one["properties"] for name, one in schema["definitions"].items()}
        alone = {name: one for name, one in schema["properties"].items() if "$ref" not in one}
        for section, told in {**sections, flow.name: alone}.items():
            for name, field in told.items():
                yield f"{section}.{name}", field


FIELDS = dict(fields())


def test_the_sections_come_in_the_order_of_the_work() -> None:
    """What a person must choose first; deadlines and the workspace, which are set, last."""
    schema = parameter_schema(finetune_chat_model).model_dump()
    ranked = sorted(schema["properties"].items(), key=lambda item: item[1]["position"])

    assert [
        "model", "dataset", "compute", "endpoint", "evaluation", "training", "job", "workspace",
    ] == [name for name, _ in ranked]  # fmt: skip
    assert ["model", "dataset", "compute", "endpoint"] == schema["required"]
    assert [] == [name for name, told in ranked if not told.get("description")]


@pytest.mark.parametrize(("name", "told"), FIELDS.items(), ids=FIELDS)
def test_every_field_says_what_it_is(name: str, told: dict[str, Any]) -> None:
    """A title, a sentence, an example; a number has bounds, and says its unit if it has one."""
    kinds = [told, *told.get("anyOf", [])]

    assert {"title", "description", "examples"} <= set(told)
    assert "." in told["description"]
    for kind in kinds:
        if kind.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(kind), "no least value"
    for unit in ("seconds", "minutes"):
        if name.endswith(f"_{unit}"):
            assert unit in told["description"].lower()


@pytest.fixture(scope="module")
def deployment(prefect_server: str) -> UUID:
    """The flow, deployed."""
    found = finetune_chat_model.to_deployment("form").apply()
    assert isinstance(found, UUID)
    return found


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("model", {}),
        ("model", {"name": "Phi 4"}),
        ("model", {"name": "Phi-4", "verison": "7"}),
        ("dataset", {"percentage": 0}),
        ("dataset", {"percentage": 101}),
        ("dataset", {"percentage": "five"}),
        ("dataset", {"sampling": "some"}),
        ("dataset", {"rows": 0}),
        ("compute", {"size": "Standard_NC24ads_A100_v4", "name": "a"}),
        ("compute", {"size": "Standard_NC24ads_A100_v4", "tier": "spot"}),
        ("compute", {"size": "Standard_NC24ads_A100_v4", "nodes": 1.5}),
        ("endpoint", {"instance_type": "Standard_NC24ads_A100_v4", "name_prefix": "1st"}),
        ("endpoint", {"instance_type": "Standard_NC24ads_A100_v4", "name_prefix": "a" * 13}),
        ("endpoint", {"instance_type": "Standard_NC24ads_A100_v4", "keep": "perhaps"}),
        ("evaluation", {"conversations": 1001}),
        ("training", {"overrides": {"learning_rate": [1]}}),
        ("job", {"run_deadline_minutes": -1}),
        ("workspace", {"name": ""}),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_before_a_run_exists(
    deployment: UUID, section: str, value: dict[str, Any]
) -> None:
    """The API says no, with the reason; there is no run, not even a failed one."""
    with get_client(sync_client=True) as client:
        with pytest.raises(PrefectHTTPStatusError) as refused:
            client.create_flow_run_from_deployment(deployment, parameters={**RIGHT, section: value})
        found = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        )

    assert 409 == refused.value.response.status_code
    assert [] == found


@pytest.mark.parametrize("given", [{}, *SHOWN], ids=json.dumps)
def test_the_right_values_make_a_run(deployment: UUID, given: dict[str, Any]) -> None:
    """What the form is filled with first is taken as it is, and so is what the pages show."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployment, parameters=RIGHT | given)
        client.delete_flow_run(run.id)

    assert run.deployment_id == deployment
    assert SHOWN
    assert "path" in given.get("dataset", {"path"}), "the default data set's, in its place"
