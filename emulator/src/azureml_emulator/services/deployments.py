"""Managed online deployments: instances that are paid for from the moment they are allocated.

A deployment that failed keeps its instances, and its meter, until it is deleted.
"""

from __future__ import annotations

import math
import re

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, Conflict, NotEmulated, NotFound
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import REGISTRY_NAME, WORKSPACE_ID
from ..store import Document, public
from ..timeline import Event
from .artifacts import MODEL
from .compute import cores_in_use
from .serving import (
    DEPLOYMENT,
    ENDPOINT,
    at_resource,
    check_name,
    check_tags,
    get_endpoint,
    only_location,
    page,
    refuse_if_busy,
    refused,
    save,
    state,
    system_data,
)

LONGEST_REQUEST_SECONDS = 180.0

_REFUSED = "InferencingClientCreateDeploymentFailed"
_PROBE = {
    "failureThreshold": 30,
    "successThreshold": 1,
    "timeout": "PT2S",
    "period": "PT10S",
    "initialDelay": "PT10S",
}
_REQUESTS = {
    "maxQueueWait": "PT0.5S",
    "requestTimeout": "PT5S",
    "maxConcurrentRequestsPerInstance": 1,
}
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_CONTAINERS = ("InferenceServer", "StorageInitializer")
_MODEL_ID = re.compile(
    rf"(?:azureml:)?{re.escape(WORKSPACE_ID)}/models/([^/]+)/versions/([^/]+)", re.IGNORECASE
)
_REGISTRY_MODEL_ID = re.compile(
    rf"azureml://registries/{REGISTRY_NAME}/models/([^/]+)/versions/([^/]+)", re.IGNORECASE
)
# Sizes for which Azure keeps no 20 % of quota back for upgrades:
# https://learn.microsoft.com/azure/machine-learning/reference-managed-online-endpoints-vm-sku-list
_NO_RESERVE = re.compile(r"_(A100|H100)_|_nd96asr_v4|_nd40rs_v2", re.IGNORECASE)


def put_deployment(emulator: Emulator, call: Call) -> Reply:
    """Create the deployment or change it; 201 either way, as recorded."""
    endpoint, name = get_endpoint(emulator, call.params["endpoint"]), call.params["deployment"]
    body = call.json()
    check_name(name, "deployment")
    wanted = _checked(emulator, body)
    found = emulator.store.get(DEPLOYMENT, _id(endpoint, name))
    refuse_if_busy(endpoint)
    if not endpoint["_provisioned"]:
        raise Conflict(f"The endpoint {endpoint['name']} was never brought up: delete it.")
    if found is not None:
        refuse_if_busy(found)
    _check_quota(emulator, found, wanted)
    document: Document = found or {
        "id": _id(endpoint, name),
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments",
        "location": emulator.catalog.location,
        "kind": "Managed",
        "systemData": system_data(emulator),
        "properties": {"properties": {}},
        "_up": False,
    }
    document |= {"tags": check_tags(body), "sku": wanted["sku"], "_error": None}
    document["properties"] |= wanted["properties"]
    if found is None:
        headers = _begin(emulator, call, document, "deployment.create", "Creating")
    else:
        headers = _begin(emulator, call, document, "deployment.update", "Updating")
    _meter(emulator, document)
    return Reply(public(document), 201, at_resource(call, document, headers))


def patch_deployment(emulator: Emulator, call: Call) -> Reply:
    """Change the tags and the number of instances."""
    endpoint, document = _both(emulator, call)
    body = call.json()
    refuse_if_busy(endpoint)
    refuse_if_busy(document)
    if "tags" in body:
        document["tags"] = check_tags(body)
    if "sku" in body:
        document["sku"] = _sku(body)
        _check_quota(emulator, document, document)
    headers = _begin(emulator, call, document, "deployment.update", "Updating")
    _meter(emulator, document)
    return Reply(b"null", 202, only_location(headers))


def show_deployment(emulator: Emulator, call: Call) -> Reply:
    """Answer with the deployment."""
    return Reply(public(_both(emulator, call)[1]))


