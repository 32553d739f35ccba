"""Deployed runs: who runs what is scheduled, by ``serve`` or from a work pool, and the runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx

from deployments import definitions

from .stage import PROFILE, awaited, ended, flow_processes, processes

# The shortest that Prefect allows; a run is taken for dead after three that are missed.
HEARTBEAT_SECONDS = 30
ENDPOINT_PREFIX = "local"
GIVEN_UP = "given up"
QUICK = (
    f"endpoint.name_prefix={ENDPOINT_PREFIX}",
    "compute.idle_seconds_before_scale_down=1",
    "evaluation.baseline=false",
    "evaluation.conversations=1",
)


class Way(NamedTuple):
    """A way to run flows.

    Args:
        command: Of the process that runs what is scheduled.
        finetune: The deployments, as ``flow/deployment``.
        sweep: See above.
        restart: See above.
    """

    command: tuple[str, ...]
    finetune: str
    sweep: str
    restart: str


WAYS = {
    "serve": Way(
        ("-m", "campaigns.serving"),
        "finetune-chat-model/served",
        "sweep-endpoints/served",
        "restart-crashed-run/served",
    ),
    "worker": Way(
        ("-m", "prefect", "worker", "start", "--pool", "finetune", "--type", "process"),
        definitions.ON_DEMAND,
        definitions.SWEEP,
        definitions.RESTART,
    ),
}


class Crew:
    """The process that runs what is scheduled, and its descendants.

    Args:
        way: How.
        environ: Of the process, and of the flows.
        log: Where they write.
    """

    def __init__(self, way: Way, environ: dict[str, str], log: Path) -> None:
        self.way = way
        self.environ = {
            **environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
            "FINETUNE_HOME": str(Path.cwd()),
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def deploy(self) -> None:
        """Make the deployments, and start the process."""
        if self.way is WAYS["worker"]:
            self._prefect("work-pool", "create", "finetune", "--type", "process", "--overwrite")
            self._prefect("--no-prompt", "deploy", "--all")
        self.start()

    def start(self) -> None:
        """Start the process, and return when its deployments are there."""
        from prefect.exceptions import ObjectNotFound

        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.way.command], env=self.environ, stdout=log, stderr=log
            )

        def look() -> bool | None:
            with suppress(ObjectNotFound, httpx.HTTPError), client() as prefect:
                prefect.read_deployment_by_name(self.way.restart)
                return True
            return None

        awaited(look, 120, lambda: f"the deployment {self.way.restart}")

    def flows(self) -> list[int]:
        """Return the ids of the processes that run flows now."""
        assert self._process is not None
        return flow_processes(self._process.pid)

    def terminate(self) -> None:
        """Send it SIGTERM, as a supervisor does."""
        assert self._process is not None
        self._process.terminate()

    def stop(self, seconds: float = 60) -> None:
        """End it as Ctrl-C on a service does, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            ended(self._process, seconds)

    def kill(self) -> None:
        """End it and all that it started at once, as a host's death does."""
        assert self._process is not None
        mine = {self._process.pid}
        for pid, parent, _ in sorted(processes()):
            if parent in mine:
                mine.add(pid)
        for pid in sorted(mine):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _prefect(self, *words: str) -> None:
        with self._log.open("a") as log:
            command = [sys.executable, "-m", "prefect", *words]
            subprocess.run(command, env=self.environ, stdout=log, stderr=log, check=True)


def automate(ways: list[Way]) -> None:
    """Have the automations look after the runs of all these ways; the first one acts for them."""
    from deployments.automations import ensure_automations

    ensure_automations(
        finetune=[way.finetune for way in ways],
        sweep=ways[0].sweep,
        restart=ways[0].restart,
        retrain=ways[0].finetune,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        grace=timedelta(0),
        restart_after=timedelta(seconds=10),
    )


def schedule(deployment: str, *settings: str) -> str:
    """Schedule a run of the local profile now, and return its id."""
    from lifecycle.config import load_config

    config = load_config(PROFILE, (*QUICK, *settings))
    with client() as prefect:
        found = prefect.read_deployment_by_name(deployment)
        run = prefect.create_flow_run_from_deployment(
            found.id,
            parameters=config.model_dump(mode="json"),
            job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}
            if deployment == WAYS["worker"].finetune
            else None,
        )
    return str(run.id)


def state(run_id: str) -> str:
    """Return the type of the run's state, in lower case.

    ``unknown`` where nobody answers, ``given up`` where it has crashed as often as is allowed.
    """
    from flows.restart import MOST_ATTEMPTS

    try:
        with client() as prefect:
            run = prefect.read_flow_run(UUID(run_id))
    except httpx.HTTPError:
        return "unknown"
    if run.state is None:
        return "unknown"
    is_last = run.state.is_crashed() and run.run_count >= MOST_ATTEMPTS
    return GIVEN_UP if is_last else str(run.state.type.value).lower()


def message(run_id: str) -> str:
    """Return what the run's state says."""
    with client() as prefect:
        found = prefect.read_flow_run(UUID(run_id)).state
    return "" if found is None else str(found.message or "")


def attempts(run_id: str) -> int:
    """Return how often the run was started."""
    with client() as prefect:
        return int(prefect.read_flow_run(UUID(run_id)).run_count)


def cancel(run_id: str) -> None:
    """Ask for the run's cancellation, as the button of the UI does."""
    from prefect.states import Cancelling

    with client() as prefect:
        prefect.set_flow_run_state(UUID(run_id), Cancelling())


def client() -> Any:
    """Return a client of the Prefect server."""
    from prefect import get_client

    return get_client(sync_client=True)
