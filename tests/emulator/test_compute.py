"""Clusters and the region: made, refused, held, billed, idle, deleted, as Azure does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names
from azureml_emulator.emulator import Emulator
from azureml_emulator.services import compute

from tests.conftest import RunningEmulator
from tests.emulator.conftest import Wire

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import AmlCompute

A100 = "Standard_NC24ads_A100_v4"
CLUSTER = "computes/gpu-cluster"


@pytest.fixture
def ml(emulator: RunningEmulator) -> MLClient:
    """The SDK's client of the workspace, which polls without waiting."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(
        DefaultAzureCredential(),
        names.SUBSCRIPTION_ID,
        names.RESOURCE_GROUP,
        names.WORKSPACE_NAME,
        polling_interval=0.1,
    )


@pytest.fixture
def ask(emulator: RunningEmulator) -> Wire:
    """Raw requests to ``emulator``."""
    return Wire(emulator)


@pytest.fixture
def manual(start_emulator: Callable[..., RunningEmulator]) -> RunningEmulator:
    """An emulator with today's catalogue, where time stands still until it is advanced."""
    return start_emulator(latency="manual")


def _cluster(name: str = "gpu-cluster", **given: Any) -> AmlCompute:
    from azure.ai.ml.entities import AmlCompute

    return AmlCompute(
        name=name,
        **{"size": A100, "min_instances": 0, "max_instances": 2, "tier": "dedicated", **given},
    )


def _body(**given: Any) -> dict[str, Any]:
    scale = {
        "minNodeCount": given.pop("least", 0),
        "maxNodeCount": given.pop("most", 2),
        "nodeIdleTimeBeforeScaleDown": given.pop("idle", "PT2M"),
    }
    settings = {"vmSize": A100, "vmPriority": "Dedicated", "scaleSettings": scale, **given}
    return {
        "location": "eastus2",
        "properties": {"computeType": "AmlCompute", "properties": settings},
    }


def _made(emulator: RunningEmulator, **given: Any) -> Emulator:
    assert 201 == Wire(emulator)("PUT", CLUSTER, _body(**given)).status_code
    emulator.advance(60)
    return emulator.server.emulator


def _meters(emulator: RunningEmulator) -> list[dict[str, Any]]:
    meters: list[dict[str, Any]] = emulator.ledger()["meters"]
    return meters


def test_the_sdk_makes_reads_lists_and_deletes(emulator: RunningEmulator, ml: MLClient) -> None:
    """The unmodified client goes through a cluster's whole life, and nothing is billed."""
    from azure.core.exceptions import ResourceNotFoundError

    made = ml.compute.begin_create_or_update(
        _cluster(idle_time_before_scale_down=180, tier="low_priority")
    ).result()
    found = ml.compute.get("GPU-Cluster")

    assert ("gpu-cluster", "Succeeded", 180.0) == (
        made.name,
        made.provisioning_state,
        made.idle_time_before_scale_down,
    )
    assert (A100, "low_priority", 0, 2) == (
        found.size,
        found.tier,
        found.min_instances,
        found.max_instances,
    )
    assert ["gpu-cluster"] == [one.name for one in ml.compute.list()]
    ml.compute.begin_delete("gpu-cluster").wait()
    with pytest.raises(ResourceNotFoundError, match="gpu-cluster"):
        ml.compute.get("gpu-cluster")
    assert [] == _meters(emulator)


def test_the_sdk_lists_nodes_and_the_runs_that_they_work_for(
    emulator: RunningEmulator, ml: MLClient
) -> None:
    """Each node that is up, running for whom or idle; the SDK keeps the wire's spelling."""
    ml.compute.begin_create_or_update(_cluster(min_instances=2)).result()
    inner = emulator.server.emulator
    with inner.store.transaction():
        assert compute.acquire_nodes(inner, "gpu-cluster", 1, "a-run")

    nodes = [vars(node) for node in ml.compute.list_nodes("gpu-cluster")]

    assert [("running", "a-run"), ("idle", None)] == [
        (node["nodeState"], node.get("runId")) for node in nodes
    ]


def test_the_sdk_changes_how_a_cluster_scales(ml: MLClient) -> None:
    """A second PUT changes the nodes; it cannot change the size."""
    from azure.core.exceptions import HttpResponseError

    ml.compute.begin_create_or_update(_cluster()).result()
    changed = ml.compute.begin_create_or_update(_cluster(max_instances=5)).result()

    assert 5 == changed.max_instances
    with pytest.raises(HttpResponseError, match="cannot be changed") as raised:
        ml.compute.begin_create_or_update(_cluster(size="Standard_NC48ads_A100_v4"))
    assert 400 == raised.value.status_code


