"""Online deployments: billed from birth to burial, and refused where Azure refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from tests.conftest import RunningEmulator
    from tests.emulator.conftest import Wire

ENDPOINT = "onlineEndpoints/chat-1"
DEMO = f"{ENDPOINT}/deployments/demo"
A100 = "Standard_NC24ads_A100_v4"
FAILURE = {"code": "ResourceNotReady", "message": "User container has crashed."}


def _body(capacity: Any = 1, **properties: Any) -> dict[str, Any]:
    return {
        "location": "eastus2",
        "tags": {"a": "1"},
        "sku": {"name": "Default", "capacity": capacity},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": A100,
            "model": "azureml://registries/azureml/models/tiny/versions/1",
            **properties,
        },
    }


def _endpoint(wire: Wire, traffic: dict[str, int] | None = None) -> None:
    body = {
        "location": "eastus2",
        "properties": {"authMode": "Key", "properties": {}, "traffic": traffic or {}},
    }
    assert wire("PUT", ENDPOINT, body).status_code in (200, 201)


def _state(wire: Wire) -> str:
    state: str = wire("GET", DEMO).json()["properties"]["provisioningState"]
    return state


def _lines(wire: Wire, **request: Any) -> list[str]:
    content: str = wire("POST", f"{DEMO}/getLogs", request).json()["content"]
    return content.splitlines()


def test_the_sdk_deploys_reads_logs_and_deletes(
    serving: RunningEmulator, client: MLClient, wire: Wire, tmp_path: Path
) -> None:
    """The unmodified client, with a registered model: what it sees, what it pays, what is left."""
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import (
        ManagedOnlineDeployment,
        Model,
        OnlineRequestSettings,
        ProbeSettings,
    )

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "MLmodel").write_text("flavors: {}\n")
    model = client.models.create_or_update(
        Model(name="mine", version="7", path=str(tmp_path / "folder"), type=AssetTypes.MLFLOW_MODEL)
    )
    _endpoint(wire)
    wanted = ManagedOnlineDeployment(
        name="demo",
        endpoint_name="chat-1",
        model=model.id,
        instance_type=A100,
        instance_count=2,
        liveness_probe=ProbeSettings(initial_delay=600),
        request_settings=OnlineRequestSettings(request_timeout_ms=90000),
    )
    made = client.online_deployments.begin_create_or_update(wanted).result()
    found = client.online_deployments.get("demo", "chat-1")
    listed = [one.name for one in client.online_deployments.list("chat-1")]
    log = client.online_deployments.get_logs("demo", "chat-1", lines=50)
    billed = serving.ledger()["meters"][-1]
    client.online_deployments.begin_delete("demo", "chat-1").wait()

    assert ("Succeeded", model.id) == (made.provisioning_state, made.model)
    assert (90000, 600) == (
        found.request_settings.request_timeout_ms,
        found.liveness_probe.initial_delay,
    )
    assert (A100, 2, "default") == (
        found.instance_type,
        found.instance_count,
        found.scale_settings.type,
    )
    assert ["demo"] == listed
    assert "Users's init has completed successfully" in log
    assert "mine:7" in log
    assert (A100, 2, 3.673) == tuple(billed[key] for key in ("sku", "quantity", "usd_per_hour"))
    assert [f"{names.WORKSPACE_ID}/onlineEndpoints/chat-1"] == serving.open_meters()


def test_instances_are_billed_from_the_create_to_the_end_of_the_delete(
    timed: RunningEmulator, timed_wire: Wire
) -> None:
    """Not from when it serves, nor until when its delete is asked for."""
    _endpoint(timed_wire)
    timed.advance(21)
    answer = timed_wire("PUT", DEMO, _body())
    creating = (_state(timed_wire), len(timed.open_meters()))
    timed.advance(60)
    ready = _state(timed_wire)
    accepted = timed_wire("DELETE", DEMO)
    deleting = (_state(timed_wire), len(timed.open_meters()))
    timed.advance(20)
    meter = timed.ledger()["meters"][-1]

    assert (201, 202) == (answer.status_code, accepted.status_code)
    assert answer.headers["Location"].startswith(f"{timed.url}{names.WORKSPACE_ID}/{DEMO}?")
    assert (("Creating", 2), "Succeeded", ("Deleting", 2)) == (creating, ready, deleting)
    assert round(80 / 3600, 6) == meter["hours"]
    assert "deleted" == meter["reason"]
    assert 404 == timed_wire("GET", DEMO).status_code


def test_a_failed_deployment_is_billed_until_it_is_deleted(
    serving: RunningEmulator, wire: Wire
) -> None:
    """Its operation fails, its log says why, its meter runs on."""
    _endpoint(wire)
    serving.faults(
        {"match": {"path": "/demo$"}, "effect": {"operation_error": FAILURE}, "nth": [1]}
    )
    answer = wire("PUT", DEMO, _body())
    ended = wire("GET", answer.headers["Azure-AsyncOperation"]).json()
    state, billed, log = _state(wire), serving.open_meters(), _lines(wire)
    wire("DELETE", DEMO)
    gone = wire("GET", DEMO).status_code

    assert ("Failed", "ResourceNotReady") == (ended["status"], ended["error"]["code"])
    assert ("Failed", 2) == (state, len(billed))
    assert "UserContainerStart: Failed" in log
    assert any("ResourceNotReady: User container has crashed." in line for line in log)
    assert (404, 1) == (gone, len(serving.open_meters()))


def test_defaults_are_filled_in_as_recorded(wire: Wire) -> None:
    """A GET shows what Azure adds; the SDK needs scaleSettings."""
    _endpoint(wire)
    probe = {"initialDelay": "PT10M", "failureThreshold": None}
    wire("PUT", DEMO, _body(livenessProbe=probe))
    shown = wire("GET", DEMO).json()

    assert {"scaleType": "Default"} == shown["properties"]["scaleSettings"]
    assert "PT5S" == shown["properties"]["requestSettings"]["requestTimeout"]
    assert ("PT10M", 30) == tuple(
        shown["properties"]["livenessProbe"][key] for key in ("initialDelay", "failureThreshold")
    )
    assert {"name": "Default", "tier": "Standard", "capacity": 1} == shown["sku"]
    assert '"_' not in wire("GET", DEMO).text + wire("GET", f"{ENDPOINT}/deployments").text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (_body(instanceType="Standard_NC6s_v3"), "Standard_NC6s_v3 is not supported"),
        (_body(instanceType=None), "is not supported"),
        (_body(capacity=0), "sku.capacity"),
        (_body(capacity=None), "sku.capacity"),
        (_body(model=None), "has no model"),
        (_body(model="azureml://registries/azureml/models/tiny/versions/2"), "was not found"),
        (_body(model="azureml://registries/other/models/tiny/versions/1"), "was not found"),
        (_body(model=f"{names.WORKSPACE_ID}/models/tiny/versions/1"), "was not found"),
        (_body(requestSettings={"requestTimeout": "PT181S"}), "at most 180"),
        (_body(requestSettings={"requestTimeout": "PT3M0.1S"}), "at most 180"),
        (_body(requestSettings={"requestTimeout": "PT0S"}), "more than 0"),
        (_body(requestSettings={"requestTimeout": "180"}), "no duration"),
        (_body(requestSettings={"maxConcurrentRequestsPerInstance": 0}), "1 or more"),
        (_body(livenessProbe={"initialDelay": "10"}), "livenessProbe.initialDelay '10' is no dur"),
        (_body(readinessProbe={"failureThreshold": "3"}), "readinessProbe.failureThreshold must"),
        (_body(scaleSettings={"scaleType": "TargetUtilization"}), "scaleType"),
        ({"properties": 1}, "no properties"),
    ],
)
def test_a_body_that_azure_refuses_is_refused(
    serving: RunningEmulator, wire: Wire, body: dict[str, Any], said: str
) -> None:
    """Nothing is allocated, and the error says what is wrong."""
    _endpoint(wire)
    answer = wire("PUT", DEMO, body)

    assert 400 == answer.status_code
    assert said in answer.text
    assert 404 == wire("GET", DEMO).status_code
    assert 1 == len(serving.open_meters())


@pytest.mark.parametrize("timeout", ["PT180S", "PT3M", "PT1M30S", "PT0.5S"])
def test_a_timeout_within_bounds_is_taken(wire: Wire, timeout: str) -> None:
    """However it is written."""
    _endpoint(wire)

    assert 201 == wire("PUT", DEMO, _body(requestSettings={"requestTimeout": timeout})).status_code


@pytest.mark.parametrize("name", ["ab", "a" * 33, "1demo", "de--mo"])
def test_a_name_that_azure_refuses_is_refused(wire: Wire, name: str) -> None:
    """The same rule as for endpoints."""
    _endpoint(wire)
    answer = wire("PUT", f"{ENDPOINT}/deployments/{name}", _body())

    assert 400 == answer.status_code
    assert "deployment name" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("size", "count", "said"),
    [
        # 20 % more is kept for upgrades: ceil(1.2 × 6) × 4 cores.
        ("Standard_DS3_v2", 6, "Current usage/limit: 0/24. Additional needed: 32 "),
        (A100, 5, "Current usage/limit: 0/96. Additional needed: 120 "),
        ("Standard_ND40rs_v2", 1, "Current usage/limit: 0/0. Additional needed: 40 "),
    ],
)
def test_more_cores_than_the_quota_has_are_refused(
    serving: RunningEmulator, wire: Wire, size: str, count: int, said: str
) -> None:
    """In the service's own words, which a person will search for."""
    _endpoint(wire)
    answer = wire("PUT", DEMO, _body(capacity=count, instanceType=size))
    error = answer.json()["error"]

    assert (400, "BadRequest") == (answer.status_code, error["code"])
    assert "InferencingClientCreateDeploymentFailed" == error["details"][0]["code"]
    assert f"Not enough quota available for {size} in SubscriptionId" in answer.text
    assert said in answer.text
    assert "error-outofquota" in answer.text
    assert 1 == len(serving.open_meters())


