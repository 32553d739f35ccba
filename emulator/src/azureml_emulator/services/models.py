"""The workspace's registered models: versions, what their versions share, archiving.

A model made of a job's output takes the place where the job left it, as in Azure: registering an
output that is not there is refused, and nothing is copied.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import yaml

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, NotFound
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import WORKSPACE_ID
from ..store import Document, public
from . import artifacts, runs
from .artifacts import MODEL

CONTAINER = "modelContainer"
PAGE = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_JOB_OUTPUT = re.compile(r"azureml://jobs/([^/]+)/outputs/([^/]+)(?:/paths/(.+?))?/?")


def put_version(emulator: Emulator, call: Call) -> Reply:
    """Register a version, or change its description, tags, properties and archive flag."""
    name, version = call.params["model"], call.params["version"]
    properties = call.json().get("properties") or {}
    for text, field in ((name, "name"), (version, "version")):
        if not _NAME.fullmatch(text):
            raise BadRequest(f"Model {field} '{text}' is not valid.", target=field)
    uri, job = _place(emulator, str(properties.get("modelUri") or ""))
    kind = properties.get("modelType") or "custom_model"
    key = f"{_container_id(name)}/versions/{version}"
    found = emulator.store.get(MODEL, key)
    if found is not None and (uri, kind) != (
        found["properties"]["modelUri"],
        found["properties"]["modelType"],
    ):
        raise BadRequest(
            "A model with this name and version already exists. If you are trying to create a new "
            "model, use a different name or version. If you are trying to update an existing "
            "model, the existing asset's model uri and model type cannot be changed. Only tags, "
            "description, and isArchived can be updated."
        )
    model = {
        "id": key,
        "name": version,
        "type": "Microsoft.MachineLearningServices/workspaces/models/versions",
        "properties": {
            "description": properties.get("description"),
            "tags": properties.get("tags") or {},
            "properties": properties.get("properties") or {},
            "isArchived": bool(properties.get("isArchived")),
            "isAnonymous": False,
            "flavors": properties.get("flavors") or _flavors(emulator, uri, kind),
            "modelType": kind,
            "modelUri": uri,
            "jobName": job,
            "stage": properties.get("stage"),
            "provisioningState": "Succeeded",
        },
        "systemData": {
            "createdAt": found["systemData"]["createdAt"] if found else iso(emulator.now()),
            "createdBy": "Emulator",
            "createdByType": "User",
            "lastModifiedAt": iso(emulator.now()),
        },
    }
    emulator.store.put(MODEL, key, model, parent=name)
    if emulator.store.get(CONTAINER, name) is None:
        emulator.store.put(CONTAINER, name, {"name": name, "isArchived": False})
    return Reply(public(model), 200 if found else 201)


def get_version(emulator: Emulator, call: Call) -> Reply:
    """Answer with one version."""
    name, version = call.params["model"], call.params["version"]
    found = emulator.store.get(MODEL, f"{_container_id(name)}/versions/{version}")
    if found is None:
        raise NotFound(f"Model {name}:{version} was not found.", code="UserError")
    return Reply(public(found))


def list_versions(emulator: Emulator, call: Call) -> Reply:
    """Answer with the versions of a model, newest first, a page at a time."""
    view = call.query.get("listViewType", "ActiveOnly")
    found = [
        model
        for model in emulator.store.list(MODEL, parent=call.params["model"])
        if _in_view(model["properties"]["isArchived"], view)
    ]
    if not call.query.get("$orderBy", "").endswith("asc"):
        found.reverse()
    return _paged(call, [public(model) for model in found])


def put_container(emulator: Emulator, call: Call) -> Reply:
    """Change what all versions of a model share: whether they are archived."""
    name = call.params["model"]
    archived = bool((call.json().get("properties") or {}).get("isArchived"))
    emulator.store.put(CONTAINER, name, {"name": name, "isArchived": archived})
    return Reply(_render_container(emulator, {"name": name, "isArchived": archived}))


def get_container(emulator: Emulator, call: Call) -> Reply:
    """Answer with what all versions of a model share."""
    name = call.params["model"]
    found = emulator.store.get(CONTAINER, name)
    if found is None:
        raise NotFound(f"Model container {name} was not found.", code="UserError")
    return Reply(_render_container(emulator, found))


def list_containers(emulator: Emulator, call: Call) -> Reply:
    """Answer with the models, each once."""
    view = call.query.get("listViewType", "ActiveOnly")
    found = [one for one in emulator.store.list(CONTAINER) if _in_view(one["isArchived"], view)]
    return _paged(call, [_render_container(emulator, one) for one in found])


def _place(emulator: Emulator, uri: str) -> tuple[str, str | None]:
    job = None
    if match := _JOB_OUTPUT.fullmatch(uri):
        job, output, path = match[1], match[2], match[3]
        run = runs.get_run(emulator, job)
        if run is None:
            raise _invalid("JobNotFound", f"Job {job} was not found.")
        if output not in run["outputs"]:
            raise _invalid(
                "NoMatchingArtifactsFoundFromJob", f"No artifacts matching {output} found from Job."
            )
        uri = run["outputs"][output] + (path or "")
        job = run["root"]
    if artifacts.locate(emulator, uri) is None:
        raise _invalid(
            "ModelAssetPathNotFoundInStorage",
            f"No blobs found in storage at model asset path: {uri}",
        )
    return artifacts.long_uri(uri), job


def _flavors(emulator: Emulator, uri: str, kind: str) -> Document:
    if kind != "mlflow_model":
        return {}
    text = artifacts.read(emulator, uri, "MLmodel")
    if text is None:
        raise _invalid("MLModelFileNotFound", f"There is no MLmodel file in {uri}.")
    flavors = yaml.safe_load(text).get("flavors") or {}
    return {
        name: {"data": {key: str(value) for key, value in fields.items()}}
        for name, fields in flavors.items()
    }


def _invalid(code: str, message: str) -> BadRequest:
    details: list[dict[str, Any]] = [{"code": code, "message": message, "details": []}]
    return BadRequest("The request is invalid.", details=details)


def _render_container(emulator: Emulator, container: Document) -> Document:
    name = container["name"]
    versions = [model["name"] for model in emulator.store.list(MODEL, parent=name)]
    numbers = [int(version) for version in versions if version.isdecimal()]
    return {
        "id": _container_id(name),
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/models",
        "properties": {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": container["isArchived"],
            "latestVersion": versions[-1] if versions else None,
            "nextVersion": str(max(numbers) + 1) if numbers else "1",
        },
        "systemData": {"createdAt": iso(emulator.now()), "createdByType": "User"},
    }


def _paged(call: Call, found: list[Document]) -> Reply:
    start = call.number("$skip", 0)
    stop = start + call.number("$top", PAGE)
    answer: Document = {"value": found[start:stop]}
    if stop < len(found) and "$top" not in call.query:
        query = urlencode({**call.query, "$skip": str(stop)})
        answer["nextLink"] = f"{call.base_url}{call.path}?{query}"
    return Reply(answer)


def _in_view(archived: bool, view: str) -> bool:
    return view == "All" or archived == (view == "ArchivedOnly")


def _container_id(name: str) -> str:
    return f"{WORKSPACE_ID}/models/{name}"


_MODELS = f"{WORKSPACE}/models"
ROUTES = [
    Route("GET", _MODELS, list_containers),
    Route("GET", f"{_MODELS}/{{model}}", get_container),
    Route("PUT", f"{_MODELS}/{{model}}", put_container),
    Route("GET", f"{_MODELS}/{{model}}/versions", list_versions),
    Route("GET", f"{_MODELS}/{{model}}/versions/{{version}}", get_version),
    Route("PUT", f"{_MODELS}/{{model}}/versions/{{version}}", put_version),
]
EVENTS: dict[str, Applier] = {}