def test_a_cluster_takes_its_time(manual: RunningEmulator) -> None:
    """201 in capitals and Creating, InProgress while it is made, then Succeeded as it is sold."""
    wire = Wire(manual)
    made = wire("PUT", CLUSTER, _body(vmSize=A100.lower()))
    operation = made.headers["Azure-AsyncOperation"]
    early = wire("GET", operation).json()
    manual.advance(14)

    assert (201, A100.upper(), "Creating") == (
        made.status_code,
        made.json()["properties"]["properties"]["vmSize"],
        made.json()["properties"]["provisioningState"],
    )
    assert "/computeOperationsStatus/" in operation
    assert ("InProgress", "Succeeded") == (
        early["status"],
        wire("GET", operation).json()["status"],
    )
    shown = wire("GET", CLUSTER).json()["properties"]
    assert (A100, "Succeeded") == (shown["properties"]["vmSize"], shown["provisioningState"])


@pytest.mark.parametrize("version", ["2022-10-01-preview", "2023-08-01-preview"])
def test_both_api_versions_make_a_cluster(ask: Wire, version: str) -> None:
    """PUT and GET are answered alike under either of the api-versions that the SDK has used."""
    query = f"?api-version={version}"

    assert 201 == ask("PUT", f"{CLUSTER}{query}", _body()).status_code
    assert "Succeeded" == ask("GET", f"{CLUSTER}{query}").json()["properties"]["provisioningState"]


@pytest.mark.parametrize("name", ["ab", "1gpu", "-gpu", "gpu-", "gpu_1", "g" * 33])
def test_a_bad_name_is_refused(ask: Wire, name: str) -> None:
    """3 to 32 letters, digits and dashes, a letter first, no dash last."""
    answer = ask("PUT", f"computes/{name}", _body())

    assert 400 == answer.status_code
    assert "between 3 and 32 characters" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({"vmSize": "Standard_NC6"}, "vmSize"),
        ({"vmSize": None}, "vmSize"),
        ({"vmPriority": "Spot"}, "VMPriority"),
        ({"vmSize": "Standard_ND96asr_v4", "vmPriority": "LowPriority"}, "VMPriority"),
        ({"most": -1}, "MaxNodeCount"),
        ({"most": 1, "least": 2}, "MinNodeCount"),
        ({"idle": "two minutes"}, "NodeIdleTimeBeforeScaleDown"),
    ],
)
def test_a_bad_property_is_refused(ask: Wire, given: dict[str, Any], target: str) -> None:
    """What the region does not sell, or what makes no sense, is a 400 that names the property."""
    answer = ask("PUT", CLUSTER, _body(**given))
    error = answer.json()["error"]

    assert (400, "InvalidPropertyValue", target) == (
        answer.status_code,
        error["code"],
        error["target"],
    )
    assert 404 == ask("GET", CLUSTER).status_code


def test_an_unknown_size_is_told_what_is_sold(ask: Wire) -> None:
    """The refusal lists the sizes on sale, as the service's does."""
    (detail,) = ask("PUT", CLUSTER, _body(vmSize="Standard_NC6")).json()["error"]["details"]

    assert "SupportedVMSizes" == detail["code"]
    assert A100.upper() in detail["message"].split(",")


def test_other_computes_are_not_emulated(ask: Wire) -> None:
    """A compute instance is a 501 that says so, not a cluster by another name."""
    body = {"properties": {"computeType": "ComputeInstance", "properties": {}}}

    assert 501 == ask("PUT", CLUSTER, body).status_code


def test_out_of_quota_the_creation_fails(ml: MLClient, emulator: RunningEmulator) -> None:
    """A family without cores ends the operation with Azure's code and leaves a Failed cluster."""
    from azure.core.exceptions import HttpResponseError

    poller = ml.compute.begin_create_or_update(_cluster(size="Standard_NC40ads_H100_v5"))
    with pytest.raises(HttpResponseError, match="vCPU quota of 0") as raised:
        poller.result()
    assert raised.value.error is not None
    left = ml.compute.get("gpu-cluster")

    assert (200, "ClusterMinNodesExceedCoreQuota") == (
        raised.value.status_code,
        raised.value.error.code,
    )
    assert ("Failed", "ClusterMinNodesExceedCoreQuota") == (
        left.provisioning_state,
        left.provisioning_errors,
    )
    assert [] == _meters(emulator)


