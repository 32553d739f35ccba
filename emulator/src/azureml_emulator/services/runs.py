"""Runs: what jobs, run history and MLflow all speak of, each in its own words.

A pipeline job is a run; the pipeline component in it is a child run; each step is a child of that.
A run exists from the moment its work is scheduled, as in Azure: the children of a young job are
few. Times are seconds since the epoch; ``_`` fields are the emulator's own.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any

from ..clock import iso
from ..emulator import Emulator
from ..settings import WORKSPACE_ID
from ..store import Document
from . import storage
from .datastores import CONTAINERS

RUN = "run"
EXPERIMENT = "experiment"

ARTIFACTS = CONTAINERS["workspaceartifactstore"]
"""The container of the logs of runs."""

STEP_LOG = "user_logs/std_log.txt"
PIPELINE_LOG = "logs/azureml/executionlogs.txt"

# A run that is NotResponding or Paused makes no headway, yet it has not ended: it keeps its nodes,
# and is billed for them, until somebody cancels it.
STALLED = ("NotResponding", "Paused")
LIVE = (
    "NotStarted",
    "Queued",
    "Preparing",
    "Running",
    "Finalizing",
    "CancelRequested",
    *STALLED,
)


@dataclass(frozen=True)
class Metric:
    """One value of a metric.

    Args:
        value: The value; may be NaN or infinite.
        step: The training step.
        timestamp: Milliseconds since the epoch.
    """

    value: float
    step: int
    timestamp: int


def new_run(
    emulator: Emulator,
    run_id: str,
    experiment: str,
    *,
    parent: Document | None = None,
    **given: Any,
) -> Document:
    """Return a new run and keep it.

    Args:
        emulator: Where it is kept.
        run_id: Its id, unique in the workspace.
        experiment: The experiment's name; made if it is new.
        parent: The run that it is a child of.
        given: Further fields, in place of the defaults.
    """
    run: Document = {
        "id": run_id,
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{WORKSPACE_ID}/runs/{run_id}")),
        "parent": parent["id"] if parent else None,
        "root": parent["root"] if parent else run_id,
        "experiment": experiment_named(emulator, experiment)["name"],
        "name": run_id,
        "kind": "mlflow",
        "component": None,
        "status": "NotStarted",
        "created": emulator.now(),
        "started": None,
        "ended": None,
        "error": None,
        "description": None,
        "hidden": False,
        "tags": {},
        "properties": {},
        "params": {},
        "compute": None,
        "logs": [],
        "outputs": {},
    } | given
    save_run(emulator, run)
    return run


def get_run(emulator: Emulator, run_id: str) -> Document | None:
    """Return the run, or None."""
    return emulator.store.get(RUN, run_id)


def known_run(emulator: Emulator, run_id: str) -> Document:
    """Return a run that the emulator itself has made."""
    run = get_run(emulator, run_id)
    assert run is not None, run_id
    return run


def save_run(emulator: Emulator, run: Document) -> None:
    """Keep *run* as it is now."""
    emulator.store.put(RUN, run["id"], run, parent=run["parent"] or "")


def child_id(job: str, key: str) -> str:
    """Return the id of the run of the node or step *key* of a job."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{WORKSPACE_ID}/jobs/{job}/{key}"))


def children(emulator: Emulator, run_id: str) -> list[Document]:
    """Return the runs whose parent is *run_id*, oldest first."""
    return emulator.store.list(RUN, parent=run_id)


def set_status(
    emulator: Emulator, run: Document, status: str, *, error: dict[str, str] | None = None
) -> None:
    """Change the status of *run* and the times that go with it, and keep it.

    Args:
        emulator: Where it is kept.
        run: The run, changed in place.
        status: The new status.
        error: ``code`` and ``message``, for a run that failed.
    """
    run["status"] = status
    if status == "Running" and run["started"] is None:
        run["started"] = emulator.now()
    if not is_live(run):
        run["ended"] = emulator.now()
    if error is not None:
        run["error"] = error
    save_run(emulator, run)


def is_live(run: Document) -> bool:
    """Return whether *run* has not come to its end."""
    return run["status"] in LIVE


def append_log(emulator: Emulator, run: Document, name: str, text: str) -> None:
    """Append *text* to the run's log file *name*."""
    storage.append_blob(emulator, ARTIFACTS, log_blob(run["id"], name), text.encode())
    if name not in run["logs"]:
        run["logs"].append(name)
        save_run(emulator, run)


def note(emulator: Emulator, run: Document, text: str) -> None:
    """Append one line to a pipeline's execution log, with the time."""
    moment = iso(emulator.now())[:19].replace("T", " ")
    append_log(emulator, run, PIPELINE_LOG, f"[{moment}Z] {text}\n")


def log_blob(run_id: str, name: str) -> str:
    """Return the blob, in the container :data:`ARTIFACTS`, of a run's log file."""
    return f"ExperimentRun/dcid.{run_id}/{name}"


def record_metric(
    emulator: Emulator, run_id: str, key: str, value: float, *, step: int, timestamp: int
) -> None:
    """Log one metric of a run, *timestamp* in milliseconds."""
    emulator.store.insert(
        "INSERT INTO metrics (run, key, value, step, timestamp) VALUES (?, ?, ?, ?, ?)",
        run_id,
        key,
        # SQLite takes NaN for NULL; text it keeps as it is.
        "NaN" if math.isnan(value) else value,
        step,
        timestamp,
    )


def metric_history(emulator: Emulator, run_id: str) -> dict[str, list[Metric]]:
    """Return every metric of a run by name, each in order of its steps."""
    found: dict[str, list[Metric]] = {}
    for row in emulator.store.execute(
        "SELECT * FROM metrics WHERE run = ? ORDER BY key, step, timestamp, seq", run_id
    ):
        point = Metric(float(row["value"]), row["step"], row["timestamp"])
        found.setdefault(row["key"], []).append(point)
    return found


def experiment_named(emulator: Emulator, name: str) -> Document:
    """Return the experiment, made if there is none."""
    found = emulator.store.get(EXPERIMENT, name)
    if found is None:
        found = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{WORKSPACE_ID}/experiments/{name}")),
            "name": name,
            "created": emulator.now(),
            "tags": {},
        }
        emulator.store.put(EXPERIMENT, name, found)
    return found
