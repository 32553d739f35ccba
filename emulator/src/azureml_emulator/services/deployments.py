"""Managed online deployments: instances that are paid for from the moment they are allocated.

A deployment that failed keeps its instances, and its meter, until it is deleted.
"""

from __future__ import annotations

from functools import partial

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, Conflict, NotFound, OperationFailed, OperationGoesOn
from ..routing import WORKSPACE, Call, Reply, Route
from ..store import Document, public
from ..timeline import Event
from . import artifacts
from .deployment_checks import check_quota, checked, sku_of
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
    save,
    state,
    system_data,
)

_CONTAINERS = ("InferenceServer", "StorageInitializer")


def put_deployment(emulator: Emulator, call: Call) -> Reply:
    """Create the deployment or change it; 201 either way, as recorded."""
    endpoint, name = get_endpoint(emulator, call.params["endpoint"]), call.params["deployment"]
    body = call.json()
    check_name(name, "deployment")
    wanted = checked(emulator, body)
    found = emulator.store.get(DEPLOYMENT, _id(endpoint, name))
    refuse_if_busy(endpoint)
    if not endpoint["_provisioned"]:
        raise Conflict(f"The endpoint {endpoint['name']} was never brought up: delete it.")
    if found is not None:
        refuse_if_busy(found)
    check_quota(emulator, found, wanted)
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
        document["sku"] = sku_of(body)
        check_quota(emulator, document, document)
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


def recover(emulator: Emulator) -> None:
    """Bring up the containers that went with the last emulator on this state folder."""
    for document in emulator.store.list(DEPLOYMENT):
        if document["_up"] or "_waiting" in document:
            model = artifacts.model_at(emulator, document["properties"]["model"])
            settled = partial(_settled, emulator, document["id"])
            emulator.scorer.recover(document, model, settled)
            if emulator.scorer.health(document).state != "starting":
                settled()


def _brought_up(emulator: Emulator, event: Event) -> None:
    document = emulator.store.get(DEPLOYMENT, event.subject)
    assert document is not None
    document["_error"] = event.payload.get("error")
    if document["_error"] is None:
        document["_error"] = _probed(emulator, document, event)
    if document["_error"] is None:
        document["_up"] = True
    _settle(emulator, document, event)
    if document["_error"] is not None and "error" not in event.payload:
        raise OperationFailed(document["_error"]["code"], document["_error"]["message"])


def _probed(emulator: Emulator, document: Document, event: Event) -> Document | None:
    """Return what is wrong with the deployment's container, once that is known."""
    scorer, model = emulator.scorer, document["properties"]["model"]
    # Tags and the number of instances change without a new container.
    serves = document["_up"] and document.get("_serves") == model
    if "_waiting" not in document and not (serves and scorer.health(document).state != "failed"):
        document["_serves"] = model
        settled = partial(_settled, emulator, document["id"])
        scorer.start(document, artifacts.model_at(emulator, model), settled)
    health = scorer.health(document)
    if health.state == "starting":
        document["_waiting"] = {"kind": event.kind, "operation": event.operation}
        save(emulator, DEPLOYMENT, document)
        raise OperationGoesOn
    document.pop("_waiting", None)
    failed = health.state == "failed"
    return {"code": "ResourceNotReady", "message": health.message} if failed else None


def _settled(emulator: Emulator, key: str) -> None:
    """Let the operation that waits for the deployment's container go on, if one does."""
    with emulator.store.transaction():
        document = emulator.store.get(DEPLOYMENT, key)
        waiting = None if document is None else document.get("_waiting")
        if waiting is not None:
            emulator.schedule(waiting["kind"], key, after=0.0, operation=waiting["operation"])


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
    failed = "error" in event.payload or document["_error"] is not None
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
