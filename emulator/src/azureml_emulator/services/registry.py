"""The registry ``azureml``, as its data plane shows it: models and components, for reading only.

The shape of an answer is that of the REST specification (Azure/azure-rest-api-specs,
``machinelearningservices``, registries); ``system_metadata`` is spelled as azure-ai-ml writes it
when it creates a model, which is all that is known of it on the wire. A model's description says
what really backs it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import weights
from ..emulator import Applier, Emulator
from ..errors import NotFound
from ..routing import REGISTRY, Call, Reply, Route
from ..settings import REGISTRY_ID, REGISTRY_NAME
from ..store import Document
from .storage import account_url

_MODEL, _COMPONENT = "models", "components"
_UNDATED = "2024-01-01"


def get_model(emulator: Emulator, call: Call) -> Reply:
    """Answer with one version of a model."""
    return Reply(_model(emulator, _version(emulator, call, _MODEL), call.base_url))


def list_model_versions(emulator: Emulator, call: Call) -> Reply:
    """Answer with a model's versions; archived ones too, unless ``listViewType`` says otherwise."""
    return _versions(emulator, call, _MODEL, lambda one: _model(emulator, one, call.base_url))


def list_models(emulator: Emulator, call: Call) -> Reply:
    """Answer with the models, each with its latest version."""
    return _containers(emulator, call, _MODEL)


def get_model_container(emulator: Emulator, call: Call) -> Reply:
    """Answer with what all versions of a model share."""
    return _container_of(emulator, call, _MODEL)


def get_component(emulator: Emulator, call: Call) -> Reply:
    """Answer with one version of a component."""
    return Reply(_component(_version(emulator, call, _COMPONENT)))


def list_component_versions(emulator: Emulator, call: Call) -> Reply:
    """Answer with a component's versions."""
    return _versions(emulator, call, _COMPONENT, _component)


def list_components(emulator: Emulator, call: Call) -> Reply:
    """Answer with the components, each with its latest version."""
    return _containers(emulator, call, _COMPONENT)


def get_component_container(emulator: Emulator, call: Call) -> Reply:
    """Answer with what all versions of a component share."""
    return _container_of(emulator, call, _COMPONENT)


def _version(emulator: Emulator, call: Call, kind: str) -> Document:
    wanted = call.params["version"]
    for one in _named(emulator, kind, call.params["name"]):
        if one["version"] == wanted:
            return one
    raise _not_found(kind, call.params["name"], f" with version {wanted}")


def _versions(
    emulator: Emulator, call: Call, kind: str, render: Callable[[Document], Document]
) -> Reply:
    found = _named(emulator, kind, call.params["name"])
    if not found:
        raise _not_found(kind, call.params["name"])
    view = call.query.get("listViewType", "All")
    shown = [one for one in found if _in_view(one, view)]
    if call.query.get("$orderBy", "createdtime desc").lower().endswith("desc"):
        shown.reverse()
    shown = shown[: call.number("$top", len(shown))]
    return Reply({"value": [render(one) for one in shown]})


def _containers(emulator: Emulator, call: Call, kind: str) -> Reply:
    view = call.query.get("listViewType", "ActiveOnly")
    names = dict.fromkeys(one["name"] for one in _assets(emulator, kind))
    latest = [_named(emulator, kind, name)[-1] for name in names]
    return Reply({"value": [_container(kind, one) for one in latest if _in_view(one, view)]})


def _container_of(emulator: Emulator, call: Call, kind: str) -> Reply:
    found = _named(emulator, kind, call.params["name"])
    if not found:
        raise _not_found(kind, call.params["name"])
    return Reply(_container(kind, found[-1]))


def _named(emulator: Emulator, kind: str, name: str) -> list[Document]:
    return [one for one in _assets(emulator, kind) if one["name"].lower() == name.lower()]


def _assets(emulator: Emulator, kind: str) -> list[Document]:
    return emulator.catalog.models if kind == _MODEL else emulator.catalog.components


def _in_view(asset: Mapping[str, Any], view: str) -> bool:
    archived = asset.get("archived", False)
    return view.lower() == "all" or (view.lower() == "archivedonly") == archived


def _not_found(kind: str, name: str, version: str = "") -> NotFound:
    noun = kind.removesuffix("s").capitalize()
    return NotFound(
        f"{noun} {name}{version} was not found in registry {REGISTRY_NAME}.", code="UserError"
    )


