"""Managed online endpoints: their names, keys, identity and traffic."""

from __future__ import annotations

import secrets

from ..emulator import Applier, Emulator
from ..errors import BadRequest
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import TENANT_ID, WORKSPACE_ID
from ..store import Document, public
from ..timeline import Event
from ..tokens import LIFETIME_SECONDS
from .serving import (
    DEPLOYMENT,
    ENDPOINT,
    at_resource,
    check_name,
    check_tags,
    endpoint_id,
    get_endpoint,
    only_location,
    page,
    refuse_if_busy,
    refused,
    save,
    system_data,
)

_FREED = "onlineEndpointNameFreed"
_AUTH_MODES = ("Key", "AMLToken", "AADToken")
_IDENTITIES = ("None", "SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned")
_PRINCIPAL_ID = "00000000-0000-4000-8000-0000000000cc"
_ASSIGNED = {
    "principalId": "00000000-0000-4000-8000-0000000000dd",
    "clientId": "00000000-0000-4000-8000-0000000000de",
}


def put_endpoint(emulator: Emulator, call: Call) -> Reply:
    """Create the endpoint, or change its tags, description, identity and traffic.

    Tags, description and identity show at once; traffic moves when the operation is done.
    """
    name, body = call.params["endpoint"], call.json()
    check_name(name, "endpoint")
    properties = _checked_properties(body)
    found = emulator.store.get(ENDPOINT, endpoint_id(name))
    if found is None:
        return _create(emulator, call, body)
    refuse_if_busy(found)
    traffic = _checked_traffic(emulator, found, properties)
    found |= {"tags": check_tags(body), "identity": _identity(body)}
    found["properties"]["description"] = properties.get("description")
    headers = _begin_update(emulator, call, found, traffic)
    return Reply(_render(call, found), 200, at_resource(call, found, headers))


def patch_endpoint(emulator: Emulator, call: Call) -> Reply:
    """Change tags and identity."""
    found, body = get_endpoint(emulator, call.params["endpoint"]), call.json()
    refuse_if_busy(found)
    if "tags" in body:
        found["tags"] = check_tags(body)
    if "identity" in body:
        found["identity"] = _identity(body)
    return Reply(b"null", 202, only_location(_begin_update(emulator, call, found, {})))


def show_endpoint(emulator: Emulator, call: Call) -> Reply:
    """Answer with the endpoint."""
    return Reply(_render(call, get_endpoint(emulator, call.params["endpoint"])))


def list_endpoints(emulator: Emulator, call: Call) -> Reply:
    """Answer with a page of endpoints; ``?tags=a,b=c`` keeps those that bear all of them."""
    endpoints = emulator.store.list(ENDPOINT, parent=WORKSPACE_ID)
    if name := call.query.get("name"):
        endpoints = [one for one in endpoints if one["name"].lower() == name.lower()]
    if wanted := call.query.get("tags"):
        endpoints = [one for one in endpoints if _bears(one["tags"], wanted)]
    return page(call, [_render(call, one) for one in endpoints], size_parameter="count")


def delete_endpoint(emulator: Emulator, call: Call) -> Reply:
    """Begin to delete the endpoint and its deployments; 204 if there is no such endpoint."""
    found = emulator.store.get(ENDPOINT, endpoint_id(call.params["endpoint"]))
    if found is None:
        return Reply(None, 204)
    refuse_if_busy(found)
    for deployment in emulator.store.list(DEPLOYMENT, parent=found["id"]):
        refuse_if_busy(deployment)
    headers = _begin(emulator, call, found, "endpoint.delete", "Deleting")
    return Reply(None, 202, headers)


def list_keys(emulator: Emulator, call: Call) -> Reply:
    """Answer with both keys; only for ``authMode`` Key."""
    found = get_endpoint(emulator, call.params["endpoint"])
    _require_auth_mode(found, "Key", "listKeys")
    return Reply(found["_keys"])


def regenerate_keys(emulator: Emulator, call: Call) -> Reply:
    """Begin to replace the key that ``keyType`` names, Primary or Secondary."""
    found, kind = get_endpoint(emulator, call.params["endpoint"]), call.json().get("keyType")
    _require_auth_mode(found, "Key", "regenerateKeys")
    if kind not in ("Primary", "Secondary"):
        raise BadRequest(f"keyType must be Primary or Secondary, not {kind!r}.", target="keyType")
    refuse_if_busy(found)
    payload = {"key": f"{kind.lower()}Key"}
    headers = _begin(emulator, call, found, "endpoint.regenerate_keys", "Updating", payload)
    return Reply(b"null", 202, only_location(headers))