def test_nodes_in_use_count_against_the_quota(emulator: RunningEmulator, ask: Wire) -> None:
    """A family that is all in use is as good as none; one more cluster fails until it is free."""
    kept = emulator.server.emulator
    assert 201 == ask("PUT", CLUSTER, _body(most=8)).status_code
    kept.settle()
    assert compute.acquire_nodes(kept, "gpu-cluster", 8, "job")
    ask("PUT", "computes/another", _body())
    full = ask("GET", "computes/another").json()["properties"]
    compute.release_nodes(kept, "gpu-cluster", "job")
    ask("PUT", "computes/another", _body())

    assert "Failed" == full["provisioningState"]
    assert "quota of 192" in full["provisioningErrors"][0]["error"]["message"]
    free = ask("GET", "computes/another").json()["properties"]
    assert ("Succeeded", None) == (free["provisioningState"], free["provisioningErrors"])


def test_a_fault_makes_a_failed_cluster(emulator: RunningEmulator, ml: MLClient) -> None:
    """A rule can end the creation Failed; making it again mends it."""
    from azure.core.exceptions import HttpResponseError

    error = {"code": "ClusterCoreQuotaReached", "message": "The cluster has reached its quota."}
    emulator.faults(
        {
            "match": {"method": "PUT", "path": "/computes/"},
            "nth": [1],
            "effect": {"operation_error": error},
        }
    )
    with pytest.raises(HttpResponseError, match="ClusterCoreQuotaReached"):
        ml.compute.begin_create_or_update(_cluster()).result()

    assert "Failed" == ml.compute.get("gpu-cluster").provisioning_state
    made = ml.compute.begin_create_or_update(_cluster()).result()
    assert ("Succeeded", None) == (made.provisioning_state, made.provisioning_errors)


def test_a_cluster_in_transition_refuses_changes(manual: RunningEmulator) -> None:
    """While it is made or deleted, a change or another deletion is a 409."""
    wire = Wire(manual)
    wire("PUT", CLUSTER, _body())
    delete = f"{CLUSTER}?api-version=2023-08-01-preview&underlyingResourceAction=Delete"

    assert (409, 409) == (
        wire("PUT", CLUSTER, _body()).status_code,
        wire("DELETE", delete).status_code,
    )
    manual.advance(14)
    deleted = wire("DELETE", delete)
    assert (202, b"") == (deleted.status_code, deleted.content)
    assert 409 == wire("DELETE", delete).status_code


def test_a_deletion_says_what_becomes_of_the_nodes(ask: Wire) -> None:
    """``underlyingResourceAction`` is required, as in Azure."""
    ask("PUT", CLUSTER, _body())

    assert 400 == ask("DELETE", CLUSTER).status_code


def test_nodes_are_held_up_to_the_maximum(manual: RunningEmulator) -> None:
    """No more nodes are given out than there are; what is released can be had again."""
    kept = _made(manual, most=3)

    assert compute.acquire_nodes(kept, "gpu-cluster", 2, "one")
    assert compute.acquire_nodes(kept, "gpu-cluster", 2, "one")
    assert not compute.acquire_nodes(kept, "gpu-cluster", 2, "two")
    assert not compute.acquire_nodes(kept, "nobodys", 1, "two")
    compute.release_nodes(kept, "gpu-cluster", "one")
    compute.release_nodes(kept, "gpu-cluster", "one")
    assert compute.acquire_nodes(kept, compute.compute_id("GPU-CLUSTER"), 3, "two")


def test_nodes_are_billed_while_held_and_while_idle(manual: RunningEmulator) -> None:
    """Held for an hour and idle for two minutes: 62 minutes of two nodes, then nothing."""
    kept = _made(manual, idle="PT2M")
    compute.acquire_nodes(kept, "gpu-cluster", 2, "job")
    manual.advance(3600)
    compute.release_nodes(kept, "gpu-cluster", "job")
    manual.advance(119)
    (open_meter,) = _meters(manual)
    manual.advance(3600)
    (meter,) = _meters(manual)

    assert (None, 2, "compute", A100) == tuple(
        open_meter[name] for name in ("stopped", "quantity", "kind", "sku")
    )
    assert meter["hours"] == pytest.approx(62 / 60)
    assert meter["usd"] == pytest.approx(2 * 3.673 * 62 / 60, abs=1e-4)


