"""Management locks and permissions: kept, inherited, and in the way, as in Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names

from tests.emulator.conftest import Wire

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from tests.conftest import RunningEmulator

SUBSCRIPTION = f"/subscriptions/{names.SUBSCRIPTION_ID}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}"
ENDPOINT = f"{names.WORKSPACE_ID}/onlineEndpoints/chat-1"
DEPLOYMENT = f"{ENDPOINT}/deployments/blue"
COMPUTE = f"{names.WORKSPACE_ID}/computes/cpu"
ABOVE = (SUBSCRIPTION, GROUP, names.WORKSPACE_ID)


@pytest.fixture
def made(wire: Wire) -> Wire:
    """An endpoint with a deployment, and a cluster."""
    endpoint = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
    deployment = {
        "location": "eastus2",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_NC24ads_A100_v4",
            "model": "azureml://registries/azureml/models/tiny/versions/1",
        },
    }
    cluster = {
        "location": "eastus2",
        "properties": {
            "computeType": "AmlCompute",
            "properties": {
                "vmSize": "Standard_DS3_v2",
                "scaleSettings": {"maxNodeCount": 1, "minNodeCount": 0},
            },
        },
    }
    for path, body in ((ENDPOINT, endpoint), (DEPLOYMENT, deployment), (COMPUTE, cluster)):
        assert wire("PUT", path, body).status_code in (200, 201)
    return wire


def _path(scope: str, name: str = "keep") -> str:
    return f"{scope}/providers/Microsoft.Authorization/locks/{name}"


def _lock(wire: Wire, scope: str, level: str = "CanNotDelete", name: str = "keep") -> None:
    assert 201 == wire("PUT", _path(scope, name), {"properties": {"level": level}}).status_code


def _locks(wire: Wire, scope: str, query: str = "") -> list[str]:
    listed = wire("GET", f"{scope}/providers/Microsoft.Authorization/locks?api-version=1{query}")
    return [one["name"] for one in listed.json()["value"]]


def test_a_lock_is_made_changed_shown_and_deleted(wire: Wire) -> None:
    """Its id, name and type are Azure's; a second PUT changes it; it can be deleted twice."""
    properties = {"level": "CanNotDelete", "notes": "ours"}
    made = wire("PUT", _path(GROUP), {"properties": properties})
    changed = wire("PUT", _path(GROUP).lower(), {"properties": {"level": "ReadOnly"}})
    shown = wire("GET", _path(GROUP))
    deleted = [wire("DELETE", _path(GROUP)).status_code for _ in range(2)]
    gone = wire("GET", _path(GROUP))

    assert [201, 200, 200] == [one.status_code for one in (made, changed, shown)]
    assert _path(GROUP) == made.json()["id"]
    assert ("keep", "Microsoft.Authorization/locks") == (made.json()["name"], made.json()["type"])
    assert properties == made.json()["properties"]
    assert {"level": "ReadOnly"} == shown.json()["properties"]
    assert [200, 204] == deleted
    assert (404, "LockNotFound") == (gone.status_code, gone.json()["error"]["code"])


def test_a_list_holds_what_is_at_above_and_below(made: Wire) -> None:
    """As Azure's does; atScope() leaves out what is below."""
    for scope, name in ((SUBSCRIPTION, "s"), (GROUP, "g"), (names.WORKSPACE_ID, "w")):
        _lock(made, scope, name=name)
    _lock(made, ENDPOINT, name="e")

    assert ["s", "g", "w", "e"] == _locks(made, GROUP)
    assert ["s", "g"] == _locks(made, GROUP, "&$filter=atScope()")
    assert ["s", "g", "w"] == _locks(made, names.WORKSPACE_ID, "&$filter=atScope()")
    assert ["s", "g", "w", "e"] == _locks(made, SUBSCRIPTION.upper())


def test_a_lock_is_kept_over_a_restart(
    start_emulator: Callable[..., RunningEmulator], serving: RunningEmulator, wire: Wire
) -> None:
    """It is as lasting as what it locks."""
    _lock(wire, GROUP)
    serving.server.stop()
    again = start_emulator()

    assert ["keep"] == _locks(Wire(again), GROUP)


@pytest.mark.parametrize("level", ["CanNotDelete", "ReadOnly"])
@pytest.mark.parametrize("scope", ABOVE)
@pytest.mark.parametrize("resource", [ENDPOINT, DEPLOYMENT, COMPUTE])
def test_nothing_below_a_lock_is_deleted(made: Wire, scope: str, level: str, resource: str) -> None:
    """Azure's refusal, word for word: it names the locked scope and not the lock."""
    _lock(made, scope, level)
    refused = made("DELETE", resource)

    assert 409 == refused.status_code
    assert {
        "error": {
            "code": "ScopeLocked",
            "message": f"The scope '{resource}' cannot perform delete operation because following "
            f"scope(s) are locked: '{scope}'. Please remove the lock and try again.",
        }
    } == refused.json()
    assert 200 == made("GET", resource).status_code


def test_what_is_unlocked_can_be_deleted(serving: RunningEmulator, made: Wire) -> None:
    """The lock itself can be deleted below another one, and then nothing is in the way."""
    _lock(made, GROUP, "ReadOnly")
    _lock(made, SUBSCRIPTION, "ReadOnly", "more")
    for scope, name in ((GROUP, "keep"), (SUBSCRIPTION, "more")):
        assert 200 == made("DELETE", _path(scope, name)).status_code

    cluster = f"{COMPUTE}?underlyingResourceAction=Delete&api-version=1"
    assert [202, 202] == [made("DELETE", path).status_code for path in (ENDPOINT, cluster)]
    assert [] == serving.open_meters()


