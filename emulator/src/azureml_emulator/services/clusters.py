"""AmlCompute clusters: made, changed, deleted. Their nodes are :mod:`.compute`.

The shapes of answers were read in a recording of the live service (Azure/azure-sdk-assets,
``test_aml_compute_create_and_delete``): a PUT answers 201 with the size in capitals, the later GET
writes it as it is sold. What a cluster cannot have for want of quota is found out while it is made,
as in Azure: the operation fails, and the cluster stays, Failed.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, Conflict, NotEmulated, NotFound, OperationFailed
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import WORKSPACE_ID
from ..store import Document, public
from ..timeline import Event
from . import compute, steps

_TYPE = "Microsoft.MachineLearningServices/workspaces/computes"
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{1,30})[A-Za-z0-9]")
_PRIORITIES = {"dedicated": "Dedicated", "lowpriority": compute.LOW_PRIORITY}
_DEFAULT_IDLE = "PT2M"
_IN_TRANSITION = ("Creating", "Updating", "Deleting")


def put_compute(emulator: Emulator, call: Call) -> Reply:
    """Create the cluster, or change how it scales."""
    name, body = call.params["compute"], call.json()
    _check_name(name)
    settings = _checked_settings(emulator, body)
    kept = compute.find(emulator, name)
    if kept is not None:
        _refuse_if_busy(kept)
    if kept is None or kept["properties"]["provisioningState"] == "Failed":
        return _create(emulator, call, body, settings)
    return _update(emulator, call, kept, body, settings)


def get_compute(emulator: Emulator, call: Call) -> Reply:
    """Answer with the cluster.

    Raises:
        NotFound: There is none of that name.
    """
    return Reply(_render(_known(emulator, call.params["compute"])))


def list_computes(emulator: Emulator, call: Call) -> Reply:
    """Answer with all clusters."""
    clusters = emulator.store.list(compute.KIND, parent=WORKSPACE_ID)
    return Reply({"value": [_render(one) for one in clusters]})


def list_nodes(emulator: Emulator, call: Call) -> Reply:
    """Answer with the nodes that are up, and the run that each works for."""
    cluster = _known(emulator, call.params["compute"])
    runs = [owner for owner, nodes in sorted(cluster["_held"].items()) for _ in range(nodes)]
    idle = cluster["_billed"] - len(runs)
    states = [("running", run) for run in runs] + [("idle", None)] * idle
    nodes = [
        {
            "nodeId": f"tvmps_{number:064x}_d",
            "privateIpAddress": f"10.0.0.{number % 250 + 4}",
            "publicIpAddress": None,
            "port": None,
            "nodeState": state,
            "runId": run,
        }
        for number, (state, run) in enumerate(states)
    ]
    return Reply({"nodes": nodes})


def delete_compute(emulator: Emulator, call: Call) -> Reply:
    """Begin to delete the cluster.

    Raises:
        Conflict: It is being changed, or jobs hold nodes of it.
    """
    cluster = _known(emulator, call.params["compute"])
    if call.query.get("underlyingResourceAction") not in ("Delete", "Detach"):
        raise BadRequest(
            "The query parameter underlyingResourceAction must be Delete or Detach.",
            target="underlyingResourceAction",
        )
    _refuse_if_busy(cluster)
    if cluster["_held"]:
        raise Conflict(f"Compute {cluster['name']} is in use by {sorted(cluster['_held'])}.")
    headers = emulator.begin_operation(
        call, "compute.delete", cluster["id"], after=emulator.latency.seconds("compute.delete")
    )
    cluster["properties"]["provisioningState"] = "Deleting"
    compute.save(emulator, cluster)
    return Reply(None, 202, headers)


def _check_name(name: str) -> None:
    # learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules: 3-32 for
    # AmlCompute; the wording is the service's (MicrosoftLearning/DP100#50).
    if not _NAME.fullmatch(name):
        raise BadRequest(
            "Compute name is invalid. It can include letters, digits and dashes. It must start "
            "with a letter, end with a letter or digit, and be between 3 and 32 characters in "
            "length.",
            target="name",
        )


def _checked_settings(emulator: Emulator, body: dict[str, Any]) -> Document:
    outer = body.get("properties") or {}
    if outer.get("computeType") != "AmlCompute":
        raise NotEmulated(f"Computes of type {outer.get('computeType')} are not emulated.")
    given = outer.get("properties") or {}
    sold = emulator.catalog.sizes.get(str(given.get("vmSize", "")).lower())
    if sold is None:
        # Azure/MachineLearningNotebooks#1169
        supported = ",".join(one["name"].upper() for one in emulator.catalog.sizes.values())
        raise BadRequest(
            f"The specified value {given.get('vmSize')} for property Cluster.Properties.VMSize is "
            "not a supported VM size. See additional details for supported VM sizes.",
            code="InvalidPropertyValue",
            target="vmSize",
            details=[{"code": "SupportedVMSizes", "message": supported}],
        )
    priority = _PRIORITIES.get(str(given.get("vmPriority") or "Dedicated").lower())
    if priority is None:
        raise _invalid("VMPriority", given["vmPriority"], "It is Dedicated or LowPriority.")
    if priority == compute.LOW_PRIORITY and not sold.get("low_priority", False):
        raise _invalid("VMPriority", priority, f"{sold['name']} is sold as Dedicated only.")
    account = given.get("userAccountCredentials")
    return {
        **given,
        "userAccountCredentials": account and {**account, "adminUserPassword": None},
        "vmSize": sold["name"],
        "vmPriority": priority,
        "scaleSettings": _checked_scale(given.get("scaleSettings") or {}),
    }


def _checked_scale(given: dict[str, Any]) -> Document:
    least, most = given.get("minNodeCount") or 0, given.get("maxNodeCount")
    idle = given.get("nodeIdleTimeBeforeScaleDown") or _DEFAULT_IDLE
    if not isinstance(most, int) or most < 0:
        raise _invalid("MaxNodeCount", most, "It is a number of nodes.")
    if not isinstance(least, int) or not 0 <= least <= most:
        raise _invalid("MinNodeCount", least, f"It is from 0 to the maximum, {most}.")
    if not isinstance(idle, str) or not compute.DURATION.fullmatch(idle):
        raise _invalid("NodeIdleTimeBeforeScaleDown", idle, "It is a duration of ISO 8601.")
    return {
        "minNodeCount": least,
        "maxNodeCount": most,
        "nodeIdleTimeBeforeScaleDown": idle,
    }


def _invalid(name: str, value: Any, rule: str) -> BadRequest:
    return BadRequest(
        f"The specified value {value} for property Cluster.Properties.{name} is invalid. {rule}",
        code="InvalidPropertyValue",
        target=name,
    )


def _create(emulator: Emulator, call: Call, body: dict[str, Any], settings: Document) -> Reply:
    outer, now = body["properties"], iso(emulator.now())
    cluster: Document = {
        "id": compute.compute_id(call.params["compute"]),
        "name": call.params["compute"],
        "type": _TYPE,
        "location": body.get("location") or emulator.catalog.location,
        "tags": body.get("tags") or {},
        "identity": body.get("identity"),
        "properties": {
            "createdOn": now,
            "modifiedOn": now,
            "disableLocalAuth": outer.get("disableLocalAuth", False),
            "description": outer.get("description"),
            "resourceId": None,
            "computeType": "AmlCompute",
            "computeLocation": emulator.catalog.location,
            "provisioningState": "Creating",
            "provisioningErrors": None,
            "isAttachedCompute": False,
            "properties": {**settings, "allocationState": "Steady"},
        },
        "_held": {},
        "_idle": [],
        "_billed": 0,
    }
    compute.save(emulator, cluster)
    headers = emulator.begin_operation(
        call, "compute.create", cluster["id"], after=emulator.latency.seconds("compute.create")
    )
    answer = _render(cluster)
    answer["properties"]["properties"]["vmSize"] = settings["vmSize"].upper()
    return Reply(answer, 201, headers)


def _update(
    emulator: Emulator, call: Call, cluster: Document, body: dict[str, Any], settings: Document
) -> Reply:
    kept = cluster["properties"]["properties"]
    for name in ("vmSize", "vmPriority"):
        if settings[name] != kept[name]:
            raise BadRequest(
                f"The property {name} of compute {cluster['name']} is {kept[name]} and cannot be "
                f"changed to {settings[name]}.",
                target=name,
            )
    cluster["tags"] = body.get("tags") or {}
    cluster["properties"] |= {"provisioningState": "Updating", "modifiedOn": iso(emulator.now())}
    compute.save(emulator, cluster)
    headers = emulator.begin_operation(
        call,
        "compute.update",
        cluster["id"],
        after=emulator.latency.seconds("compute.update"),
        payload={"scaleSettings": settings["scaleSettings"]},
    )
    return Reply(_render(cluster), 200, headers)


def _refuse_if_busy(cluster: Document) -> None:
    state = cluster["properties"]["provisioningState"]
    if state in _IN_TRANSITION:
        raise Conflict(f"Compute {cluster['name']} is {state}: wait until that is done.")


def _known(emulator: Emulator, name: str) -> Document:
    cluster = compute.find(emulator, name)
    if cluster is None:
        raise NotFound(f"The Resource '{_TYPE}/{name}' was not found.")
    return cluster


def _render(cluster: Document) -> Document:
    shown = public(cluster)
    nodes, running = cluster["_billed"], sum(cluster["_held"].values())
    shown["properties"]["properties"] |= {
        "currentNodeCount": nodes,
        "targetNodeCount": nodes,
        "nodeStateCounts": {
            "preparingNodeCount": 0,
            "runningNodeCount": running,
            "idleNodeCount": nodes - running,
            "unusableNodeCount": 0,
            "leavingNodeCount": 0,
            "preemptedNodeCount": 0,
        },
    }
    return shown


def _created(emulator: Emulator, event: Event) -> None:
    cluster = _subject(emulator, event)
    refusal = event.payload.get("error") or compute.quota_refusal(emulator, cluster)
    properties = cluster["properties"]
    if refusal is None:
        properties["provisioningState"] = "Succeeded"
        compute.bill(emulator, cluster)
        steps.serve_waiting(emulator)
        return
    properties |= {"provisioningState": "Failed", "provisioningErrors": [{"error": refusal}]}
    compute.save(emulator, cluster)
    steps.serve_waiting(emulator)
    if "error" not in event.payload:
        raise OperationFailed(refusal["code"], refusal["message"])


def _updated(emulator: Emulator, event: Event) -> None:
    cluster = _subject(emulator, event)
    cluster["properties"]["provisioningState"] = "Succeeded"
    if "error" not in event.payload:
        cluster["properties"]["properties"]["scaleSettings"] = event.payload["scaleSettings"]
    compute.bill(emulator, cluster)
    steps.serve_waiting(emulator)


def _deleted(emulator: Emulator, event: Event) -> None:
    cluster = _subject(emulator, event)
    if "error" in event.payload:
        cluster["properties"]["provisioningState"] = "Failed"
        compute.save(emulator, cluster)
        return
    emulator.timeline.cancel(cluster["id"])
    emulator.ledger.close(cluster["id"], at=emulator.now(), reason="deleted")
    emulator.store.delete(compute.KIND, cluster["id"])
    steps.serve_waiting(emulator)


def _scaled_down(emulator: Emulator, event: Event) -> None:
    cluster = _subject(emulator, event)
    # Nodes that idle for ever were waiting for this event to be released by hand.
    still = [until for until in cluster["_idle"] if emulator.now() < until < math.inf]
    cluster["_idle"] = still
    compute.bill(emulator, cluster)


def _subject(emulator: Emulator, event: Event) -> Document:
    cluster = emulator.store.get(compute.KIND, event.subject)
    assert cluster is not None
    return cluster


_COMPUTES = f"{WORKSPACE}/computes"
_COMPUTE = f"{_COMPUTES}/{{compute}}"

ROUTES = [
    Route("GET", _COMPUTES, list_computes),
    Route("PUT", _COMPUTE, put_compute),
    Route("GET", _COMPUTE, get_compute),
    Route("DELETE", _COMPUTE, delete_compute),
    Route("POST", f"{_COMPUTE}/listNodes", list_nodes),
]
EVENTS: dict[str, Applier] = {
    "compute.create": _created,
    "compute.update": _updated,
    "compute.delete": _deleted,
    "compute.scale_down": _scaled_down,
}