@pytest.mark.parametrize(("size", "count"), [("Standard_DS3_v2", 5), (A100, 4)])
def test_as_many_cores_as_the_quota_has_are_given(wire: Wire, size: str, count: int) -> None:
    """Up to the last core; the large GPU sizes have no reserve."""
    _endpoint(wire)

    assert 201 == wire("PUT", DEMO, _body(capacity=count, instanceType=size)).status_code


def test_what_others_use_counts_against_the_quota(wire: Wire) -> None:
    """A second deployment is refused while the first has the cores, and taken after it is gone."""
    _endpoint(wire)
    wire("PUT", DEMO, _body(capacity=3))
    other = f"{ENDPOINT}/deployments/other"
    refused = wire("PUT", other, _body(capacity=2))
    grown = wire("PUT", DEMO, _body(capacity=4))
    wire("DELETE", DEMO)
    taken = wire("PUT", other, _body(capacity=2))

    assert "Current usage/limit: 72/96. Additional needed: 48 " in refused.text
    assert (201, 201) == (grown.status_code, taken.status_code)


def test_an_update_is_billed_at_the_new_size(timed: RunningEmulator, timed_wire: Wire) -> None:
    """201 and Updating, as recorded; one meter ends, the next begins."""
    _endpoint(timed_wire)
    timed.advance(21)
    timed_wire("PUT", DEMO, _body())
    timed.advance(60)
    answer = timed_wire("PUT", DEMO, _body(capacity=3))
    during = _state(timed_wire)
    timed.advance(30)
    same = timed_wire("PUT", DEMO, _body(capacity=3) | {"tags": {"b": "2"}})
    timed.advance(30)
    meters = timed.ledger()["meters"][1:]

    assert (201, 201, "Updating") == (answer.status_code, same.status_code, during)
    assert [("changed", 1), (None, 3)] == [(one["reason"], one["quantity"]) for one in meters]
    assert {"b": "2"} == timed_wire("GET", DEMO).json()["tags"]


