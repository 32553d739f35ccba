"""Resources that are not as they should be for a while: hidden, or not settled, after a change."""

from __future__ import annotations

from typing import Any

import pytest
from azureml_emulator import settings as names

from tests.conftest import RunningEmulator
from tests.emulator.conftest import Wire

ENDPOINTS = f"{names.WORKSPACE_ID}/onlineEndpoints"
ENDPOINT = f"{ENDPOINTS}/chat-1"
BODY = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
PUT = {"method": "PUT", "path": "/onlineEndpoints/[^/]+$"}
CREATED = 21


def state(wire: Wire) -> str:
    """Return the endpoint's provisioning state."""
    return str(wire("GET", ENDPOINT).json()["properties"]["provisioningState"])


def listed(wire: Wire) -> list[str]:
    """Return the names of the workspace's endpoints."""
    return [one["name"] for one in wire("GET", ENDPOINTS).json()["value"]]


def test_a_hidden_resource_is_not_found_for_a_while(
    timed: RunningEmulator, timed_wire: Wire
) -> None:
    """It was made, and is billed; nobody finds it, nothing below it, and no list has it."""
    timed.faults({"match": PUT, "effect": {"hidden": 30}})
    made = timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(29)
    early = [
        timed_wire("GET", ENDPOINT.upper()).status_code,
        timed_wire("POST", f"{ENDPOINT}/listKeys").status_code,
        timed_wire("GET", f"{ENDPOINT}/deployments").status_code,
        timed_wire("PATCH", ENDPOINT, {}).status_code,
    ]
    unlisted, meters = listed(timed_wire), timed.open_meters()
    timed.advance(1)

    assert (201, [404, 404, 404, 404]) == (made.status_code, early)
    assert ([], [ENDPOINT]) == (unlisted, meters)
    assert ("Succeeded", ["chat-1"]) == (state(timed_wire), listed(timed_wire))


def test_deleting_what_is_hidden_deletes_nothing(timed: RunningEmulator, timed_wire: Wire) -> None:
    """204, as for what is not there: a client that believes it leaves the endpoint behind."""
    timed.faults({"match": PUT, "effect": {"hidden": 30}})
    timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(25)
    answer = timed_wire("DELETE", ENDPOINT)
    timed.advance(3600)

    assert 204 == answer.status_code
    assert (200, [ENDPOINT]) == (
        timed_wire("GET", ENDPOINT).status_code,
        timed.open_meters(),
    )


def test_a_put_finds_what_is_hidden(timed: RunningEmulator, timed_wire: Wire) -> None:
    """A client that sends its PUT again makes no second one, nor hides the first one longer."""
    timed.faults({"match": PUT, "effect": {"hidden": 30}})
    first = timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(25)
    again = timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(5)

    assert (201, 200) == (first.status_code, again.status_code)
    assert ["chat-1"] == listed(timed_wire)


def test_a_cluster_may_be_hidden_too(serving: RunningEmulator, wire: Wire) -> None:
    """Whatever a PUT makes, on any route."""
    path = f"{names.WORKSPACE_ID}/computes/gpu"
    serving.faults({"match": {"method": "PUT"}, "effect": {"hidden": 3600}})
    size = {"vmSize": "Standard_DS3_v2", "scaleSettings": {"maxNodeCount": 1}}
    made = wire("PUT", path, {"properties": {"computeType": "AmlCompute", "properties": size}})

    assert (201, 404) == (made.status_code, wire("GET", path).status_code)


