"""A change is judged by the resource where its operation cannot be read, and ends in time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef
from lifecycle.compute import ComputeSpec, SizeInfo, ensure_compute
from lifecycle.endpoint import EndpointRef, EndpointSpec, create_endpoint, deploy, route_traffic
from lifecycle.errors import EndpointError
from lifecycle.model import ModelSpec, select_model
from lifecycle.registration import RegisteredModel

A100 = SizeInfo(name="Standard_NC24ads_A100_v4", gpus=1, vcpus=24, memory_gb=220, low_priority=True)
STATUS = {"method": "GET", "path": "(?:mfe|compute)Operations(?:Status|Results)"}


def refused(status: int, code: str) -> dict[str, Any]:
    """An answer of Azure's that refuses."""
    return {"status": status, "error": {"code": code, "message": "It cannot be read."}}


UNREADABLE = [
    refused(404, "NotFound"),
    refused(403, "AuthorizationFailed"),
    refused(403, "Forbidden"),
    refused(401, "InvalidAuthenticationToken"),
    {"status": 200, "body": ""},
    {"status": 200, "body": "{}"},
    {"status": 200, "body": "[]"},
    {"status": 200, "body": "<html>"},
    {"status": 200, "body": json.dumps({"status": None})},
    {"status": 200, "body": json.dumps({"status": "Flummoxed"})},
    {"status": 202, "body": "", "headers": {"Retry-After": "86400"}},
]


@pytest.mark.parametrize("answer", UNREADABLE, ids=str)
def test_the_resource_is_asked_where_the_operation_cannot_be_read(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
    answer: dict[str, Any],
) -> None:
    """Cluster, endpoint, deployment and traffic come into being all the same, and soon."""
    found = select_model(slow_workspace, ModelSpec(name="Phi-4-mini-instruct"))
    model = RegisteredModel(name=found.name, version=found.version, id=found.id)
    slow_emulator.faults({"match": STATUS, "effect": answer})

    made = ensure_compute(slow_workspace, ComputeSpec(size=A100.name), A100, clock=clock)
    up = create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)
    serving = deploy(slow_workspace, endpoint_spec, endpoint, model, clock=clock)
    routed = route_traffic(slow_workspace, endpoint, {"demo": 100}, clock=clock)

    assert made.created
    assert ("Succeeded", "Succeeded") == (up.provisioning_state, serving.provisioning_state)
    assert {"demo": 100} == routed.traffic
    assert sum(clock.slept) < 25 * 60


@pytest.mark.parametrize(
    "answer", [refused(403, "AuthorizationFailed"), refused(404, "ResourceGroupNotFound")], ids=str
)
def test_a_resource_that_may_not_be_read_is_an_error_after_two_minutes(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
    answer: dict[str, Any],
) -> None:
    """A new role takes as long to arrive; after that nobody waits for the whole deadline."""
    get = {"method": "GET", "path": "/onlineEndpoints/[^/]+$"}
    slow_emulator.faults(
        {"match": STATUS, "effect": refused(404, "NotFound")},
        {"match": get, "nth": list(range(2, 999)), "effect": answer},
    )

    with pytest.raises(EndpointError, match=answer["error"]["code"]):
        create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)

    assert 110 < sum(clock.slept) < 200


def test_an_operation_that_failed_is_a_failure_whatever_the_resource_shows(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
) -> None:
    """What Azure says in so many words is believed."""
    failed = {"operation_error": {"code": "BadArgument", "message": "Not like this."}}
    put = {"method": "PUT", "path": "/onlineEndpoints/[^/]+$"}
    emulator.faults({"match": put, "effect": failed})

    with pytest.raises(EndpointError, match="Not like this"):
        create_endpoint(workspace, endpoint_spec, endpoint, clock=clock)


@pytest.mark.parametrize("spelling", ["succeeded", "SUCCEEDED"])
def test_a_state_is_read_without_regard_to_case(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
    spelling: str,
) -> None:
    """Azure itself changes the case of words between two answers."""
    create_endpoint(workspace, endpoint_spec, endpoint, clock=clock)
    body = {
        "name": endpoint.name,
        "location": "eastus2",
        "tags": {"finetune-owner": endpoint.owner},
        "properties": {"authMode": "Key", "provisioningState": spelling, "traffic": {}},
    }
    get = {"method": "GET", "path": "/onlineEndpoints/[^/]+$"}
    emulator.faults({"match": get, "effect": {"status": 200, "body": json.dumps(body)}})

    again = create_endpoint(workspace, endpoint_spec, endpoint, clock=clock)

    assert "Succeeded" == again.provisioning_state
