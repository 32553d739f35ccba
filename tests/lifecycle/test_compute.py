"""A cluster is made only when it is not there, shrinks to nothing, and is what was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.compute import (
    ComputeSpec,
    ComputeState,
    SizeInfo,
    check_compute,
    ensure_compute,
    is_listed,
    list_sizes,
    validate_compute,
)
from lifecycle.errors import (
    ComputeNotUsable,
    ConfigurationError,
    ServiceError,
    SizeNotAllowed,
    SizeUnknown,
)
from lifecycle.report import RunReport, recording

A100 = "Standard_NC24ads_A100_v4"
COMPUTES = {"path": "/computes/[^/]+$"}

SIZES = {
    size.name.lower(): size
    for size in [
        SizeInfo(name=A100, gpus=1, vcpus=24, memory_gb=220, low_priority=True),
        SizeInfo(name="Standard_ND96asr_v4", gpus=8, vcpus=96, memory_gb=900, low_priority=False),
        SizeInfo(name="Standard_D12_v2", gpus=0, vcpus=4, memory_gb=28, low_priority=True),
    ]
}


def spec(**given: Any) -> ComputeSpec:
    """What is asked for, an A100 unless said otherwise."""
    return ComputeSpec(**{"size": A100, **given})


def state(**given: Any) -> ComputeState:
    """A cluster that fits :func:`spec`, unless said otherwise."""
    usual: dict[str, Any] = {
        "name": "gpu-cluster-big",
        "size": A100,
        "tier": "dedicated",
        "provisioning_state": "Succeeded",
        "min_instances": 0,
        "max_instances": 1,
    }
    return ComputeState(**{**usual, **given})


@pytest.mark.parametrize("size", [A100, A100.upper(), A100.lower()])
def test_sizes_compare_without_case(size: str) -> None:
    """Azure itself changes the case of a size between two answers."""
    found = state(size=A100.upper())

    assert A100 == validate_compute(spec(size=size), found, SIZES, [A100.lower()]).name


def test_an_unknown_size_is_refused_with_the_nearest() -> None:
    """A typing error, or a retired size, names what is offered instead."""
    with pytest.raises(SizeUnknown, match=A100) as raised:
        validate_compute(spec(size="Standard_NC24ads_A100_v5"), None, SIZES, None)

    assert "compute.size" == raised.value.where


def test_a_size_without_gpus_is_refused() -> None:
    """Fine-tuning needs one: the job would fail after the queue."""
    with pytest.raises(SizeNotAllowed, match="no GPU"):
        validate_compute(spec(size="Standard_D12_v2"), None, SIZES, None)


def test_a_size_that_the_model_does_not_allow_is_refused() -> None:
    """The message names those that the model allows and the region offers."""
    with pytest.raises(SizeNotAllowed) as raised:
        validate_compute(spec(), None, SIZES, ["Standard_ND96asr_v4", "Standard_Elsewhere"])

    assert "Standard_ND96asr_v4" in raised.value.remedy
    assert "Standard_Elsewhere" not in raised.value.remedy


def test_a_model_without_a_list_refuses_no_size() -> None:
    """There is no hidden deny list: what the publisher does not say is not made up."""
    k80 = SizeInfo(name="Standard_NC6", gpus=1, vcpus=6, memory_gb=56, low_priority=True)

    assert k80 == validate_compute(spec(size="standard_nc6"), None, {"standard_nc6": k80}, None)


def test_a_size_that_has_no_low_priority_is_refused() -> None:
    """Azure would say so only when the cluster is made."""
    with pytest.raises(SizeNotAllowed, match="low priority"):
        validate_compute(spec(size="Standard_ND96asr_v4", tier="low_priority"), None, SIZES, None)


@pytest.mark.parametrize(
    ("asked", "found", "where"),
    [
        ({}, {"provisioning_state": "Failed", "provisioning_error": "OutOfQuota"}, "compute.name"),
        ({}, {"provisioning_state": "Deleting"}, "compute.name"),
        ({}, {"size": "Standard_ND96asr_v4"}, "compute.size"),
        ({}, {"tier": "low_priority"}, "compute.tier"),
        ({"tier": "low_priority"}, {}, "compute.tier"),
        ({"nodes": 2}, {}, "compute.nodes"),
    ],
)
def test_a_cluster_that_is_not_what_was_asked_for_is_refused(
    asked: dict[str, Any], found: dict[str, Any], where: str
) -> None:
    """Another size or tier, a failed or too small cluster: each says so, none is used silently."""
    with pytest.raises(ComputeNotUsable) as raised:
        validate_compute(spec(**asked), state(**found), SIZES, None)

    assert where == raised.value.where


def test_a_low_priority_cluster_will_do_where_it_is_allowed() -> None:
    """The fallback of one run is not an error of the next."""
    found = state(tier="low_priority")

    assert A100 == validate_compute(spec(allow_low_priority=True), found, SIZES, None).name


@pytest.mark.parametrize("name", ["", "1cluster", "a" * 33, "has_underscore", "ends-"])
def test_a_bad_cluster_name_is_refused(name: str) -> None:
    """Azure's rules for names are checked before anything is sent."""
    with pytest.raises(ValueError, match="pattern"):
        spec(name=name)