def test_an_idle_node_is_taken_before_a_new_one(manual: RunningEmulator) -> None:
    """A job that comes while nodes idle takes those: one meter, uninterrupted."""
    kept = _made(manual)
    compute.acquire_nodes(kept, "gpu-cluster", 1, "one")
    manual.advance(600)
    compute.release_nodes(kept, "gpu-cluster", "one")
    manual.advance(60)
    compute.acquire_nodes(kept, "gpu-cluster", 1, "two")
    manual.advance(600)
    shown = Wire(manual)("GET", CLUSTER).json()["properties"]["properties"]
    compute.release_nodes(kept, "gpu-cluster", "two")
    manual.advance(600)
    (meter,) = _meters(manual)

    assert (1, 1) == (shown["currentNodeCount"], shown["nodeStateCounts"]["runningNodeCount"])
    assert meter["hours"] == pytest.approx((600 + 60 + 600 + 120) / 3600)


def test_a_minimum_is_billed_from_the_start(manual: RunningEmulator) -> None:
    """``minNodeCount`` nodes run without any job, until the cluster is deleted."""
    _made(manual, least=1)
    manual.advance(3540)
    delete = f"{CLUSTER}?api-version=2023-08-01-preview&underlyingResourceAction=Delete"
    Wire(manual)("DELETE", delete)
    manual.advance(10)
    (meter,) = _meters(manual)

    assert "deleted" == meter["reason"]
    assert meter["hours"] == pytest.approx((46 + 3540 + 10) / 3600)


def test_low_priority_costs_a_fifth(manual: RunningEmulator) -> None:
    """A low-priority node is billed at a fifth of the dedicated price."""
    kept = _made(manual, vmPriority="LowPriority")
    compute.acquire_nodes(kept, "gpu-cluster", 1, "job")
    (meter,) = _meters(manual)

    assert meter["usd_per_hour"] == pytest.approx(3.673 / 5)


def test_under_instant_latency_no_node_idles(emulator: RunningEmulator, ask: Wire) -> None:
    """A fast test is not billed for idle minutes: the meter stops with the job."""
    kept = emulator.server.emulator
    ask("PUT", CLUSTER, _body())
    kept.settle()
    assert compute.acquire_nodes(kept, "gpu-cluster", 1, "job")
    compute.release_nodes(kept, "gpu-cluster", "job")

    assert [] == emulator.open_meters()


def test_a_cluster_in_use_is_not_deleted(emulator: RunningEmulator, ask: Wire) -> None:
    """Deleting a cluster under a running job is refused."""
    ask("PUT", CLUSTER, _body())
    emulator.server.emulator.settle()
    assert compute.acquire_nodes(emulator.server.emulator, "gpu-cluster", 1, "job")
    delete = f"{CLUSTER}?api-version=2023-08-01-preview&underlyingResourceAction=Delete"

    assert 409 == ask("DELETE", delete).status_code


def test_a_password_is_not_shown(ask: Wire) -> None:
    """What the nodes' administrator logs in with is not given back."""
    account = {"adminUserName": "me", "adminUserPassword": "hunter2"}
    ask("PUT", CLUSTER, _body(userAccountCredentials=account))

    assert "hunter2" not in ask("GET", CLUSTER).text


def test_the_sdk_lists_sizes_and_usage(ml: MLClient, emulator: RunningEmulator) -> None:
    """Sizes come with GPUs and cores, families with what is in use and what is allowed."""
    ml.compute.begin_create_or_update(_cluster()).result()
    emulator.server.emulator.settle()
    assert compute.acquire_nodes(emulator.server.emulator, "gpu-cluster", 2, "job")
    sizes = {one.name: one for one in ml.compute.list_sizes()}
    usages = {one.name["value"]: one for one in ml.compute.list_usage()}

    assert (1, 24) == (sizes[A100].gpus, sizes[A100].__dict__["vCPUs"])
    assert "Standard_NC6s_v3" not in sizes
    assert (48, 192) == (
        usages["standardNCADSA100v4Family"].__dict__["currentValue"],
        usages["standardNCADSA100v4Family"].limit,
    )
    assert 0 == usages["standardNCadsH100v5Family"].limit


def test_quotas_are_told_by_family(ask: Wire, emulator: RunningEmulator) -> None:
    """The limits that a creation is held to can be read beforehand."""
    rows = ask("GET", f"{emulator.url}{emulator.server.emulator.catalog.location_id}/quotas").json()
    limits = {row["name"]["value"]: row["limit"] for row in rows["value"]}

    assert emulator.server.emulator.catalog.quotas == limits


def test_another_region_is_refused(ask: Wire) -> None:
    """The subscription has Azure ML in one region."""
    path = f"/subscriptions/{names.SUBSCRIPTION_ID}{names.PROVIDER}/locations/mars/vmSizes"
    answer = ask("GET", path)

    assert (400, "NoRegisteredProviderFound") == (
        answer.status_code,
        answer.json()["error"]["code"],
    )
