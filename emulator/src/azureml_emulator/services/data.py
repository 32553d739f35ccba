"""The workspace's data assets: names and versions for what lies in a datastore."""

from __future__ import annotations

import re

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, NotFound
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import WORKSPACE_ID
from ..store import Document, public

DATA = "dataVersion"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_TYPES = ("uri_file", "uri_folder", "mltable")


def put_version(emulator: Emulator, call: Call) -> Reply:
    """Register a version, or change its description, tags, properties and archive flag.

    Raises:
        BadRequest: The name, version or type is not one that there is, or the version is there and
            lies elsewhere.
    """
    name, version = call.params["data"], call.params["version"]
    properties = call.json().get("properties") or {}
    for text, field in ((name, "name"), (version, "version")):
        if not _NAME.fullmatch(text):
            raise BadRequest(f"Data {field} '{text}' is not valid.", target=field)
    kind, uri = properties.get("dataType"), str(properties.get("dataUri") or "")
    if kind not in _TYPES:
        raise BadRequest(f"Data type '{kind}' is not valid.", target="dataType")
    if not uri:
        raise BadRequest("DataUri is required.", target="dataUri")
    key = f"{_container_id(name)}/versions/{version}"
    found = emulator.store.get(DATA, key)
    if found is not None and found["properties"]["dataUri"] != uri:
        raise BadRequest(
            f"A data version with this name and version already exists: {name}:{version}. Its uri "
            "cannot be changed."
        )
    asset = {
        "id": key,
        "name": version,
        "type": "Microsoft.MachineLearningServices/workspaces/data/versions",
        "properties": {
            "description": properties.get("description"),
            "tags": properties.get("tags") or {},
            "properties": properties.get("properties") or {},
            "isArchived": bool(properties.get("isArchived")),
            "isAnonymous": bool(properties.get("isAnonymous")),
            "dataType": kind,
            "dataUri": uri,
        },
        "systemData": {
            "createdAt": found["systemData"]["createdAt"] if found else iso(emulator.now()),
            "createdBy": "Emulator",
            "createdByType": "User",
            "lastModifiedAt": iso(emulator.now()),
        },
    }
    emulator.store.put(DATA, key, asset, parent=name)
    return Reply(public(asset), 200 if found else 201)


def get_version(emulator: Emulator, call: Call) -> Reply:
    """Answer with one version."""
    name, version = call.params["data"], call.params["version"]
    found = emulator.store.get(DATA, f"{_container_id(name)}/versions/{version}")
    if found is None:
        raise NotFound(f"Data version {name}:{version} was not found.", code="UserError")
    return Reply(public(found))


def get_container(emulator: Emulator, call: Call) -> Reply:
    """Answer with what all versions of an asset share, and which is the latest."""
    name = call.params["data"]
    versions = emulator.store.list(DATA, parent=name)
    if not versions:
        raise NotFound(f"Data container {name} was not found.", code="UserError")
    return Reply(_render_container(name, versions))


def _render_container(name: str, versions: list[Document]) -> Document:
    numbers = [int(one["name"]) for one in versions if one["name"].isdecimal()]
    newest = versions[-1]
    return {
        "id": _container_id(name),
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/data",
        "properties": {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": all(one["properties"]["isArchived"] for one in versions),
            "dataType": newest["properties"]["dataType"],
            "latestVersion": newest["name"],
            "nextVersion": str(max(numbers) + 1) if numbers else "1",
        },
        "systemData": {"createdAt": versions[0]["systemData"]["createdAt"]},
    }


def _container_id(name: str) -> str:
    return f"{WORKSPACE_ID}/data/{name}"


_DATA = f"{WORKSPACE}/data"
ROUTES = [
    Route("GET", f"{_DATA}/{{data}}", get_container),
    Route("GET", f"{_DATA}/{{data}}/versions/{{version}}", get_version),
    Route("PUT", f"{_DATA}/{{data}}/versions/{{version}}", put_version),
]
EVENTS: dict[str, Applier] = {}
