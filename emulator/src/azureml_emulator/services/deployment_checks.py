"""What a deployment may be asked to be, with the defaults that Azure fills in and its quota."""

from __future__ import annotations

import math
import re

from ..clock import duration
from ..emulator import Emulator
from ..errors import BadRequest, NotEmulated
from ..settings import REGISTRY_NAME, WORKSPACE_ID
from ..store import Document
from .artifacts import MODEL
from .compute import cores_in_use
from .serving import refused

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
_MODEL_ID = re.compile(
    rf"(?:azureml:)?{re.escape(WORKSPACE_ID)}/models/([^/]+)/versions/([^/]+)", re.IGNORECASE
)
_REGISTRY_MODEL_ID = re.compile(
    rf"azureml://registries/{REGISTRY_NAME}/models/([^/]+)/versions/([^/]+)", re.IGNORECASE
)
# Sizes for which Azure keeps no 20 % of quota back for upgrades:
# https://learn.microsoft.com/azure/machine-learning/reference-managed-online-endpoints-vm-sku-list
_NO_RESERVE = re.compile(r"_(A100|H100)_|_nd96asr_v4|_nd40rs_v2", re.IGNORECASE)


def checked(emulator: Emulator, body: Document) -> Document:
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
        "livenessProbe": _probe(given, "livenessProbe"),
        "readinessProbe": _probe(given, "readinessProbe"),
        "instanceType": size["name"],
        "model": _model(emulator, given),
        "egressPublicNetworkAccess": given.get("egressPublicNetworkAccess") or "Enabled",
        "endpointComputeType": "Managed",
    }
    return {"sku": sku_of(body), "properties": properties}


def sku_of(body: Document) -> Document:
    """Return the number of instances as Azure keeps it, or refuse it."""
    count = (body.get("sku") or {}).get("capacity")
    if not isinstance(count, int) or count < 1:
        raise BadRequest("sku.capacity must be a whole number, 1 or more.", target="sku.capacity")
    return {"name": "Default", "tier": "Standard", "capacity": count}


def _request_settings(given: Document) -> Document:
    settings = _REQUESTS | {name: value for name, value in given.items() if value is not None}
    seconds = _seconds(settings, "requestTimeout", "requestSettings")
    if not 0 < seconds <= LONGEST_REQUEST_SECONDS:
        raise BadRequest(
            f"requestSettings.requestTimeout is {seconds:g} seconds; it must be more than 0 and at "
            f"most {LONGEST_REQUEST_SECONDS:g}.",
            target="requestSettings.requestTimeout",
        )
    _check_count(settings, "maxConcurrentRequestsPerInstance", "requestSettings")
    return settings


def _probe(given: Document, name: str) -> Document:
    wanted = {key: value for key, value in (given.get(name) or {}).items() if value is not None}
    probe = _PROBE | wanted
    for key in ("initialDelay", "period", "timeout"):
        _seconds(probe, key, name)
    for key in ("failureThreshold", "successThreshold"):
        _check_count(probe, key, name)
    return probe


def _seconds(settings: Document, key: str, part: str) -> float:
    seconds = duration(str(settings[key]))
    if seconds is None:
        raise BadRequest(f"{part}.{key} {settings[key]!r} is no duration.", target=f"{part}.{key}")
    return seconds


def _check_count(settings: Document, key: str, part: str) -> None:
    if not isinstance(settings[key], int) or settings[key] < 1:
        raise BadRequest(
            f"{part}.{key} must be a whole number, 1 or more, not {settings[key]!r}.",
            target=f"{part}.{key}",
        )


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


def check_quota(emulator: Emulator, found: Document | None, wanted: Document) -> None:
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