def test_a_patch_changes_instances_and_tags(serving: RunningEmulator, wire: Wire) -> None:
    """202 and the body `null`; beyond the quota it is refused."""
    _endpoint(wire)
    wire("PUT", DEMO, _body())
    answer = wire("PATCH", DEMO, {"sku": {"name": "Default", "capacity": 2}, "tags": {}})
    refused = wire("PATCH", DEMO, {"sku": {"name": "Default", "capacity": 9}})
    shown = wire("GET", DEMO).json()

    assert (202, "null", 400) == (answer.status_code, answer.text, refused.status_code)
    assert (2, {}) == (shown["sku"]["capacity"], shown["tags"])
    assert 2 == serving.ledger()["meters"][-1]["quantity"]


def test_live_traffic_keeps_a_deployment_from_being_deleted(wire: Wire) -> None:
    """First its traffic goes to 0; then it may go, and the endpoint forgets it."""
    _endpoint(wire)
    wire("PUT", DEMO, _body())
    wire("PUT", f"{ENDPOINT}/deployments/other", _body())
    _endpoint(wire, {"demo": 100})
    refused = wire("DELETE", DEMO)
    _endpoint(wire, {"demo": 0, "other": 100})
    taken = wire("DELETE", DEMO)

    assert (400, 202) == (refused.status_code, taken.status_code)
    assert "100 percent of the live traffic" in refused.json()["error"]["message"]
    assert 404 == wire("GET", DEMO).status_code
    assert {"other": 100} == wire("GET", ENDPOINT).json()["properties"]["traffic"]