def list_deployments(emulator: Emulator, call: Call) -> Reply:
    """Answer with a page of the endpoint's deployments."""
    endpoint = get_endpoint(emulator, call.params["endpoint"])
    found = emulator.store.list(DEPLOYMENT, parent=endpoint["id"])
    return page(call, [public(one) for one in found], size_parameter="$top")


def delete_deployment(emulator: Emulator, call: Call) -> Reply:
    """Begin to delete the deployment, which must have no traffic; 204 if there is none."""
    endpoint = get_endpoint(emulator, call.params["endpoint"])
    document = emulator.store.get(DEPLOYMENT, _id(endpoint, call.params["deployment"]))
    if document is None:
        return Reply(None, 204)
    refuse_if_busy(endpoint)
    refuse_if_busy(document)
    if percent := _traffic(endpoint, document["name"]):
        raise BadRequest(
            f"The deployment {document['name']} has {percent} percent of the live traffic: set it "
            "to 0 before you delete the deployment.",
            target="traffic",
        )
    headers = _begin(emulator, call, document, "deployment.delete", "Deleting")
    return Reply(None, 202, headers)


def get_logs(emulator: Emulator, call: Call) -> Reply:
    """Answer with the last ``tail`` lines of the container's log and what happened to it."""
    document, body = _both(emulator, call)[1], call.json()
    container = body.get("containerType") or _CONTAINERS[0]
    if container not in _CONTAINERS:
        raise BadRequest(
            f"containerType must be one of {', '.join(_CONTAINERS)}, not {container!r}.",
            target="containerType",
        )
    lines = _log(emulator, document, container).splitlines()
    tail = body.get("tail")
    if tail is not None and (not isinstance(tail, int) or tail < 1):
        raise BadRequest("tail must be a whole number, 1 or more.", target="tail")
    return Reply({"content": "\n".join(lines[-tail:] if tail else lines)})


def _id(endpoint: Document, name: str) -> str:
    return f"{endpoint['id']}/deployments/{name}"


def _both(emulator: Emulator, call: Call) -> tuple[Document, Document]:
    endpoint = get_endpoint(emulator, call.params["endpoint"])
    document = emulator.store.get(DEPLOYMENT, _id(endpoint, call.params["deployment"]))
    if document is None:
        raise NotFound(
            f"The deployment {call.params['deployment']} was not found in the endpoint "
            f"{endpoint['name']}."
        )
    return endpoint, document


def _traffic(endpoint: Document, name: str) -> int:
    traffic: dict[str, int] = endpoint["properties"]["traffic"]
    return sum(percent for key, percent in traffic.items() if key.lower() == name.lower())


def _checked(emulator: Emulator, body: Document) -> Document:
    """Return ``sku`` and ``properties`` as Azure keeps them, defaults filled in, or refuse them."""
    given = body.get("properties")
    if not isinstance(given, dict):
        raise BadRequest("The deployment has no properties.", target="properties")
    if given.get("endpointComputeType") != "Managed":
        raise NotEmulated(
            f"endpointComputeType {given.get('endpointComputeType')} is not emulated, only Managed."
        )
    size = emulator.catalog.sizes.get(str(given.get("instanceType")).lower())
    if size is None:
        raise refused(
            _REFUSED,
            "VmSize",
            f"The VM size {given.get('instanceType')} is not supported for managed online "
            f"endpoints in {emulator.catalog.location}.",
        )
    scale = given.get("scaleSettings") or {"scaleType": "Default"}
    if scale.get("scaleType") != "Default":
        raise BadRequest("A managed deployment takes only the scaleType Default.")
    properties = {
        "description": given.get("description"),
        "properties": given.get("properties") or {},
        "codeConfiguration": given.get("codeConfiguration"),
        "environmentId": given.get("environmentId"),
        "environmentVariables": given.get("environmentVariables") or {},
        "scaleSettings": scale,
        "requestSettings": _request_settings(given.get("requestSettings") or {}),
        "modelMountPath": given.get("modelMountPath"),
        "appInsightsEnabled": bool(given.get("appInsightsEnabled")),
        "livenessProbe": _PROBE | (given.get("livenessProbe") or {}),
        "readinessProbe": _PROBE | (given.get("readinessProbe") or {}),
        "instanceType": size["name"],
        "model": _model(emulator, given),
        "egressPublicNetworkAccess": given.get("egressPublicNetworkAccess") or "Enabled",
        "endpointComputeType": "Managed",
    }
    return {"sku": _sku(body), "properties": properties}


