"""Microsoft.Authorization: management locks, which Resource Manager keeps, and the caller's rights.

A lock applies to its scope and to all below it. ``CanNotDelete`` refuses a DELETE, ``ReadOnly``
every PUT, PATCH and POST as well, also one that only reads, such as ``listKeys``. The data plane
knows no locks: run history, MLflow, blobs, scoring.

Sources: Azure/azure-rest-api-specs, ``locks.json`` 2020-05-01 and ``authorization.json``; for what
a list holds, Azure/azure-powershell, ``Get-AzResourceLock -AtScope``; the refusal, Azure/
azure-cli#20232, for ``listKeys`` as a "write operation" too; learn.microsoft.com, "Lock your
resources to protect your infrastructure".
"""

from __future__ import annotations

import re

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, NotFound, ScopeLocked
from ..routing import GROUP, SUBSCRIPTION, WORKSPACE, Call, Reply, Route
from ..store import Document, public
from .compute import KIND as COMPUTE
from .serving import DEPLOYMENT, ENDPOINT, system_data

_LOCK = "lock"
_AUTHORIZATION = "/providers/Microsoft.Authorization"
_LEVELS = ("CanNotDelete", "ReadOnly")
_NAME = re.compile(r"[^<>%&:\\?/\x00-\x1f\x7f]{1,260}")
_LONGEST_NOTES = 512
_AT_SCOPE = "atScope()"


def refuse_if_locked(emulator: Emulator, call: Call) -> None:
    """Refuse what a lock forbids, before the resource itself is looked at.

    Raises:
        ScopeLocked: A lock at the resource or above it forbids the change; for a deletion, also
            one below it.
    """
    if call.method == "GET" or _AUTHORIZATION.lower() in call.path.lower():
        return
    is_deletion = call.method == "DELETE"
    resource = call.path.rstrip("/")
    if call.method == "POST":
        resource = resource.rpartition("/")[0]
    locked = [
        lock["_scope"]
        for lock in emulator.store.list(_LOCK)
        if _is_at_or_below(resource, lock["_scope"])
        or (is_deletion and _is_at_or_below(lock["_scope"], resource))
        if is_deletion or lock["properties"]["level"] == "ReadOnly"
    ]
    if locked:
        scopes = ",".join(dict.fromkeys(locked))
        raise ScopeLocked(
            f"The scope '{resource}' cannot perform {'delete' if is_deletion else 'write'} "
            f"operation because following scope(s) are locked: '{scopes}'. Please remove the lock "
            "and try again."
        )


def put_lock(emulator: Emulator, call: Call) -> Reply:
    """Create a lock, or change its level and notes."""
    scope, properties = _scope(emulator, call), _checked(call)
    name, key = call.params["lock"], _key(scope, call.params["lock"])
    found = emulator.store.get(_LOCK, key)
    changed = {"lastModifiedAt": iso(emulator.now()), "lastModifiedBy": "emulator"}
    document: Document = {
        "id": key,
        "name": name,
        "type": "Microsoft.Authorization/locks",
        "properties": properties,
        "systemData": {**(found["systemData"] if found else system_data(emulator)), **changed},
        "_scope": scope,
    }
    emulator.store.put(_LOCK, key, document)
    return Reply(public(document), 200 if found else 201)


def show_lock(emulator: Emulator, call: Call) -> Reply:
    """Answer with the lock."""
    found = emulator.store.get(_LOCK, _key(_scope(emulator, call), call.params["lock"]))
    if found is None:
        raise NotFound(f"The lock '{call.params['lock']}' could not be found.", code="LockNotFound")
    return Reply(public(found))


def list_locks(emulator: Emulator, call: Call) -> Reply:
    """Answer with the locks at, above and below the scope; ``atScope()`` leaves out those below."""
    scope, wanted = _scope(emulator, call), call.query.get("$filter")
    if wanted not in (None, _AT_SCOPE):
        raise BadRequest(
            f"The filter {wanted!r} is not supported: it must be {_AT_SCOPE}.",
            code="InvalidFilterInQueryString",
            target="$filter",
        )
    locks = [
        public(lock)
        for lock in emulator.store.list(_LOCK)
        if _is_at_or_below(scope, lock["_scope"])
        or (wanted is None and _is_at_or_below(lock["_scope"], scope))
    ]
    return Reply({"value": locks})