def test_a_change_while_another_runs_is_refused(timed: RunningEmulator, timed_wire: Wire) -> None:
    """409 for the deployment that is busy and under an endpoint that is; not beside them."""
    _endpoint(timed_wire)
    too_early = timed_wire("PUT", DEMO, _body())
    timed.advance(21)
    timed_wire("PUT", DEMO, _body())
    busy = [
        timed_wire("PUT", DEMO, _body()),
        timed_wire("PATCH", DEMO, {"tags": {}}),
        timed_wire("DELETE", DEMO),
    ]
    beside = timed_wire("PUT", f"{ENDPOINT}/deployments/other", _body())

    assert 409 == too_early.status_code
    assert [409, 409, 409] == [answer.status_code for answer in busy]
    assert 201 == beside.status_code


def test_an_endpoint_that_never_came_up_takes_no_deployment(
    serving: RunningEmulator, wire: Wire
) -> None:
    """What failed to be created cannot serve."""
    serving.faults({"match": {"method": "PUT"}, "effect": {"operation_error": FAILURE}, "nth": [1]})
    _endpoint(wire)

    assert 409 == wire("PUT", DEMO, _body()).status_code


def test_what_is_not_there(wire: Wire) -> None:
    """404 under an endpoint that is not there; a delete under one that is answers 204."""
    nowhere = [wire(method, DEMO, {}).status_code for method in ("GET", "PUT", "PATCH", "DELETE")]
    _endpoint(wire)
    absent = [wire(method, DEMO, {}).status_code for method in ("GET", "PATCH", "DELETE")]
    log = wire("POST", f"{DEMO}/getLogs", {"tail": 5})

    assert [404, 404, 404, 404] == nowhere
    assert [404, 404, 204] == absent
    assert 404 == log.status_code


def test_the_log_is_cut_to_its_tail(wire: Wire) -> None:
    """By lines, from the end; of either container."""
    _endpoint(wire)
    wire("PUT", DEMO, _body())
    whole = _lines(wire)
    storage = _lines(wire, containerType="StorageInitializer")

    assert "Instance status:" == whole[0]
    assert whole[-2:] == _lines(wire, containerType="InferenceServer", tail=2)
    assert whole == _lines(wire, tail=1000)
    assert "Downloaded azureml://registries/azureml/models/tiny/versions/1" == storage[-1]
    assert 400 == wire("POST", f"{DEMO}/getLogs", {"tail": 0}).status_code
    assert 400 == wire("POST", f"{DEMO}/getLogs", {"containerType": "Sidecar"}).status_code


def test_kubernetes_is_not_emulated(wire: Wire) -> None:
    """And says so, in place of pretending."""
    _endpoint(wire)
    answer = wire("PUT", DEMO, _body(endpointComputeType="Kubernetes"))

    assert (501, "NotEmulated") == (answer.status_code, answer.json()["error"]["code"])


def test_a_deployment_comes_up_across_a_restart(
    start_emulator: Any, catalog: str, timed: RunningEmulator, timed_wire: Wire
) -> None:
    """What was under way when the emulator stopped ends when its time comes."""
    _endpoint(timed_wire)
    timed.advance(21)
    timed_wire("PUT", DEMO, _body())
    clock = timed.server.emulator.clock
    timed.server.stop()
    again = start_emulator(clock=clock, catalog=catalog, latency="manual")
    wire = type(timed_wire)(again)
    before = _state(wire)
    again.advance(60)

    assert ("Creating", "Succeeded") == (before, _state(wire))
    assert 2 == len(again.open_meters())
