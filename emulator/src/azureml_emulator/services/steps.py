"""The life of one step: it waits for nodes, is carried out by the executor, and gives them back.

Its states are Queued, Preparing, Running, Finalizing, and then as it ended. Whatever its end is,
the pipeline looks at it next (``job.advance``, :mod:`.pipelines`). What it does while it is Running
is the executor's business (:mod:`~azureml_emulator.executors`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..emulator import Emulator
from ..executors import PREEMPTED, Status, Step
from ..settings import WORKSPACE_ID
from ..store import Document
from ..timeline import Event
from . import artifacts, compute, runs
from .graph import SERVERLESS, bound

WAITING = "waitingStep"


def queue(emulator: Emulator, root: Document, node: Document, key: str) -> None:
    """Make the run of the step *key* of the pipeline and let it wait for its nodes."""
    plan = root["_plan"]
    planned, parameters = plan["steps"][key], plan["parameters"]
    run_id = runs.child_id(root["id"], key)
    runs.new_run(
        emulator,
        run_id,
        root["experiment"],
        parent=node,
        name=key,
        kind="step",
        component=planned["component"],
        status="Queued",
        compute=bound(planned["compute"], parameters),
        tags={"azureml.nodeid": key, "azureml.pipeline": root["id"]},
        outputs={
            output: artifacts.output_uri(root["id"], plan["outputs"][target])
            if target in plan["outputs"]
            else artifacts.output_uri(run_id, output)
            for output, target in planned["outputs"].items()
        },
        _key=key,
        _size=bound(planned["size"], parameters),
        _nodes=_count(bound(planned["nodes"], parameters)),
        _attempt=1,
    )
    runs.note(emulator, node, f"Submitting 1 runs, first five are: {key}:{run_id}")
    _seek_nodes(emulator, run_id)


def _seek_nodes(emulator: Emulator, run_id: str) -> None:
    emulator.store.put(WAITING, run_id, {"run": run_id})
    serve_waiting(emulator)


def serve_waiting(emulator: Emulator) -> None:
    """Give nodes to the steps that wait for them, those of each place in their order.

    To be called whenever nodes or cores may have become free, and when a cluster has changed. A
    step that can never have its nodes is refused.
    """
    full: set[str] = set()
    for waiting in emulator.store.list(WAITING):
        run = runs.known_run(emulator, waiting["run"])
        problem = _serverless_problem(emulator, run) if _serverless(run) else _place(emulator, run)
        place = _queue(run)
        if problem is None and (place in full or not _take_nodes(emulator, run)):
            full.add(place)
            continue
        emulator.store.delete(WAITING, run["id"])
        if problem is None:
            _allocate(emulator, run)
            continue
        after = emulator.latency.seconds("job.queue")
        emulator.schedule("job.refused", run["id"], after=after, payload={"message": problem})


def interrupt(emulator: Emulator, run: Document) -> None:
    """Let nothing more happen to *run*; its status is the caller's to set."""
    emulator.timeline.cancel(run["id"], kind_prefix="job.")
    if run["kind"] == "step" and run["status"] == "Running":
        emulator.executor.stop(JobsHost(emulator), step_of(emulator, run))


def preempt(emulator: Emulator, run: Document) -> None:
    """Take the node of the Running step *run* away: it is queued again, and keeps its folder.

    A fault that wanted that has had its way; a second attempt goes undisturbed.
    """
    interrupt(emulator, run)
    runs.append_log(emulator, run, runs.STEP_LOG, "The node was preempted.\n")
    _give_back(emulator, run, PREEMPTED)
    root = runs.known_run(emulator, run["root"])
    root["_fault"] = None
    root["_warm"] = [place for place in root["_warm"] if place != _warm_place(run)]
    runs.save_run(emulator, root)
    run["_attempt"] += 1
    runs.set_status(emulator, run, "Queued")
    node = runs.known_run(emulator, run["parent"])
    runs.note(emulator, node, f"The node of run id {run['id']} was preempted: it is queued again.")
    _seek_nodes(emulator, run["id"])


def recover(emulator: Emulator) -> None:
    """Go on with the steps that were Running when the last emulator ended."""
    host, chosen = JobsHost(emulator), emulator.settings.jobs
    with emulator.store.transaction():
        for run in emulator.store.list(runs.RUN):
            if run["kind"] != "step" or run["status"] != "Running":
                continue
            if run["_jobs"] == chosen:
                emulator.executor.recover(host, step_of(emulator, run))
                continue
            emulator.timeline.cancel(run["id"], kind_prefix="job.")
            message = f"The step was begun with --jobs {run['_jobs']}, and now it is {chosen}."
            _end(emulator, run, "Failed", message)


