"""MLflow tracking: the REST API 2.0 under the workspace's MLflow URI, over the same runs.

A run of a job is an MLflow run with the same id; the tags ``mlflow.parentRunId`` and
``mlflow.rootRunId`` tell the tree, as in Azure. A child that trains may log here too.
https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ..emulator import Applier, Emulator
from ..errors import WireError
from ..routing import WORKSPACE, Call, Handler, Reply, Route
from ..settings import WORKSPACE_ID
from ..store import Document
from . import runs
from .mlflow_filter import Subject, compile_filter

PAGE = 1000

_TO_MLFLOW = {
    "NotStarted": "SCHEDULED",
    "Queued": "SCHEDULED",
    "Preparing": "SCHEDULED",
    "Paused": "SCHEDULED",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "NotResponding": "FAILED",
    "Canceled": "KILLED",
}
_FROM_MLFLOW = {
    "SCHEDULED": "NotStarted",
    "RUNNING": "Running",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
}


class Invalid(WireError):
    """Raised when a request's body or query is not acceptable; in MLflow's shape."""

    status = 400
    code = "INVALID_PARAMETER_VALUE"

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error_code": self.code, "message": self.message}


class Missing(Invalid):
    """Raised when there is no such run or experiment."""

    status = 404
    code = "RESOURCE_DOES_NOT_EXIST"


def get_run(emulator: Emulator, call: Call) -> Reply:
    """Answer with one run."""
    run = _run(emulator, call.query.get("run_id") or call.query.get("run_uuid"))
    return Reply({"run": _render(emulator, call, run)})


def search_runs(emulator: Emulator, call: Call) -> Reply:
    """Answer with the runs of some experiments that match a filter, newest first."""
    body = call.json()
    experiments = set(body.get("experiment_ids", []))
    matches = _filter(body.get("filter", ""))
    view = body.get("run_view_type", "ACTIVE_ONLY")
    found = []
    for run in emulator.store.list(runs.RUN):
        experiment = runs.experiment_named(emulator, run["experiment"])
        if experiment["id"] in experiments and _in_view(run["hidden"], view):
            subject = _subject(emulator, run)
            if matches(subject):
                found.append((run, subject))
    found.sort(key=lambda pair: (-pair[1]["attributes"]["start_time"], pair[0]["id"]))
    for clause in reversed(body.get("order_by", [])):
        _sort(found, clause)
    page, token = _page(found, body, PAGE)
    answer: Document = {"runs": [_render(emulator, call, run) for run, _ in page]}
    return Reply(answer | token)


def get_metric_history(emulator: Emulator, call: Call) -> Reply:
    """Answer with every value of one metric of a run."""
    run = _run(emulator, call.query.get("run_id") or call.query.get("run_uuid"))
    key = call.query.get("metric_key", "")
    history = runs.metric_history(emulator, run["id"]).get(key, [])
    page, token = _page(history, call.query, len(history))
    return Reply({"metrics": [_metric(key, point) for point in page], **token})


def create_run(emulator: Emulator, call: Call) -> Reply:
    """Make a run that no job stands behind."""
    body = call.json()
    experiment = _experiment(emulator, body.get("experiment_id"))
    tags = _pairs(body.get("tags"))
    parent = runs.get_run(emulator, tags.get("mlflow.parentRunId", ""))
    run_id = str(uuid.uuid4())
    run = runs.new_run(
        emulator,
        run_id,
        experiment["name"],
        parent=parent,
        name=body.get("run_name") or tags.get("mlflow.runName") or run_id,
        tags=tags,
    )
    runs.set_status(emulator, run, "Running")
    return Reply({"run": _render(emulator, call, run)})


def update_run(emulator: Emulator, call: Call) -> Reply:
    """Rename a run or set its status; the status of a job's run is the job's alone."""
    body = call.json()
    run = _run(emulator, body.get("run_id") or body.get("run_uuid"))
    if name := body.get("run_name"):
        run["name"] = name
        runs.save_run(emulator, run)
    if (status := body.get("status")) and run["kind"] == "mlflow":
        runs.set_status(emulator, run, _FROM_MLFLOW[status])
    return Reply({"run_info": _render(emulator, call, run)["info"]})


def log_batch(emulator: Emulator, call: Call) -> Reply:
    """Log metrics, params and tags of a run."""
    body = call.json()
    run = _run(emulator, body.get("run_id"))
    _log(
        emulator, run, body.get("metrics", []), _pairs(body.get("params")), _pairs(body.get("tags"))
    )
    return Reply({})


def log_metric(emulator: Emulator, call: Call) -> Reply:
    """Log one value of one metric."""
    body = call.json()
    _log(emulator, _run(emulator, body.get("run_id") or body.get("run_uuid")), [body], {}, {})
    return Reply({})


def log_parameter(emulator: Emulator, call: Call) -> Reply:
    """Log one param."""
    body = call.json()
    run = _run(emulator, body.get("run_id") or body.get("run_uuid"))
    _log(emulator, run, [], {body["key"]: body["value"]}, {})
    return Reply({})


def set_tag(emulator: Emulator, call: Call) -> Reply:
    """Set one tag of a run."""
    body = call.json()
    run = _run(emulator, body.get("run_id") or body.get("run_uuid"))
    _log(emulator, run, [], {}, {body["key"]: body["value"]})
    return Reply({})


def delete_tag(emulator: Emulator, call: Call) -> Reply:
    """Take one tag off a run."""
    body = call.json()
    run = _run(emulator, body.get("run_id"))
    if run["tags"].pop(body["key"], None) is None:
        raise Missing(f"Run {run['id']} has no tag {body['key']}.")
    runs.save_run(emulator, run)
    return Reply({})


def get_experiment(emulator: Emulator, call: Call) -> Reply:
    """Answer with an experiment by its id."""
    return Reply({"experiment": _experiment(emulator, call.query.get("experiment_id"), show=True)})


def get_experiment_by_name(emulator: Emulator, call: Call) -> Reply:
    """Answer with an experiment by its name."""
    found = emulator.store.get(runs.EXPERIMENT, call.query.get("experiment_name", ""))
    if found is None:
        raise Missing(f"There is no experiment {call.query.get('experiment_name')!r}.")
    return Reply({"experiment": _render_experiment(found)})


def search_experiments(emulator: Emulator, call: Call) -> Reply:
    """Answer with the experiments that match a filter, newest first."""
    body = call.json() if call.method == "POST" else dict(call.query)
    matches = _filter(body.get("filter", ""))
    found = [
        experiment
        for experiment in reversed(emulator.store.list(runs.EXPERIMENT))
        if matches(
            {
                "tags": experiment["tags"],
                "attributes": {"name": experiment["name"], "experiment_id": experiment["id"]},
                "metrics": {},
                "params": {},
            }
        )
    ]
    page, token = _page(found, body, PAGE)
    return Reply({"experiments": [_render_experiment(one) for one in page], **token})


def create_experiment(emulator: Emulator, call: Call) -> Reply:
    """Make an experiment."""
    name = str(call.json().get("name", ""))
    if emulator.store.get(runs.EXPERIMENT, name) is not None:
        raise Invalid(f"Experiment {name!r} already exists.", code="RESOURCE_ALREADY_EXISTS")
    return Reply({"experiment_id": runs.experiment_named(emulator, name)["id"]})


def _run(emulator: Emulator, run_id: str | None) -> Document:
    run = runs.get_run(emulator, run_id or "")
    if run is None:
        raise Missing(f"Run with id {run_id} was not found.")
    return run


def _experiment(emulator: Emulator, experiment_id: str | None, *, show: bool = False) -> Document:
    for found in emulator.store.list(runs.EXPERIMENT):
        if found["id"] == experiment_id:
            return _render_experiment(found) if show else found
    raise Missing(f"There is no experiment with the id {experiment_id}.")


def _log(
    emulator: Emulator,
    run: Document,
    metrics: Iterable[Document],
    params: dict[str, str],
    tags: dict[str, str],
) -> None:
    for name, value in params.items():
        if run["params"].get(name, value) != value:
            raise Invalid(
                f"Param {name} of run {run['id']} is {run['params'][name]!r} and cannot be changed."
            )
    run["params"] |= params
    run["tags"] |= tags
    runs.save_run(emulator, run)
    for metric in metrics:
        runs.record_metric(
            emulator,
            run["id"],
            str(metric["key"]),
            float(metric["value"]),
            step=int(metric.get("step", 0)),
            timestamp=int(metric.get("timestamp", emulator.now() * 1000)),
        )


def _filter(text: str) -> Any:
    try:
        return compile_filter(text)
    except ValueError as error:
        raise Invalid(str(error)) from error


def _in_view(hidden: bool, view: str) -> bool:
    return view == "ALL" or hidden == (view == "DELETED_ONLY")


def _page(
    found: list[Any], asked: Mapping[str, Any], most: int
) -> tuple[list[Any], dict[str, str]]:
    most = _number(asked, "max_results", most)
    start = _number(asked, "page_token", 0)
    following = {"next_page_token": str(start + most)} if start + most < len(found) else {}
    return found[start : start + most], following


def _number(asked: Mapping[str, Any], name: str, default: int) -> int:
    # Not `Call.number`: MLflow asks in the body as well, and reads its own shape of errors.
    text = str(asked.get(name) or default)
    if not text.isdecimal() or len(text) > 18:
        raise Invalid(f"Invalid value {text!r} for parameter {name!r}: not a whole number.")
    return int(text)


def _sort(found: list[tuple[Document, Subject]], clause: str) -> None:
    key, _, direction = clause.strip().partition(" ")
    entity, _, name = key.partition(".")
    if not name:
        entity, name = "attributes", entity
    entity, name = entity.rstrip("s") + "s", name.strip('`"')
    if entity not in ("attributes", "metrics", "params", "tags"):
        raise Invalid(f"Invalid order_by clause {clause!r}.")
    down = direction.strip().upper() == "DESC"
    having = [pair for pair in found if name in pair[1][entity]]
    having.sort(key=lambda pair: pair[1][entity][name], reverse=down)
    found[:] = [*having, *(pair for pair in found if name not in pair[1][entity])]


def _subject(emulator: Emulator, run: Document) -> Subject:
    history = runs.metric_history(emulator, run["id"])
    return {
        "tags": _tags(run),
        "params": run["params"],
        "metrics": {key: points[-1].value for key, points in history.items()},
        "attributes": {
            "run_id": run["id"],
            "run_name": run["name"],
            "status": _TO_MLFLOW.get(run["status"], "RUNNING"),
            "start_time": _milliseconds(run["started"] or run["created"]),
            **({"end_time": _milliseconds(run["ended"])} if run["ended"] else {}),
        },
    }


def _render(emulator: Emulator, call: Call, run: Document) -> Document:
    experiment = runs.experiment_named(emulator, run["experiment"])
    info: Document = {
        "run_id": run["id"],
        "run_uuid": run["id"],
        "run_name": run["name"],
        "experiment_id": experiment["id"],
        "user_id": "",
        "status": _TO_MLFLOW.get(run["status"], "RUNNING"),
        "start_time": _milliseconds(run["started"] or run["created"]),
        "artifact_uri": (
            f"azureml://{call.base_url.removeprefix('https://')}/mlflow/v2.0{WORKSPACE_ID}"
            f"/experiments/{experiment['id']}/runs/{run['id']}/artifacts"
        ),
        "lifecycle_stage": "deleted" if run["hidden"] else "active",
    }
    if run["ended"] is not None:
        info["end_time"] = _milliseconds(run["ended"])
    history = runs.metric_history(emulator, run["id"])
    return {
        "info": info,
        "data": {
            "metrics": [_metric(key, points[-1]) for key, points in history.items()],
            "params": _listed(run["params"]),
            "tags": _listed(_tags(run)),
        },
        "inputs": {},
    }


def _tags(run: Document) -> dict[str, str]:
    tree = {
        "mlflow.rootRunId": run["root"],
        "mlflow.runName": run["name"],
        "mlflow.user": "Emulator",
    }
    if run["parent"]:
        tree["mlflow.parentRunId"] = run["parent"]
    return {**run["tags"], **tree}


def _metric(key: str, point: runs.Metric) -> Document:
    value: float | str = point.value
    if not math.isfinite(point.value):
        value = "NaN" if math.isnan(point.value) else "Infinity" if point.value > 0 else "-Infinity"
    return {"key": key, "value": value, "step": point.step, "timestamp": point.timestamp}


def _render_experiment(experiment: Document) -> Document:
    return {
        "experiment_id": experiment["id"],
        "name": experiment["name"],
        "artifact_location": "",
        "lifecycle_stage": "active",
        "creation_time": _milliseconds(experiment["created"]),
        "last_update_time": _milliseconds(experiment["created"]),
        "tags": _listed(experiment["tags"]),
    }


def _pairs(listed: list[dict[str, str]] | None) -> dict[str, str]:
    return {pair["key"]: pair.get("value", "") for pair in listed or []}


def _listed(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _milliseconds(moment: float) -> int:
    return int(moment * 1000)


_TABLE: list[tuple[str, str, Handler]] = [
    ("GET", "runs/get", get_run),
    ("POST", "runs/search", search_runs),
    ("GET", "metrics/get-history", get_metric_history),
    ("POST", "runs/create", create_run),
    ("POST", "runs/update", update_run),
    ("POST", "runs/log-batch", log_batch),
    ("POST", "runs/log-metric", log_metric),
    ("POST", "runs/log-parameter", log_parameter),
    ("POST", "runs/set-tag", set_tag),
    ("POST", "runs/delete-tag", delete_tag),
    ("GET", "experiments/get", get_experiment),
    ("GET", "experiments/get-by-name", get_experiment_by_name),
    ("GET", "experiments/search", search_experiments),
    ("POST", "experiments/search", search_experiments),
    ("POST", "experiments/create", create_experiment),
]
ROUTES = [
    Route(method, f"/mlflow/{version}{WORKSPACE}/api/2.0/mlflow/{path}", handler, auth="ml")
    for version in ("v1.0", "v2.0")
    for method, path, handler in _TABLE
]
EVENTS: dict[str, Applier] = {}