def test_the_regions_sizes_are_read_with_their_gpus(workspace: WorkspaceRef) -> None:
    """GPUs per node come from Azure: a wrong number trains on a part of the node, or fails."""
    sizes = list_sizes(workspace)

    assert (A100, 1) == (sizes[A100.lower()].name, sizes[A100.lower()].gpus)
    assert sizes[A100.lower()].vcpus == 24
    assert sizes[A100.lower()].memory_gb > 100
    assert any(size.gpus == 0 for size in sizes.values())


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 403, "error": {"code": "AuthorizationFailed", "message": "You may not."}},
        {"status": 404},
        {"status": 500, "headers": {"Retry-After": "0.01"}},
        {"status": 200, "body": ""},
        {"status": 200, "body": "{}"},
        {"status": 200, "body": '{"value": []}'},
        {"status": 200, "body": '{"value": [{}, {"name": null}, {"name": "Standard_X"}]}'},
        {"status": 200, "body": "<html>"},
    ],
    ids=str,
)
def test_sizes_that_azure_does_not_list_come_from_the_table(
    emulator: Any, workspace: WorkspaceRef, effect: dict[str, Any]
) -> None:
    """A list that informs fails no run: the table knows the GPUs, and a warning names it."""
    emulator.faults({"match": {"path": "/vmSizes$"}, "effect": effect})
    report = RunReport()

    with recording(report):
        sizes = list_sizes(workspace)

    [warning] = report.warnings
    assert "the table of 2026-11-21" in warning
    assert not is_listed(sizes)
    assert (A100, 1, "table") == (
        (found := validate_compute(spec(), None, sizes, None)).name,
        found.gpus,
        found.source,
    )
    with pytest.raises(SizeUnknown, match="is not known") as refused:
        validate_compute(spec(size="Standard_ND999"), None, sizes, None)
    assert "compute.gpus_per_node" in refused.value.remedy
    given = validate_compute(spec(size="Standard_ND999", gpus_per_node=16), None, sizes, None)
    assert 16 == given.gpus


def test_entries_of_the_list_that_are_odd_take_no_other_away(
    emulator: Any, workspace: WorkspaceRef
) -> None:
    """Text for a number, other spellings, nulls: read, or left out; Azure goes before the table."""
    listed = [
        {"name": A100, "gpus": "4", "vCPUs": None, "memoryGB": "n/a", "lowPriorityCapable": None},
        {"name": "Standard_NC48ads_A100_v4", "gpus": None},
        {"name": "Standard_X", "gpus": "many"},
        {"name": None, "gpus": 1},
    ]
    body = json.dumps({"value": listed})
    emulator.faults({"match": {"path": "/vmSizes$"}, "effect": {"status": 200, "body": body}})

    sizes = list_sizes(workspace)

    known = {size.name: (size.gpus, size.source) for size in sizes.values()}
    assert known == {
        A100: (4, "azure"),
        "Standard_NC48ads_A100_v4": (2, "table"),
        "Standard_X": (0, "nobody"),
    }
    assert sizes[A100.lower()].low_priority
    with pytest.raises(SizeUnknown, match="does not offer Standard_ND999"):
        validate_compute(spec(size="Standard_ND999"), None, sizes, None)


def test_gpus_that_are_given_must_agree_with_what_is_known() -> None:
    """The job would be wired for GPUs that the node does not have."""
    with pytest.raises(ConfigurationError, match="has 1 GPUs, not 8"):
        validate_compute(spec(gpus_per_node=8), None, SIZES, None)


@pytest.mark.parametrize("lacking", ["vmSize", "maxNodeCount", "tier"])
def test_a_cluster_of_which_azure_does_not_say_everything_is_used(
    emulator: Any, workspace: WorkspaceRef, lacking: str
) -> None:
    """A property that is missing is no proof that the cluster is another one."""
    ensure_compute(workspace, spec(), SIZES[A100.lower()])
    properties: dict[str, Any] = {
        "vmSize": A100,
        "vmPriority": "Dedicated",
        "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1},
        "remoteLoginPortPublicAccess": "NotSpecified",
    }
    properties.pop(lacking, None)
    if lacking == "maxNodeCount":
        properties["scaleSettings"].pop(lacking)
    if lacking == "tier":
        properties.pop("vmPriority")
    body = {
        "name": "gpu-cluster-big",
        "location": "eastus2",
        "properties": {
            "computeType": "AmlCompute",
            "provisioningState": "Succeeded",
            "properties": properties,
        },
    }
    effect = {"status": 200, "body": json.dumps(body)}
    emulator.faults({"match": {"method": "GET", **COMPUTES}, "effect": effect})

    assert not ensure_compute(workspace, spec(), SIZES[A100.lower()]).created


