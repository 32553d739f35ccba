"""Run history: the data plane's view of runs, their logs and their children.

Shapes were read in recorded traffic of the live service (Azure/azure-sdk-assets, recordings of
``test_pipeline_job_get_child_run``) and in the SDK's own models.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import NotFound
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import TENANT_ID
from ..store import Document
from . import runs, storage
from .jobs import change_metadata

PAGE = 100

_USER = {
    "userObjectId": "00000000-0000-4000-8000-0000000000bb",
    "userTenantId": TENANT_ID,
    "userName": "Emulator",
}


def get_run(emulator: Emulator, call: Call) -> Reply:
    """Answer with one run."""
    return Reply(_render(emulator, _run(emulator, call.params["run"])))


def get_details(emulator: Emulator, call: Call) -> Reply:
    """Answer with the status of a run, its error and where its log files can be read."""
    run = _run(emulator, call.params["run"])
    document = _render(emulator, run)
    document["createdTimeUtc"] = document["createdUtc"]
    document["logFiles"] = {
        name: storage.sas_url(
            emulator, call.base_url, runs.ARTIFACTS, runs.log_blob(run["id"], name)
        )
        for name in run["logs"]
    }
    return Reply(document)


def get_children(emulator: Emulator, call: Call) -> Reply:
    """Answer with the direct children of a run, oldest first, a page at a time."""
    run = _run(emulator, call.params["run"])
    found = runs.children(emulator, run["id"])
    start = call.number("$continuationtoken", 0)
    stop = start + call.number("$top", PAGE)
    more = stop < len(found)
    answer: Document = {
        "value": [_render(emulator, child) for child in found[start:stop]],
        "continuationToken": str(stop) if more else None,
        "nextLink": None,
    }
    if more:
        query = urlencode({**call.query, "$continuationtoken": str(stop)})
        answer["nextLink"] = f"{call.base_url}{call.path}?{query}"
    return Reply(answer)


def post_rundata(emulator: Emulator, call: Call) -> Reply:
    """Answer with a run and what it was submitted with, which is not kept here."""
    run = _run(emulator, str(call.json().get("runId", "")))
    return Reply(
        {"runMetadata": _render(emulator, run), "runDefinition": None, "jobSpecification": None}
    )


def patch_run(emulator: Emulator, call: Call) -> Reply:
    """Merge display name, description, tags, properties and ``hidden`` into a run."""
    run, changes = _run(emulator, call.params["run"]), call.json()
    if (hidden := changes.get("hidden")) is not None:
        changes["isArchived"] = hidden
    change_metadata(emulator, run, changes)
    return Reply(_render(emulator, run))


def _run(emulator: Emulator, run_id: str) -> Document:
    run = runs.get_run(emulator, run_id)
    if run is None:
        raise NotFound(f"Run {run_id} was not found.", code="UserError")
    return run


def _render(emulator: Emulator, run: Document) -> Document:
    parent = runs.known_run(emulator, run["parent"]) if run["parent"] else None
    root = runs.known_run(emulator, run["root"])
    experiment = runs.experiment_named(emulator, run["experiment"])
    pipeline = run["kind"] == "pipeline"
    return {
        "runNumber": int(run["created"]),
        "runId": run["id"],
        "rootRunId": run["root"],
        "parentRunId": run["parent"],
        "runUuid": run["uuid"],
        "rootRunUuid": root["uuid"],
        "parentRunUuid": parent["uuid"] if parent else None,
        "experimentId": experiment["id"],
        "status": run["status"],
        "createdUtc": iso(run["created"]),
        "startTimeUtc": _time(run["started"]),
        "endTimeUtc": _time(run["ended"]),
        "duration": _duration(emulator, run),
        "lastModifiedUtc": iso(run["ended"] or run["started"] or run["created"]),
        "createdBy": _USER,
        "lastModifiedBy": _USER,
        "error": _error(emulator, run),
        "warnings": [],
        "displayName": run["name"],
        "name": run["component"],
        "description": run["description"],
        "hidden": run["hidden"],
        "dataContainerId": f"dcid.{run['id']}",
        "runType": "azureml.PipelineRun" if pipeline else "azureml.StepRun",
        "runTypeV2": {
            "orchestrator": "Scheduler" if pipeline else "Execution",
            "traits": ["azureml.PipelineRun" if pipeline else "azureml.StepRun"],
            "attribution": "Aether",
            "computeType": None if pipeline else "AmlcTrain",
        },
        "properties": run["properties"],
        "parameters": run["params"],
        "tags": run["tags"],
        "target": run["compute"],
        "compute": _compute(run),
        "services": {},
        "settings": {},
        "inputs": None,
        "outputs": None,
    }


def _compute(run: Document) -> Document | None:
    if run["compute"] is None:
        return None
    return {
        "target": run["compute"],
        "targetType": "amlcompute",
        "vmSize": run["_size"],
        "instanceCount": run["_nodes"],
    }


def _error(emulator: Emulator, run: Document) -> Document | None:
    if run["error"] is None:
        return None
    return {
        "error": {
            "code": run["error"]["code"],
            "severity": None,
            "message": run["error"]["message"],
            "messageFormat": "{Message}",
            "messageParameters": {},
            "referenceCode": None,
            "detailsUri": None,
            "target": None,
            "details": [],
            "innerError": None,
            "additionalInfo": None,
        },
        "correlation": None,
        "environment": emulator.catalog.location,
        "location": emulator.catalog.location,
        "time": _time(run["ended"]),
        "componentName": "CommonRuntime",
    }


def _time(moment: float | None) -> str | None:
    return None if moment is None else iso(moment)


def _duration(emulator: Emulator, run: Document) -> str | None:
    if run["started"] is None:
        return None
    minutes, seconds = divmod((run["ended"] or emulator.now()) - run["started"], 60)
    return f"{int(minutes // 60):02d}:{int(minutes % 60):02d}:{seconds:010.7f}"


def _route(method: str, path: str, handler: Any) -> Route:
    return Route(method, f"/history/v1.0{WORKSPACE}/{path}", handler, auth="ml")


ROUTES = [
    _route("GET", "runs/{run}", get_run),
    _route("GET", "runs/{run}/details", get_details),
    _route("GET", "runs/{run}/children", get_children),
    _route("POST", "rundata", post_rundata),
    _route("PATCH", "experiments/{experiment}/runs/{run}", patch_run),
]
EVENTS: dict[str, Applier] = {}