def issue_token(emulator: Emulator, call: Call) -> Reply:
    """Answer with a token that the endpoint accepts; only for ``authMode`` AMLToken."""
    found, now = get_endpoint(emulator, call.params["endpoint"]), emulator.now()
    _require_auth_mode(found, "AMLToken", "token")
    lifetime = call.effects.get("token_lifetime", LIFETIME_SECONDS)
    return Reply(
        {
            "accessToken": emulator.tokens.issue(found["id"].lower(), now=now, lifetime=lifetime),
            "tokenType": "Bearer",
            "refreshAfterTimeUtc": int(now + lifetime / 2),
            "expiryTimeUtc": int(now + lifetime),
        }
    )


def _create(emulator: Emulator, call: Call, body: Document) -> Reply:
    name, properties = call.params["endpoint"], body["properties"]
    freed = emulator.store.get(_FREED, name)
    if freed is not None and emulator.now() < freed["at"]:
        raise refused(
            "InferencingClientCreateEndpointFailed",
            "EndpointName",
            "There is already an endpoint with this name, Endpoint name needs to be unique within "
            "a region. Try some other name.",
        )
    document: Document = {
        "id": endpoint_id(name),
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints",
        "location": emulator.catalog.location,
        "kind": "Managed",
        "tags": check_tags(body),
        "identity": _identity(body),
        "properties": {
            "description": properties.get("description"),
            "properties": properties.get("properties") or {},
            "authMode": properties["authMode"],
            "compute": None,
            "publicNetworkAccess": properties.get("publicNetworkAccess") or "Enabled",
            "swaggerUri": None,
            "traffic": {},
            "mirrorTraffic": {},
        },
        "systemData": system_data(emulator),
        "_keys": {"primaryKey": secrets.token_hex(16), "secondaryKey": secrets.token_hex(16)},
        "_provisioned": False,
        "_requests": 0,
    }
    _checked_traffic(emulator, document, properties)
    headers = _begin(emulator, call, document, "endpoint.create", "Creating")
    emulator.ledger.open(
        document["id"], "endpoint", at=emulator.now(), sku="", quantity=1, usd_per_hour=0.0
    )
    return Reply(_render(call, document), 201, at_resource(call, document, headers))


def _begin_update(
    emulator: Emulator, call: Call, found: Document, traffic: Document
) -> dict[str, str]:
    return _begin(emulator, call, found, "endpoint.update", "Updating", traffic)


def _begin(
    emulator: Emulator,
    call: Call,
    document: Document,
    kind: str,
    state: str,
    payload: Document | None = None,
) -> dict[str, str]:
    """Put the endpoint into *state* until the event *kind*; return the operation's headers."""
    seconds = emulator.latency.seconds(kind)
    headers = emulator.begin_operation(call, kind, document["id"], after=seconds, payload=payload)
    document["properties"]["provisioningState"] = state
    document["properties"]["properties"] |= {
        "azureml.onlineendpointid": document["id"].lower(),
        "AzureAsyncOperationUri": headers["Azure-AsyncOperation"],
    }
    save(emulator, ENDPOINT, document)
    return headers


def _checked_properties(body: Document) -> Document:
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise BadRequest("The endpoint has no properties.", target="properties")
    if properties.get("authMode") not in _AUTH_MODES:
        raise BadRequest(
            f"authMode must be one of {', '.join(_AUTH_MODES)}, "
            f"not {properties.get('authMode')!r}.",
            target="properties.authMode",
        )
    if not body.get("location"):
        raise BadRequest("The location property is required.", code="LocationRequired")
    return properties


def _identity(body: Document) -> Document:
    given = body.get("identity") or {"type": "SystemAssigned"}
    kind = str(given.get("type", "")).replace(" ", "")
    if kind not in _IDENTITIES:
        raise BadRequest(
            f"identity.type must be one of {', '.join(_IDENTITIES)}, not {given.get('type')!r}.",
            target="identity.type",
        )
    identity: Document = {"type": kind, "principalId": None, "tenantId": None}
    if "SystemAssigned" in kind.split(","):
        identity |= {"principalId": _PRINCIPAL_ID, "tenantId": TENANT_ID}
    if "UserAssigned" in kind.split(","):
        assigned = given.get("userAssignedIdentities")
        if not assigned:
            raise BadRequest(
                "A user-assigned identity needs userAssignedIdentities.", target="identity"
            )
        identity["userAssignedIdentities"] = dict.fromkeys(assigned, _ASSIGNED)
    return identity