def free(emulator: Emulator, run: Document) -> None:
    """Take back what *run* has: its nodes or its place in the queue for them, and its folder."""
    if run["kind"] != "step":
        return
    _give_back(emulator, run, run["status"])
    # Disk space, no more: what cannot be removed does not stop the job.
    shutil.rmtree(_folder(emulator, run["id"]), ignore_errors=True)


def _give_back(emulator: Emulator, run: Document, reason: str) -> None:
    if emulator.store.delete(WAITING, run["id"]):
        return
    if _serverless(run):
        emulator.ledger.close(_meter(run), at=emulator.now(), reason=reason)
    else:
        compute.release_nodes(emulator, run["compute"], run["id"])
    serve_waiting(emulator)


def step_of(emulator: Emulator, run: Document) -> Step:
    """Return the step that *run* is, as the executor knows it."""
    root = runs.known_run(emulator, run["root"])
    plan, fault = root["_plan"], root["_fault"]
    sold = emulator.catalog.sizes.get(run["_size"].lower(), {})
    upstream = plan["steps"][run["_key"]]["upstream"]
    return Step(
        run_id=run["id"],
        job=root["id"],
        key=run["_key"],
        component=run["component"],
        parameters=plan["parameters"],
        declared=plan["declared"],
        outputs=tuple(run["outputs"]),
        upstream={name: (source, output) for name, (source, output) in upstream.items()},
        size=run["_size"],
        gpus=int(sold.get("gpus", 0)),
        nodes=run["_nodes"],
        fault=fault if fault is not None and fault["step"] == run["_key"] else None,
        attempt=run["_attempt"],
    )


def apply_freed(emulator: Emulator, event: Event) -> None:
    """A meter has stopped somewhere: its cores may be what a step waits for."""
    serve_waiting(emulator)


def apply_allocated(emulator: Emulator, event: Event) -> None:
    """The step's nodes are up: its container is prepared."""
    run = runs.known_run(emulator, event.subject)
    runs.set_status(emulator, run, "Preparing")
    emulator.schedule("job.prepared", run["id"], after=emulator.latency.seconds("job.prepare"))


def apply_refused(emulator: Emulator, event: Event) -> None:
    """The step cannot be given nodes, and never could."""
    run = runs.known_run(emulator, event.subject)
    _end(emulator, run, "Failed", event.payload["message"])


def apply_prepared(emulator: Emulator, event: Event) -> None:
    """The step's container is up: the executor takes over."""
    run = runs.known_run(emulator, event.subject)
    run["_jobs"] = emulator.settings.jobs
    runs.set_status(emulator, run, "Running")
    emulator.executor.start(JobsHost(emulator), step_of(emulator, run))


def apply_beat(emulator: Emulator, event: Event) -> None:
    """The moment has come that the executor asked for."""
    run = runs.known_run(emulator, event.subject)
    emulator.executor.wake(JobsHost(emulator), step_of(emulator, run), event.payload["beat"])


def apply_finalized(emulator: Emulator, event: Event) -> None:
    """The step is Completed."""
    _end(emulator, runs.known_run(emulator, event.subject), "Completed")


class JobsHost:
    """What an executor asks of and reports to the jobs service; an :class:`executors.Host`.

    Args:
        emulator: Where the runs are.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def log(self, step: Step, text: str) -> None:
        """Append to the step's log."""
        with self._emulator.store.transaction():
            if run := self._running(step):
                runs.append_log(self._emulator, run, runs.STEP_LOG, text)

    def record(self, step: Step, metrics: Mapping[str, float], *, at: int) -> None:
        """Log metrics to the step's run."""
        with self._emulator.store.transaction():
            if self._running(step):
                moment = int(self._emulator.now() * 1000)
                for key, value in metrics.items():
                    runs.record_metric(
                        self._emulator, step.run_id, key, value, step=at, timestamp=moment
                    )

    def exists(self, uri: str) -> bool:
        """Return whether there is such an input."""
        return artifacts.exists(self._emulator, uri)

    def locate(self, uri: str) -> Path | None:
        """Return where an input lies."""
        return artifacts.locate(self._emulator, uri)

    def upstream(self, step: Step, name: str) -> Path | None:
        """Return where the output lies that an input comes from."""
        if name not in step.upstream:
            return None
        key, output = step.upstream[name]
        source = runs.known_run(self._emulator, runs.child_id(step.job, key))
        return artifacts.locate(self._emulator, source["outputs"][output])

    def model(self, step: Step) -> Mapping[str, Any]:
        """Return the foundation model."""
        given = step.parameters
        named = given.get("mlflow_model_path") or given.get("pytorch_model_path")
        return artifacts.model_at(self._emulator, named or given.get("huggingface_id", ""))

    def work(self, step: Step) -> Path:
        """Return the step's own folder, made if it is not there."""
        folder = _folder(self._emulator, step.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, step: Step, output: str, path: str, data: bytes) -> None:
        """Leave a file in an output."""
        with self._emulator.store.transaction():
            if run := self._running(step):
                artifacts.write(self._emulator, run["outputs"][output], path, data)

    def keep(self, step: Step, output: str, folder: Path) -> None:
        """Move files to an output."""
        with self._emulator.store.transaction():
            if run := self._running(step):
                artifacts.adopt(self._emulator, run["outputs"][output], folder)

    def end(self, step: Step, status: Status = "Completed", *, message: str = "") -> None:
        """End the step."""
        with self._emulator.store.transaction():
            run = self._running(step)
            if run is None:
                return
            if status != "Completed":
                _end(self._emulator, run, status, message)
                return
            runs.set_status(self._emulator, run, "Finalizing")
            after = self._emulator.latency.seconds("job.finalize")
            self._emulator.schedule("job.finalized", run["id"], after=after)

    def preempt(self, step: Step) -> None:
        """Take the step's node away."""
        with self._emulator.store.transaction():
            if run := self._running(step):
                preempt(self._emulator, run)

    def seconds(self, name: str) -> float:
        """Return a row of the latency table."""
        return self._emulator.latency.seconds(name)

    def wake(self, step: Step, *, after: float, beat: int) -> None:
        """Schedule a call of the executor."""
        self._emulator.schedule("job.beat", step.run_id, after=after, payload={"beat": beat})

    def _running(self, step: Step) -> Document | None:
        run = runs.known_run(self._emulator, step.run_id)
        current = run["status"] == "Running" and run["_attempt"] == step.attempt
        return run if current else None