def _model(emulator: Emulator, model: Mapping[str, Any], base_url: str) -> Document:
    folder = f"{account_url(base_url)}/azureml-registry/{model['name']}/{model['version']}"
    properties: Document = {
        "description": f"{model.get('description', '')} {_backing(emulator, model)}".lstrip(),
        "tags": _strings(model.get("tags", {})),
        "properties": _strings(model.get("properties", {})),
        "isArchived": model.get("archived", False),
        "isAnonymous": False,
        "flavors": {},
        "modelType": model["type"],
        "modelUri": f"{folder}/mlflow_model_folder",
        "jobName": None,
        "stage": None,
        "provisioningState": "Succeeded",
    }
    if "system_metadata" in model:
        properties["system_metadata"] = model["system_metadata"]
    return _envelope(_MODEL, model, properties)


def _backing(emulator: Emulator, model: Mapping[str, Any]) -> str:
    """Return a sentence that keeps anyone from taking the model for what its name says."""
    if emulator.settings.jobs == "scripted":
        return "In this emulator no model stands behind it: training and replies are scripted."
    choice = emulator.catalog.weights(model["name"], model["version"])
    assert choice is not None
    return weights.describe(choice)


def _component(component: Mapping[str, Any]) -> Document:
    spec = {
        name: component[name]
        for name in ("name", "version", "type", "display_name", "description", "inputs", "outputs")
    }
    properties = {
        "description": component["description"],
        "tags": {},
        "properties": {},
        "isArchived": component.get("archived", False),
        "isAnonymous": False,
        "componentSpec": {**spec, "_source": "REMOTE.REGISTRY"},
        "provisioningState": "Succeeded",
    }
    return _envelope(_COMPONENT, component, properties)


def _container(kind: str, latest: Mapping[str, Any]) -> Document:
    return {
        "id": f"{REGISTRY_ID}/{kind}/{latest['name']}",
        "name": latest["name"],
        "type": f"Microsoft.MachineLearningServices/registries/{kind}",
        "properties": {
            "description": latest.get("description"),
            "tags": {},
            "properties": {},
            "isArchived": latest.get("archived", False),
            "latestVersion": latest["version"],
            "nextVersion": None,
        },
        "systemData": _system_data(latest),
    }


def _envelope(kind: str, asset: Mapping[str, Any], properties: Document) -> Document:
    name, version = asset["name"], asset["version"]
    return {
        "id": f"azureml://registries/{REGISTRY_NAME}/{kind}/{name}/versions/{version}",
        "name": version,
        "type": kind,
        "properties": properties,
        "systemData": _system_data(asset),
    }


def _system_data(asset: Mapping[str, Any]) -> Document:
    at = f"{asset.get('created', _UNDATED)}T00:00:00.0000000+00:00"
    return {
        "createdAt": at,
        "createdBy": "Microsoft",
        "createdByType": "User",
        "lastModifiedAt": at,
    }


def _strings(table: Mapping[str, Any]) -> dict[str, str]:
    # The registry keeps tags and properties as text: a list or a table comes back as the text
    # that Python writes for it.
    return {name: value if isinstance(value, str) else str(value) for name, value in table.items()}


_DATA_PLANE = f"/mferp/managementfrontend{REGISTRY}"
_MODELS, _COMPONENTS = f"{_DATA_PLANE}/models", f"{_DATA_PLANE}/components"

ROUTES = [
    Route("GET", _MODELS, list_models, auth="ml"),
    Route("GET", f"{_MODELS}/{{name}}", get_model_container, auth="ml"),
    Route("GET", f"{_MODELS}/{{name}}/versions", list_model_versions, auth="ml"),
    Route("GET", f"{_MODELS}/{{name}}/versions/{{version}}", get_model, auth="ml"),
    Route("GET", _COMPONENTS, list_components, auth="ml"),
    Route("GET", f"{_COMPONENTS}/{{name}}", get_component_container, auth="ml"),
    Route("GET", f"{_COMPONENTS}/{{name}}/versions", list_component_versions, auth="ml"),
    Route("GET", f"{_COMPONENTS}/{{name}}/versions/{{version}}", get_component, auth="ml"),
]
EVENTS: dict[str, Applier] = {}
