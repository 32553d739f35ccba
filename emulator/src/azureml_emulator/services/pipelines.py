"""The life of a pipeline job: which step is next, and what the end of a step means for the whole.

The job is Preparing, then Running while its steps queue and run, as in Azure; Finalizing and
Completed when all have completed. What happens to one step is in :mod:`.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..emulator import Emulator
from ..errors import BadRequest
from ..store import Document
from ..timeline import Event
from . import runs, steps


def submit(
    emulator: Emulator, run: Document, plan: Document, fault: Mapping[str, Any] | None
) -> None:
    """Let the pipeline job whose root is *run* begin.

    Args:
        emulator: Where it runs.
        run: The root run, new.
        plan: What :func:`graph.plan` returned.
        fault: ``status`` and perhaps ``step`` and ``message``: how the job is to end.

    Raises:
        BadRequest: *fault* names a step that there is not.
    """
    run["_plan"] = plan
    run["_fault"] = None if fault is None else {**fault, "step": _fault_step(plan, fault)}
    run["_warm"] = []
    runs.set_status(emulator, run, "Preparing")
    emulator.schedule("job.begin", run["id"], after=emulator.latency.seconds("job.prepare"))


def request_cancel(emulator: Emulator, root: Document) -> None:
    """Stop everything that *root* does; it stays CancelRequested until :func:`apply_cancel`."""
    for run in _live_tree(emulator, root):
        steps.interrupt(emulator, run)
        runs.set_status(emulator, run, "CancelRequested")


def apply_cancel(emulator: Emulator, event: Event) -> None:
    """Everything that was live is Canceled, and its nodes are free."""
    root = runs.known_run(emulator, event.subject)
    runs.note(emulator, root, "Run was canceled by user request.")
    _end_tree(emulator, root, "Canceled")


def apply_begin(emulator: Emulator, event: Event) -> None:
    """The pipeline runs, and its first steps are queued."""
    root = runs.known_run(emulator, event.subject)
    plan = root["_plan"]
    runs.set_status(emulator, root, "Running")
    node = runs.new_run(
        emulator,
        runs.child_id(root["id"], plan["node"]),
        root["experiment"],
        parent=root,
        name=plan["node"],
        kind="pipeline",
        component=plan["component"],
        tags={"azureml.nodeid": plan["node"], "azureml.pipeline": root["id"]},
    )
    runs.note(emulator, root, f"Submitting 1 runs, first five are: {plan['node']}:{node['id']}")
    runs.set_status(emulator, node, "Running")
    emulator.schedule("job.advance", node["id"], after=0.0)


def apply_advance(emulator: Emulator, event: Event) -> None:
    """Queue the steps whose turn it is, or end the pipeline."""
    node = runs.known_run(emulator, event.subject)
    root = runs.known_run(emulator, node["root"])
    found = {run["_key"]: run for run in runs.children(emulator, node["id"])}
    for run in found.values():
        if run["status"] == "Canceled":
            runs.note(emulator, root, f"Step {run['_key']} was canceled.")
            _end_tree(emulator, root, "Canceled")
            return
        if run["status"] in runs.STALLED:
            runs.note(emulator, root, f"Step {run['_key']} is {run['status']}.")
            for ancestor in (node, root):
                runs.set_status(emulator, ancestor, run["status"])
            return
    failed = [run for run in found.values() if run["status"] == "Failed"]
    if failed and not root["_plan"]["continue"]:
        _fail(emulator, root, node, failed)
        return
    done = {key for key, run in found.items() if run["status"] == "Completed"}
    ready = [
        key
        for key, planned in root["_plan"]["steps"].items()
        if key not in found and set(planned["needs"]) <= done
    ]
    for key in ready:
        steps.queue(emulator, root, node, key)
    if ready or any(runs.is_live(run) for run in found.values()):
        return
    if failed:
        _fail(emulator, root, node, failed)
    else:
        _complete(emulator, root, node)


def apply_completed(emulator: Emulator, event: Event) -> None:
    """The pipeline is Completed."""
    runs.set_status(emulator, runs.known_run(emulator, event.subject), "Completed")


def _complete(emulator: Emulator, root: Document, node: Document) -> None:
    plan = root["_plan"]
    made = {
        target: uri
        for run in runs.children(emulator, node["id"])
        for output, uri in run["outputs"].items()
        if (target := plan["steps"][run["_key"]]["outputs"][output]) is not None
    }
    node["outputs"] = made
    runs.set_status(emulator, node, "Completed")
    root["outputs"] = {plan["outputs"][key]: made[key] for key in plan["outputs"] if key in made}
    runs.note(emulator, root, f"Completing processing run id {node['id']} (Completed).")
    runs.note(emulator, root, "Finishing experiment: no runs left and nothing to schedule.")
    runs.set_status(emulator, root, "Finalizing")
    emulator.schedule("job.completed", root["id"], after=emulator.latency.seconds("job.finalize"))


def _fail(emulator: Emulator, root: Document, node: Document, failed: list[Document]) -> None:
    names = ", ".join(f"/{node['name']}/{run['_key']}" for run in failed)
    message = (
        f"Pipeline has failed child jobs. Failed nodes: {names}. For more details and logs, please "
        f"go to the job detail page and check the child jobs."
    )
    runs.note(emulator, root, message)
    for run in runs.children(emulator, node["id"]):
        if runs.is_live(run):
            _end_run(emulator, run, "Canceled")
    for run in (node, root):
        _end_run(emulator, run, "Failed", {"code": "UserError", "message": message})


def _end_tree(emulator: Emulator, root: Document, status: str) -> None:
    for run in _live_tree(emulator, root):
        _end_run(emulator, run, status)


def _end_run(
    emulator: Emulator, run: Document, status: str, error: dict[str, str] | None = None
) -> None:
    steps.interrupt(emulator, run)
    runs.set_status(emulator, run, status, error=error)
    steps.free(emulator, run)


def _live_tree(emulator: Emulator, root: Document) -> list[Document]:
    found = [root]
    for run in found:
        found.extend(runs.children(emulator, run["id"]))
    return [run for run in found if runs.is_live(run)]


def _fault_step(plan: Document, fault: Mapping[str, Any]) -> str:
    wanted, keys = fault.get("step", "finetune"), list(plan["steps"])
    for key in keys:
        if wanted == key or key.endswith(f"_{wanted}"):
            return str(key)
    if "step" in fault:
        raise BadRequest(f"The fault names the step '{wanted}'; there are {keys}.")
    return str(keys[-1])