def _end(emulator: Emulator, run: Document, status: str, message: str = "") -> None:
    error = {"code": "UserError", "message": message} if status == "Failed" else None
    runs.set_status(emulator, run, status, error=error)
    if not runs.is_live(run):
        free(emulator, run)
    node = runs.known_run(emulator, run["parent"])
    said = f": {message}" if message else ""
    runs.note(emulator, node, f"Completing processing run id {run['id']} ({status}{said}).")
    emulator.schedule("job.advance", node["id"], after=0.0)


def _folder(emulator: Emulator, run_id: str) -> Path:
    return emulator.settings.steps / run_id


def _serverless(run: Document) -> bool:
    return bool(run["compute"] == SERVERLESS)


def _serverless_problem(emulator: Emulator, run: Document) -> str | None:
    size, nodes = run["_size"], run["_nodes"]
    sold = emulator.catalog.sizes.get(size.lower())
    if sold is None:
        return f"VM size '{size}' is not available for serverless compute in this region."
    return compute.quota_problem(emulator, sold["family"], nodes, size)


def _queue(run: Document) -> str:
    """Return where *run* queues: at its cluster, or for serverless nodes of its size."""
    if _serverless(run):
        return f"{SERVERLESS}/{run['_size'].lower()}"
    return str(run["compute"]).rpartition("/")[2].lower()


def _take_nodes(emulator: Emulator, run: Document) -> bool:
    nodes, size = run["_nodes"], run["_size"]
    if not _serverless(run):
        return compute.acquire_nodes(emulator, run["compute"], nodes, run["id"])
    pool = emulator.catalog.sizes[size.lower()]["family"]
    if not compute.has_cores(emulator, pool, nodes, size):
        return False
    emulator.ledger.open(
        _meter(run),
        "job",
        at=emulator.now(),
        sku=run["_size"],
        quantity=run["_nodes"],
        usd_per_hour=emulator.catalog.price(run["_size"]),
    )
    return True


def _place(emulator: Emulator, run: Document) -> str | None:
    cluster = compute.find(emulator, run["compute"])
    if cluster is None:
        return f"Compute target '{run['compute']}' was not found in the workspace."
    state = cluster["properties"]["provisioningState"]
    if state == "Failed":
        return f"Compute target '{run['compute']}' is in the state {state}: it has no nodes."
    run["_size"] = compute.size(cluster)
    runs.save_run(emulator, run)
    most = compute.max_nodes(cluster)
    if run["_nodes"] > most:
        return (
            f"Requested {run['_nodes']} nodes but AzureMLCompute cluster only has {most} maximum "
            f"nodes."
        )
    return compute.quota_problem(
        emulator, compute.pool(emulator, cluster), run["_nodes"], run["_size"]
    )


def _allocate(emulator: Emulator, run: Document) -> None:
    root = runs.known_run(emulator, run["root"])
    place = _warm_place(run)
    warm = place in root["_warm"]
    if not warm:
        root["_warm"].append(place)
        runs.save_run(emulator, root)
    after = 0.0 if warm else emulator.latency.seconds("job.queue")
    emulator.schedule("job.allocated", run["id"], after=after)


def _warm_place(run: Document) -> str:
    return f"{run['compute']}/{run['_size'].lower()}"


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 1


def _meter(run: Document) -> str:
    return f"{WORKSPACE_ID}/jobs/{run['id']}"
