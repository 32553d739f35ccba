"""Jobs: submit, look, list, cancel. How they go on is in :mod:`.pipelines` and :mod:`.steps`.

A job's name is its identity. Sending the same job again changes nothing but its description, tags,
display name, properties and archive flag; sending another under its name is refused with Azure's
``JobPropertyImmutable``, so that a client may repeat a submit whose answer it never saw.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from ..clock import iso
from ..emulator import Applier, Emulator
from ..errors import BadRequest, NotFound
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import WORKSPACE_ID
from ..store import Document
from ..timeline import Event
from . import graph, pipelines, runs, steps
from .workspace import mlflow_tracking_uri

JOB = "job"
PAGE = 30

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_MUTABLE = ("description", "tags", "displayName", "properties", "isArchived")


def put_job(emulator: Emulator, call: Call) -> Reply:
    """Submit a pipeline job, or repeat that, or change what may change of it."""
    name, properties = call.params["job"], call.json().get("properties") or {}
    found = emulator.store.get(JOB, name)
    if found is not None:
        _update(emulator, found, properties)
        return Reply(_render(emulator, call, found))
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"Job name '{name}' is not valid: 1 to 255 letters, digits, '_' and '-', of which the "
            f"first is a letter or a digit.",
            target="name",
        )
    plan = graph.plan(emulator, properties)
    display_name = properties.get("displayName") or name
    run = runs.new_run(
        emulator,
        name,
        properties.get("experimentName") or "Default",
        name=display_name,
        kind="pipeline",
        component=plan["component"],
        description=properties.get("description"),
        tags=_texts(properties.get("tags")),
        properties=_run_properties(plan, properties),
    )
    pipelines.submit(emulator, run, plan, call.effects.get("job"))
    job = {"name": name, "request": {**properties, "displayName": display_name}}
    emulator.store.put(JOB, name, job)
    return Reply(_render(emulator, call, job), 201)


def get_job(emulator: Emulator, call: Call) -> Reply:
    """Answer with the job; a child of a pipeline has no properties here, only in run history."""
    name = call.params["job"]
    if (job := emulator.store.get(JOB, name)) is not None:
        return Reply(_render(emulator, call, job))
    if (run := runs.get_run(emulator, name)) is not None:
        return Reply({**_head(run["id"]), "properties": None})
    raise _not_found(name)


def list_jobs(emulator: Emulator, call: Call) -> Reply:
    """Answer with the jobs, newest first, a page at a time."""
    view = call.query.get("listViewType", "ActiveOnly")
    wanted = [
        job
        for job in reversed(emulator.store.list(JOB))
        if view == "All" or bool(job["request"].get("isArchived")) == (view == "ArchivedOnly")
    ]
    if tag := call.query.get("tag"):
        wanted = [job for job in wanted if tag in runs.known_run(emulator, job["name"])["tags"]]
    start = call.number("$skipToken", call.number("$skip", 0))
    answer: Document = {
        "value": [_render(emulator, call, job) for job in wanted[start : start + PAGE]]
    }
    if start + PAGE < len(wanted):
        query = {**call.query, "$skipToken": str(start + PAGE)}
        answer["nextLink"] = f"{call.base_url}{call.path}?{urlencode(query)}"
    return Reply(answer)


def cancel_job(emulator: Emulator, call: Call) -> Reply:
    """Begin to cancel the job: a long-running operation."""
    name = call.params["job"]
    run = runs.get_run(emulator, name)
    if run is None:
        raise _not_found(name)
    if run["parent"] is not None:
        raise BadRequest(f"Job {name} is a child of a pipeline: cancel {run['root']}.")
    if run["status"] in ("Canceled", "CancelRequested"):
        return Reply(None, 200)
    if not runs.is_live(run):
        raise BadRequest(f"Job {name} cannot be canceled: it is in the state {run['status']}.")
    after = emulator.latency.seconds("job.cancel")
    if call.effects.get("operation_error"):
        return Reply(
            None, 202, emulator.begin_operation(call, "job.not_canceled", name, after=after)
        )
    pipelines.request_cancel(emulator, run)
    return Reply(None, 202, emulator.begin_operation(call, "job.canceled", name, after=after))


def change_metadata(emulator: Emulator, run: Document, changes: Document) -> None:
    """Merge *changes* of description, tags, displayName, properties and isArchived into a job.

    Args:
        emulator: Where it is kept.
        run: The job's root run, changed in place.
        changes: The new values; tags and properties are added to those there are.
    """
    job = emulator.store.get(JOB, run["id"])
    if (display_name := changes.get("displayName")) is not None:
        run["name"] = display_name
    if (description := changes.get("description")) is not None:
        run["description"] = description
    run["tags"] |= _texts(changes.get("tags"))
    run["properties"] |= _texts(changes.get("properties"))
    if (archived := changes.get("isArchived")) is not None:
        run["hidden"] = archived
        if job is not None:
            job["request"]["isArchived"] = archived
            emulator.store.put(JOB, run["id"], job)
    runs.save_run(emulator, run)


def studio_url(run_id: str) -> str:
    """Return the run's page in Studio, which the emulator does not have."""
    workspace = WORKSPACE_ID.replace("/providers/Microsoft.MachineLearningServices", "")
    return f"https://ml.azure.localhost/runs/{run_id}?wsid={workspace}"