def test_a_missing_cluster_is_made_and_then_found(emulator: Any, workspace: WorkspaceRef) -> None:
    """Made once: dedicated, shrinking to no node after the idle time, and found by the next run."""
    asked = spec(nodes=2, idle_seconds_before_scale_down=300)
    size = list_sizes(workspace)[A100.lower()]

    assert check_compute(workspace, asked) is None
    first = ensure_compute(workspace, asked, size)
    second = ensure_compute(workspace, asked, size)

    made = ml_client(workspace).compute.get("gpu-cluster-big")
    assert (True, False) == (first.created, second.created)
    assert (1, 2, False) == (first.gpus_per_node, first.nodes, first.serverless)
    assert (0, 2, 300) == (
        made.min_instances,
        made.max_instances,
        made.idle_time_before_scale_down,
    )
    assert "dedicated" == made.tier
    puts = [row for row in emulator.requests() if row["method"] == "PUT"]
    assert 1 == len(puts)


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_only_a_404_means_that_the_cluster_is_not_there(
    emulator: Any, workspace: WorkspaceRef, status: int
) -> None:
    """An authentication error or a 429 creates nothing: the tutorial creates on any exception."""
    emulator.faults(
        {
            "match": {"method": "GET", **COMPUTES},
            "effect": {"status": status, "headers": {"Retry-After": "0.01"}},
        }
    )
    size = SIZES[A100.lower()]

    with pytest.raises(ServiceError) as raised:
        ensure_compute(workspace, spec(), size)

    assert status == raised.value.status
    assert [] == [row for row in emulator.requests() if row["method"] == "PUT"]


def out_of_quota(*nth: int) -> dict[str, Any]:
    """The n-th creation ends for want of quota."""
    return {
        "match": {"method": "PUT", **COMPUTES},
        "nth": list(nth),
        "effect": {
            "operation_error": {"code": "ClusterCoreQuotaReached", "message": "0 of 24 cores left."}
        },
    }


def test_want_of_quota_is_told_with_its_remedy(emulator: Any, workspace: WorkspaceRef) -> None:
    """A refusal for good is told at once, and leaves no failed cluster behind for the next run."""
    emulator.faults(out_of_quota(1))

    with pytest.raises(ComputeNotUsable, match="quota") as raised:
        ensure_compute(workspace, spec(), SIZES[A100.lower()])

    assert "ClusterCoreQuotaReached" in raised.value.message
    assert check_compute(workspace, spec()) is None


def test_a_family_without_quota_is_refused_and_leaves_no_meter(
    emulator: Any, workspace: WorkspaceRef
) -> None:
    """A new subscription has no H100s: that is told before the job, and nothing is billed."""
    h100 = list_sizes(workspace)["standard_nd96isr_h100_v5"]
    asked = spec(size=h100.name)

    with pytest.raises(ComputeNotUsable, match="Ask for quota"):
        ensure_compute(workspace, asked, h100)

    assert [] == emulator.open_meters()
    assert check_compute(workspace, asked) is None


def test_low_priority_is_tried_only_where_it_is_allowed(
    emulator: Any, workspace: WorkspaceRef
) -> None:
    """Dedicated first; then low priority, which may be taken away, for those who accepted that."""
    emulator.faults(out_of_quota(1))
    made = ensure_compute(workspace, spec(allow_low_priority=True), SIZES[A100.lower()])

    found = check_compute(workspace, spec())
    assert ("low_priority", True) == (made.tier, made.created)
    assert found is not None
    assert ("low_priority", "Succeeded") == (found.tier, found.provisioning_state)


def test_a_compute_that_is_no_cluster_is_refused(emulator: Any, workspace: WorkspaceRef) -> None:
    """A compute instance of that name cannot take the job."""
    instance = {
        "id": f"{workspace.arm_id}/computes/gpu-cluster-big",
        "name": "gpu-cluster-big",
        "type": "Microsoft.MachineLearningServices/workspaces/computes",
        "location": "eastus2",
        "properties": {
            "computeType": "ComputeInstance",
            "provisioningState": "Succeeded",
            "properties": {"vmSize": "STANDARD_D12_V2", "state": "Running"},
        },
    }
    emulator.faults(
        {
            "match": {"method": "GET", **COMPUTES},
            "effect": {
                "status": 200,
                "headers": {"Content-Type": "application/json"},
                "body": json.dumps(instance),
            },
        }
    )

    with pytest.raises(ComputeNotUsable, match="not a compute cluster"):
        check_compute(workspace, spec())


def test_serverless_needs_no_cluster(emulator: Any, workspace: WorkspaceRef) -> None:
    """Without a name nothing is looked up or made; the size is the instance type."""
    asked = spec(name=None)

    assert check_compute(workspace, asked) is None
    made = ensure_compute(workspace, asked, SIZES[A100.lower()])
    assert (None, A100, True, False) == (made.name, made.size, made.serverless, made.created)
    assert [] == [row for row in emulator.requests() if "/computes" in row["path"]]