def test_a_settling_resource_is_updating_after_its_operation_has_succeeded(
    timed: RunningEmulator, timed_wire: Wire
) -> None:
    """Also in lists; it may be read and asked for its keys, and a change is a 409 until then."""
    timed.faults({"match": PUT, "effect": {"settling": 30}})
    operation = timed_wire("PUT", ENDPOINT, BODY).headers["Azure-AsyncOperation"]
    timed.advance(CREATED)
    succeeded = timed_wire("GET", operation).json()["status"]
    shown = timed_wire("GET", ENDPOINTS).json()["value"][0]["properties"]["provisioningState"]
    during = [
        timed_wire("POST", f"{ENDPOINT}/listKeys").status_code,
        timed_wire("PUT", ENDPOINT, BODY).status_code,
        timed_wire("DELETE", ENDPOINT).status_code,
        timed_wire("DELETE", f"{ENDPOINT}/deployments/demo").status_code,
    ]
    states = [state(timed_wire)]
    timed.advance(29.9)
    states.append(state(timed_wire))
    timed.advance(0.1)
    states.append(state(timed_wire))

    assert ("Succeeded", "Updating") == (succeeded, shown)
    assert [200, 409, 409, 409] == during
    assert ["Updating", "Updating", "Succeeded"] == states
    assert 202 == timed_wire("DELETE", ENDPOINT).status_code


def test_what_failed_does_not_settle(timed: RunningEmulator, timed_wire: Wire) -> None:
    """Failed is shown as Failed, and may be deleted."""
    error = {"code": "X", "message": "x"}
    timed.faults({"match": PUT, "effect": {"settling": 30, "operation_error": error}})
    timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(CREATED)

    assert "Failed" == state(timed_wire)
    assert 202 == timed_wire("DELETE", ENDPOINT).status_code


def test_a_while_survives_a_restart(
    start_emulator: Any, timed: RunningEmulator, timed_wire: Wire, catalog: str
) -> None:
    """A client meets the same trouble after it."""
    timed.faults({"match": PUT, "effect": {"hidden": 3600}})
    timed_wire("PUT", ENDPOINT, BODY)
    timed.server.stop()
    again = start_emulator(catalog=catalog, latency="manual")

    assert 404 == Wire(again)("GET", ENDPOINT).status_code


def test_new_rules_end_what_the_old_ones_left_behind(serving: RunningEmulator, wire: Wire) -> None:
    """A test that takes its faults away finds everything as it is."""
    serving.faults({"match": PUT, "effect": {"hidden": 3600, "settling": 3600}})
    wire("PUT", ENDPOINT, BODY)
    hidden = wire("GET", ENDPOINT).status_code
    serving.faults()

    assert (404, "Succeeded") == (hidden, state(wire))


@pytest.mark.parametrize("code", ["OperationCanceled", "ScopeLocked"])
def test_a_deletion_is_refused_for_a_while(
    timed: RunningEmulator, timed_wire: Wire, code: str
) -> None:
    """409 with Azure's own code, for as long as the rule says, and then it goes through."""
    timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(CREATED)
    error = {"code": code, "message": "Wait."}
    effect = {"status": 409, "error": error}
    timed.faults({"match": {"method": "DELETE"}, "seconds": 60, "effect": effect})
    answers = []
    for _ in range(4):
        answers.append(timed_wire("DELETE", ENDPOINT))
        timed.advance(25)

    assert [409, 409, 409, 202] == [answer.status_code for answer in answers]
    assert error.items() <= answers[0].json()["error"].items()


def test_a_deletion_may_end_canceled(timed: RunningEmulator, timed_wire: Wire) -> None:
    """It was accepted, its operation Failed, the endpoint is there and billed, and can be tried."""
    timed_wire("PUT", ENDPOINT, BODY)
    timed.advance(CREATED)
    error = {"code": "OperationCanceled", "message": "Overridden."}
    effect = {"operation_error": error}
    timed.faults({"match": {"method": "DELETE"}, "nth": [1], "effect": effect})
    operation = timed_wire("DELETE", ENDPOINT).headers["Azure-AsyncOperation"]
    timed.advance(60)
    ended = timed_wire("GET", operation)
    left, meters = state(timed_wire), timed.open_meters()
    timed_wire("DELETE", ENDPOINT)
    timed.advance(60)

    assert (200, "Failed") == (ended.status_code, ended.json()["status"])
    assert error.items() <= ended.json()["error"].items()
    assert ("Failed", [ENDPOINT]) == (left, meters)
    assert [] == timed.open_meters()