def _sku(body: Document) -> Document:
    count = (body.get("sku") or {}).get("capacity")
    if not isinstance(count, int) or count < 1:
        raise BadRequest("sku.capacity must be a whole number, 1 or more.", target="sku.capacity")
    return {"name": "Default", "tier": "Standard", "capacity": count}


def _request_settings(given: Document) -> Document:
    settings = _REQUESTS | {name: value for name, value in given.items() if value is not None}
    found = _DURATION.fullmatch(str(settings["requestTimeout"]))
    if found is None:
        raise BadRequest(
            f"requestSettings.requestTimeout {settings['requestTimeout']!r} is no duration.",
            target="requestSettings.requestTimeout",
        )
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not 0 < total <= LONGEST_REQUEST_SECONDS:
        raise BadRequest(
            f"requestSettings.requestTimeout is {total:g} seconds; it must be more than 0 and at "
            f"most {LONGEST_REQUEST_SECONDS:g}.",
            target="requestSettings.requestTimeout",
        )
    return settings


def _model(emulator: Emulator, given: Document) -> str:
    """Return the id of a model that the workspace or the registry has, or refuse it."""
    model = given.get("model")
    if not model:
        raise BadRequest("The deployment has no model.", target="properties.model")
    kind = None
    if found := _MODEL_ID.fullmatch(model):
        model = f"{WORKSPACE_ID}/models/{found[1]}/versions/{found[2]}"
        kept = emulator.store.get(MODEL, model)
        kind = kept["properties"]["modelType"] if kept else None
    elif found := _REGISTRY_MODEL_ID.fullmatch(model):
        wanted = (found[1].lower(), found[2])
        for one in emulator.catalog.models:
            if (one["name"].lower(), one["version"]) == wanted:
                kind = one["type"]
    if kind is None:
        raise BadRequest(f"The model {model} was not found.", target="properties.model")
    if kind != "mlflow_model" and not given.get("environmentId"):
        raise BadRequest(
            f"The model {model} is a {kind}: only an mlflow_model is deployed without environment.",
            target="properties.environmentId",
        )
    return str(model)


def _check_quota(emulator: Emulator, found: Document | None, wanted: Document) -> None:
    """Refuse more cores than the size's family has left beside what *found* has now.

    Source: https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas, "Virtual
    machine quota allocation for deployment": ``ceil(1.2 * instances) * cores`` for most sizes.
    """
    size = emulator.catalog.sizes[wanted["properties"]["instanceType"].lower()]
    count = wanted["sku"]["capacity"]
    if not _NO_RESERVE.search(size["name"]):
        count = math.ceil(count * 1.2)
    used, needed = cores_in_use(emulator, size["family"]), count * size["vcpus"]
    if found is not None:
        had = emulator.catalog.sizes[found["_billed"][0].lower()]
        used -= found["_billed"][1] * had["vcpus"] if had["family"] == size["family"] else 0
    limit = emulator.catalog.quotas.get(size["family"], 0)
    if used + needed > limit:
        subscription = WORKSPACE_ID.split("/")[2]
        raise refused(
            _REFUSED,
            "VmSize",
            f"Not enough quota available for {size['name']} in SubscriptionId {subscription}. "
            f"Current usage/limit: {used}/{limit}. Additional needed: {needed} Please see "
            "troubleshooting guide, available here: https://aka.ms/oe-tsg#error-outofquota",
        )


def _begin(
    emulator: Emulator, call: Call, document: Document, kind: str, state: str
) -> dict[str, str]:
    """Put the deployment into *state* until the event *kind*; return the operation's headers."""
    seconds = emulator.latency.seconds(kind)
    headers = emulator.begin_operation(call, kind, document["id"], after=seconds)
    document["properties"]["provisioningState"] = state
    document["properties"]["properties"]["AzureAsyncOperationUri"] = headers["Azure-AsyncOperation"]
    document["_began"] = emulator.now()
    save(emulator, DEPLOYMENT, document)
    return headers