def _checked_traffic(emulator: Emulator, endpoint: Document, properties: Document) -> Document:
    """Return ``traffic`` and ``mirrorTraffic``, whole percents by deployment, or refuse them."""
    deployments = emulator.store.list(DEPLOYMENT, parent=endpoint["id"])
    names = {deployment["name"].lower() for deployment in deployments}
    checked = {field: properties.get(field) or {} for field in ("traffic", "mirrorTraffic")}
    for field, percents in checked.items():
        for name, percent in percents.items():
            if not isinstance(percent, int) or not 0 <= percent <= 100:
                raise BadRequest(f"{field} of {name} must be 0 to 100.", target=field)
            if name.lower() not in names:
                raise BadRequest(
                    f"{field} names the deployment {name}, which endpoint {endpoint['name']} "
                    "does not have.",
                    target=field,
                )
    total = sum(checked["traffic"].values())
    if total not in (0, 100):
        raise BadRequest(
            f"The traffic of all deployments must sum to 0 or 100, not {total}.", target="traffic"
        )
    mirrored = [percent for percent in checked["mirrorTraffic"].values() if percent]
    if len(mirrored) > 1 or sum(mirrored) > 50:
        raise BadRequest(
            "Traffic can be mirrored to one deployment, at most 50 percent.",
            target="mirrorTraffic",
        )
    return checked


def _bears(tags: dict[str, str], wanted: str) -> bool:
    for item in wanted.split(","):
        name, equals, text = item.partition("=")
        if name not in tags or (equals and tags[name] != text):
            return False
    return True


def _require_auth_mode(endpoint: Document, mode: str, action: str) -> None:
    found = endpoint["properties"]["authMode"]
    if found != mode:
        raise BadRequest(
            f"{action} is not for the endpoint {endpoint['name']}, whose authMode is {found}."
        )


def _render(call: Call, document: Document) -> Document:
    # Not kept with the endpoint: the port may be another after a restart.
    uri = f"{call.base_url}/score/{document['name']}/score" if document["_provisioned"] else None
    shown = public(document)
    shown["properties"]["scoringUri"] = uri
    return shown


def _created(emulator: Emulator, event: Event) -> None:
    found = _subject(emulator, event)
    found["_provisioned"] = "error" not in event.payload
    _settle(emulator, found, event)


def _updated(emulator: Emulator, event: Event) -> None:
    found = _subject(emulator, event)
    if "error" not in event.payload:
        found["properties"] |= event.payload
    _settle(emulator, found, event)


def _keys_regenerated(emulator: Emulator, event: Event) -> None:
    found = _subject(emulator, event)
    if "error" not in event.payload:
        found["_keys"][event.payload["key"]] = secrets.token_hex(16)
    _settle(emulator, found, event)


def _deleted(emulator: Emulator, event: Event) -> None:
    found = _subject(emulator, event)
    if "error" in event.payload:
        _settle(emulator, found, event)
        return
    for deployment in emulator.store.list(DEPLOYMENT, parent=found["id"]):
        emulator.scorer.stop(deployment)
        emulator.ledger.close(deployment["id"], at=emulator.now(), reason="endpoint deleted")
        emulator.store.delete(DEPLOYMENT, deployment["id"])
    emulator.ledger.close(found["id"], at=emulator.now(), reason="deleted")
    emulator.store.delete(ENDPOINT, found["id"])
    free = emulator.now() + emulator.latency.seconds("endpoint.name_reuse")
    emulator.store.put(_FREED, found["name"], {"at": free})


def _subject(emulator: Emulator, event: Event) -> Document:
    found = emulator.store.get(ENDPOINT, event.subject)
    assert found is not None
    return found


def _settle(emulator: Emulator, found: Document, event: Event) -> None:
    failed = "error" in event.payload
    found["properties"]["provisioningState"] = "Failed" if failed else "Succeeded"
    save(emulator, ENDPOINT, found)


_ENDPOINTS = f"{WORKSPACE}/onlineEndpoints"
_ENDPOINT = f"{_ENDPOINTS}/{{endpoint}}"

ROUTES = [
    Route("GET", _ENDPOINTS, list_endpoints),
    Route("PUT", _ENDPOINT, put_endpoint),
    Route("PATCH", _ENDPOINT, patch_endpoint),
    Route("GET", _ENDPOINT, show_endpoint),
    Route("DELETE", _ENDPOINT, delete_endpoint),
    Route("POST", f"{_ENDPOINT}/listKeys", list_keys),
    Route("POST", f"{_ENDPOINT}/regenerateKeys", regenerate_keys),
    Route("POST", f"{_ENDPOINT}/token", issue_token),
]
EVENTS: dict[str, Applier] = {
    "endpoint.create": _created,
    "endpoint.update": _updated,
    "endpoint.regenerate_keys": _keys_regenerated,
    "endpoint.delete": _deleted,
}