def _update(emulator: Emulator, job: Document, properties: Document) -> None:
    before, after = _fixed(job["request"]), _fixed(properties)
    if changed := [key for key in {**before, **after} if before.get(key) != after.get(key)]:
        names = ",  ".join(key[:1].upper() + key[1:] for key in changed)
        raise BadRequest(
            f"A job with this name already exists. If you are trying to create a new job, use a "
            f"different name. If you are trying to update an existing job, the existing job's "
            f"{names} cannot be changed. Only description, tags, displayName, properties, and "
            f"isArchived can be updated.",
            inner=("Immutable", "JobPropertyImmutable"),
        )
    change_metadata(emulator, runs.known_run(emulator, job["name"]), properties)


def _fixed(properties: Document) -> Document:
    return {
        key: value
        for key, value in properties.items()
        if key not in _MUTABLE and value not in (None, {}, "")
    }


def _run_properties(plan: Document, properties: Document) -> dict[str, str]:
    settings = properties.get("settings") or {}
    return {
        "azureml.DevPlatv2": "true",
        "azureml.runsource": "azureml.PipelineRun",
        "runSource": "MFE",
        "runType": "HTTP",
        "azureml.parameters": "{}",
        "azureml.continue_on_step_failure": str(plan["continue"]),
        "azureml.enforceRerun": str(settings.get("force_rerun", False)),
        "azureml.defaultDataStoreName": "workspaceblobstore",
        "azureml.pipelineComponent": "pipelinerun",
    } | _texts(properties.get("properties"))


_OUTPUT = {
    "description": None,
    "uri": None,
    "assetName": None,
    "assetVersion": None,
    "mode": "ReadWriteMount",
}


def _render(emulator: Emulator, call: Call, job: Document) -> Document:
    run, request = runs.known_run(emulator, job["name"]), job["request"]
    outputs = {
        name: {**_OUTPUT, **entry, "uri": run["outputs"].get(name)}
        for name, entry in (request.get("outputs") or {}).items()
    }
    return {
        **_head(run["id"]),
        "properties": {
            "description": run["description"],
            "tags": run["tags"],
            "properties": run["properties"],
            "displayName": run["name"],
            "status": run["status"],
            "experimentName": run["experiment"],
            "services": {
                "Tracking": _service("Tracking", f"{mlflow_tracking_uri(call.base_url)}?"),
                "Studio": _service("Studio", studio_url(run["id"])),
            },
            "computeId": request.get("computeId"),
            "isArchived": bool(request.get("isArchived")),
            "identity": request.get("identity"),
            "componentId": request.get("componentId"),
            "jobType": request["jobType"],
            "settings": request.get("settings") or {},
            "jobs": request["jobs"],
            "inputs": request.get("inputs") or {},
            "outputs": outputs,
            "sourceJobId": None,
        },
        "systemData": {
            "createdAt": iso(run["created"]),
            "createdBy": "Emulator",
            "createdByType": "User",
        },
    }


def _head(name: str) -> Document:
    return {
        "id": f"{WORKSPACE_ID}/jobs/{name}",
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
    }


def _service(kind: str, endpoint: str) -> Document:
    return {
        "jobServiceType": kind,
        "port": None,
        "endpoint": endpoint,
        "status": None,
        "errorMessage": None,
        "properties": None,
        "nodes": None,
    }


def _texts(values: Any) -> dict[str, str]:
    return {name: str(value) for name, value in (values or {}).items() if value is not None}


def _not_found(name: str) -> NotFound:
    return NotFound(f"Job {name} not found.", code="UserError")


def _not_canceled(emulator: Emulator, event: Event) -> None:
    """The cancel failed, as a fault rule wanted: the job goes on."""


ROUTES = [
    Route("PUT", f"{WORKSPACE}/jobs/{{job}}", put_job),
    Route("GET", f"{WORKSPACE}/jobs/{{job}}", get_job),
    Route("GET", f"{WORKSPACE}/jobs", list_jobs),
    Route("POST", f"{WORKSPACE}/jobs/{{job}}/cancel", cancel_job),
]
EVENTS: dict[str, Applier] = {
    "job.begin": pipelines.apply_begin,
    "job.advance": pipelines.apply_advance,
    "job.completed": pipelines.apply_completed,
    "job.freed": steps.apply_freed,
    "job.allocated": steps.apply_allocated,
    "job.refused": steps.apply_refused,
    "job.prepared": steps.apply_prepared,
    "job.beat": steps.apply_beat,
    "job.finalized": steps.apply_finalized,
    "job.canceled": pipelines.apply_cancel,
    "job.not_canceled": _not_canceled,
}