def _meter(emulator: Emulator, document: Document) -> None:
    """Bill what the deployment has allocated now, in place of what it had."""
    size, count = document["properties"]["instanceType"], document["sku"]["capacity"]
    if document.get("_billed") == [size, count]:
        return
    emulator.ledger.close(document["id"], at=emulator.now(), reason="changed")
    emulator.ledger.open(
        document["id"],
        "deployment",
        at=emulator.now(),
        sku=size,
        quantity=count,
        usd_per_hour=emulator.catalog.price(size),
    )
    document["_billed"] = [size, count]
    save(emulator, DEPLOYMENT, document)


def _log(emulator: Emulator, document: Document, container: str) -> str:
    error, up = document["_error"], document["_up"]
    pending = "InProgress" if state(document) == "Creating" else "Failed"
    status = "Succeeded" if up else pending
    began = iso(document["_began"])
    downloaded = "Models are downloaded successfully or no model need to download"
    told = [
        "Instance status:",
        "SystemSetup: Succeeded",
        "UserContainerImagePull: Succeeded",
        "ModelDownload: Succeeded",
        f"UserContainerStart: {status}",
        "",
        "Container events:",
        f"Kind: Pod, Name: Pulling, Type: Normal, Time: {began}, Message: Start downloading models",
        f"Kind: Pod, Name: Downloaded, Type: Normal, Time: {began}, Message: {downloaded}",
    ]
    if error:
        failed = f"{error['code']}: {error['message']}"
        told.append(f"Kind: Pod, Name: Failed, Type: Warning, Time: {began}, Message: {failed}")
    told += ["", "Container logs:"]
    if container == "InferenceServer":
        told += emulator.scorer.log(document).splitlines()
    else:
        told.append(f"Downloaded {document['properties']['model']}")
    return "\n".join(told)


def _brought_up(emulator: Emulator, event: Event) -> None:
    document = emulator.store.get(DEPLOYMENT, event.subject)
    assert document is not None
    document["_error"] = event.payload.get("error")
    if document["_error"] is None:
        emulator.scorer.start(document)
        document["_up"] = True
    _settle(emulator, document, event)


def _deleted(emulator: Emulator, event: Event) -> None:
    document = emulator.store.get(DEPLOYMENT, event.subject)
    assert document is not None
    if "error" in event.payload:
        _settle(emulator, document, event)
        return
    emulator.scorer.stop(document)
    emulator.ledger.close(document["id"], at=emulator.now(), reason="deleted")
    emulator.store.delete(DEPLOYMENT, document["id"])
    endpoint = emulator.store.get(ENDPOINT, document["id"].rsplit("/", 2)[0])
    assert endpoint is not None
    for field in ("traffic", "mirrorTraffic"):
        percents = endpoint["properties"][field]
        kept = {name: share for name, share in percents.items() if name.lower() != _name(document)}
        endpoint["properties"][field] = kept
    save(emulator, ENDPOINT, endpoint)


def _name(document: Document) -> str:
    return str(document["name"]).lower()


def _settle(emulator: Emulator, document: Document, event: Event) -> None:
    failed = "error" in event.payload
    document["properties"]["provisioningState"] = "Failed" if failed else "Succeeded"
    save(emulator, DEPLOYMENT, document)


_DEPLOYMENTS = f"{WORKSPACE}/onlineEndpoints/{{endpoint}}/deployments"
_DEPLOYMENT = f"{_DEPLOYMENTS}/{{deployment}}"

ROUTES = [
    Route("GET", _DEPLOYMENTS, list_deployments),
    Route("PUT", _DEPLOYMENT, put_deployment),
    Route("PATCH", _DEPLOYMENT, patch_deployment),
    Route("GET", _DEPLOYMENT, show_deployment),
    Route("DELETE", _DEPLOYMENT, delete_deployment),
    Route("POST", f"{_DEPLOYMENT}/getLogs", get_logs),
]
EVENTS: dict[str, Applier] = {
    "deployment.create": _brought_up,
    "deployment.update": _brought_up,
    "deployment.delete": _deleted,
}