def test_a_lock_on_one_endpoint_locks_no_other(made: Wire) -> None:
    """A name that begins alike is another resource; what is below the lock is locked too."""
    other = f"{names.WORKSPACE_ID}/onlineEndpoints/chat-1b"
    body = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
    made("PUT", other, body)
    _lock(made, ENDPOINT)

    assert 202 == made("DELETE", other).status_code
    assert [409, 409] == [made("DELETE", path).status_code for path in (ENDPOINT, DEPLOYMENT)]


def test_a_locked_deployment_keeps_its_endpoint(made: Wire) -> None:
    """Else the lock would be got round."""
    _lock(made, DEPLOYMENT)

    assert f"locked: '{DEPLOYMENT}'" in made("DELETE", ENDPOINT).json()["error"]["message"]


def test_cannot_delete_lets_all_else_be_done(made: Wire) -> None:
    """What is under it is created, changed and asked as ever."""
    _lock(made, SUBSCRIPTION)
    body = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}

    assert 200 == made("PUT", ENDPOINT, body).status_code
    assert 200 == made("POST", f"{ENDPOINT}/listKeys").status_code


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("PUT", f"{names.WORKSPACE_ID}/onlineEndpoints/new", None),
        ("PUT", f"{names.WORKSPACE_ID}/jobs/new", None),
        ("PATCH", ENDPOINT, None),
        ("POST", f"{ENDPOINT}/listKeys", ENDPOINT),
        ("POST", f"{names.WORKSPACE_ID}/jobs/new/cancel", f"{names.WORKSPACE_ID}/jobs/new"),
    ],
)
def test_read_only_refuses_every_write(
    made: Wire, method: str, path: str, scope: str | None
) -> None:
    """Also a POST that only reads: Azure's example is listKeys, and it calls that a write."""
    _lock(made, names.WORKSPACE_ID, "ReadOnly")
    refused = made(method, path, {})

    assert (409, "ScopeLocked") == (refused.status_code, refused.json()["error"]["code"])
    said = refused.json()["error"]["message"]
    assert said.startswith(f"The scope '{scope or path}' cannot perform write operation")


def test_the_data_plane_knows_no_locks(made: Wire) -> None:
    """A lock is Resource Manager's; MLflow's POST goes through."""
    _lock(made, SUBSCRIPTION, "ReadOnly")
    search = f"/mlflow/v2.0{names.WORKSPACE_ID}/api/2.0/mlflow/experiments/search"

    assert 200 == made("POST", search, {"max_results": 1}).status_code


def test_the_sdk_is_told_of_the_lock(made: Wire, client: MLClient) -> None:
    """What the unmodified client raises has Azure's code."""
    from azure.core.exceptions import HttpResponseError

    _lock(made, GROUP)
    with pytest.raises(HttpResponseError) as refusal:
        client.online_endpoints.begin_delete("chat-1").wait()

    assert "ScopeLocked" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("keep", {"properties": {"level": "CannotTouch"}}, "InvalidRequestContent"),
        ("keep", {"properties": {"level": None}}, "InvalidRequestContent"),
        ("keep", {"properties": []}, "InvalidRequestContent"),
        ("keep", {}, "InvalidRequestContent"),
        ("keep", [], "InvalidRequestContent"),
        (
            "keep",
            {"properties": {"level": "ReadOnly", "notes": "x" * 513}},
            "InvalidRequestContent",
        ),
        ("keep", {"properties": {"level": "ReadOnly", "notes": 1}}, "InvalidRequestContent"),
        ("a:b", {"properties": {"level": "ReadOnly"}}, "InvalidLockName"),
        ("x" * 261, {"properties": {"level": "ReadOnly"}}, "InvalidLockName"),
    ],
)
def test_a_lock_that_makes_no_sense_is_refused(wire: Wire, name: str, body: Any, code: str) -> None:
    """By level, notes and name; nothing is locked."""
    refused = wire("PUT", _path(GROUP, name), body)

    assert (400, code) == (refused.status_code, refused.json()["error"]["code"])
    assert [] == _locks(wire, GROUP)


def test_what_is_not_there_cannot_be_locked(wire: Wire) -> None:
    """An endpoint, a deployment, a compute, and another's resource group."""
    body = {"properties": {"level": "ReadOnly"}}
    scopes = (ENDPOINT, DEPLOYMENT, COMPUTE, f"{SUBSCRIPTION}/resourceGroups/other")

    assert [404] * 4 == [wire("PUT", _path(scope), body).status_code for scope in scopes]


def test_an_unknown_filter_is_refused(wire: Wire) -> None:
    """No list that leaves out what was asked for, or has too much."""
    path = f"{GROUP}/providers/Microsoft.Authorization/locks?$filter=mine()"

    assert 400 == wire("GET", path).status_code


@pytest.mark.parametrize("scope", [GROUP, names.WORKSPACE_ID, ENDPOINT])
def test_the_one_identity_may_do_everything(made: Wire, scope: str) -> None:
    """In the shape of Azure's list."""
    answer = made("GET", f"{scope}/providers/Microsoft.Authorization/permissions")

    assert {
        "value": [{"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}]
    } == answer.json()


def test_a_rule_can_make_the_permissions_less(serving: RunningEmulator, wire: Wire) -> None:
    """A status of 200 with a body takes the place of the answer."""
    less = '{"value": [{"actions": ["*/read"], "notActions": []}]}'
    serving.faults(
        {
            "match": {"method": "GET", "path": "/Microsoft.Authorization/permissions$"},
            "effect": {"status": 200, "body": less},
        }
    )
    answer = wire("GET", f"{GROUP}/providers/Microsoft.Authorization/permissions")

    assert ["*/read"] == answer.json()["value"][0]["actions"]