def delete_lock(emulator: Emulator, call: Call) -> Reply:
    """Delete the lock; 204 if there is no such lock."""
    there = emulator.store.delete(_LOCK, _key(_scope(emulator, call), call.params["lock"]))
    return Reply(None, 200 if there else 204)


def list_permissions(emulator: Emulator, call: Call) -> Reply:
    """Answer with what the one identity may do: everything."""
    _scope(emulator, call)
    everything: Document = {
        "actions": ["*"],
        "notActions": [],
        "dataActions": [],
        "notDataActions": [],
    }
    return Reply({"value": [everything]})


def _scope(emulator: Emulator, call: Call) -> str:
    """Return the scope of the call as the client spells it.

    Raises:
        NotFound: There is no such endpoint, deployment or compute.
    """
    scope = call.path[: call.path.lower().rindex(_AUTHORIZATION.lower())]
    kinds = {"deployment": DEPLOYMENT, "endpoint": ENDPOINT, "compute": COMPUTE}
    kind = next((kind for name, kind in kinds.items() if name in call.params), None)
    if kind is not None and emulator.store.get(kind, scope) is None:
        raise NotFound(f"The Resource '{scope}' was not found.")
    return scope


def _checked(call: Call) -> Document:
    """Return the lock's properties.

    Raises:
        BadRequest: The name, level or notes are not right.
    """
    if not _NAME.fullmatch(call.params["lock"]):
        raise BadRequest(
            f"The lock name {call.params['lock']!r} is not valid: it must have at most 260 "
            "characters, and none of <, >, %, &, :, \\, ?, / or control characters.",
            code="InvalidLockName",
        )
    properties = call.json().get("properties")
    level = properties.get("level") if isinstance(properties, dict) else None
    if not isinstance(properties, dict) or level not in _LEVELS:
        raise BadRequest(
            "The request content was invalid and could not be deserialized: 'Error converting "
            f"value {level!r} to type 'LockLevel': it must be one of {', '.join(_LEVELS)}. "
            "Path 'properties.level'.'.",
            code="InvalidRequestContent",
        )
    notes = properties.get("notes")
    if notes is not None and not (isinstance(notes, str) and len(notes) <= _LONGEST_NOTES):
        raise BadRequest(
            f"The notes of a lock must be text of at most {_LONGEST_NOTES} characters.",
            code="InvalidRequestContent",
        )
    return {"level": level} | ({} if notes is None else {"notes": notes})


def _key(scope: str, name: str) -> str:
    return f"{scope}{_AUTHORIZATION}/locks/{name}"


def _is_at_or_below(resource: str, scope: str) -> bool:
    return f"{resource}/".lower().startswith(f"{scope}/".lower())


_ENDPOINT = f"{WORKSPACE}/onlineEndpoints/{{endpoint}}"
_RESOURCES = (
    WORKSPACE,
    _ENDPOINT,
    f"{_ENDPOINT}/deployments/{{deployment}}",
    f"{WORKSPACE}/computes/{{compute}}",
)

ROUTES = [
    route
    for scope in (SUBSCRIPTION, GROUP, *_RESOURCES)
    for route in (
        Route("GET", f"{scope}{_AUTHORIZATION}/locks", list_locks),
        Route("PUT", f"{scope}{_AUTHORIZATION}/locks/{{lock}}", put_lock),
        Route("GET", f"{scope}{_AUTHORIZATION}/locks/{{lock}}", show_lock),
        Route("DELETE", f"{scope}{_AUTHORIZATION}/locks/{{lock}}", delete_lock),
    )
] + [
    Route("GET", f"{scope}{_AUTHORIZATION}/permissions", list_permissions)
    for scope in (GROUP, *_RESOURCES)
]
EVENTS: dict[str, Applier] = {}
