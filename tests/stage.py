"""A stage for deployed runs: an emulator, a Prefect server, and whoever runs what is scheduled."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from azureml_emulator.emulator import Emulator
from azureml_emulator.environment import client_environment
from azureml_emulator.server import Server
from azureml_emulator.services import runs, storage
from azureml_emulator.settings import Settings

from campaigns.stage import awaited, flow_processes

# Long enough for a signal to land inside, short enough to wait for.
SECONDS = {
    "endpoint.create": 3.0,
    "endpoint.update": 0.2,
    "endpoint.delete": 1.0,
    "endpoint.name_reuse": 0.0,
    "deployment.create": 5.0,
    "deployment.delete": 0.5,
    "compute.create": 0.2,
    "job.queue": 0.5,
    "job.prepare": 0.2,
    "job.step": 1.0,
    "job.finalize": 0.2,
    "job.cancel": 0.5,
}
QUICK = (
    "compute.idle_seconds_before_scale_down=1",
    "evaluation.baseline=false",
    "evaluation.conversations=1",
)
SERVED = """
from prefect import serve

from flows.finetune import finetune_chat_model
from flows.restart import restart_crashed_run
from flows.sweep import sweep_endpoints

if __name__ == "__main__":
    flows = (finetune_chat_model, sweep_endpoints, restart_crashed_run)
    serve(*(flow.to_deployment("served") for flow in flows), limit=4, pause_on_shutdown=False)
"""


class Stage:
    """One emulator and one deployment of the flow, on which runs are started and harmed."""

    def __init__(self, emulator: Server, environ: dict[str, str]) -> None:
        self.emulator = emulator
        self.environ = environ
        self.deployment = ""
        self.runner: subprocess.Popen[bytes] | None = None
        self.log: Path | None = None

    def start_run(self, *settings: str) -> str:
        """Schedule a run of the local profile now, and return its id."""
        from lifecycle.config import load_config

        config = load_config(Path("profiles/local.yaml"), (*QUICK, *settings))
        with _client() as client:
            deployment = client.read_deployment_by_name(self.deployment)
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters=config.model_dump(mode="json")
            )
        return str(run.id)

    def state(self, run_id: str) -> str:
        """Return the type of the run's state, in lower case."""
        with _client() as client:
            state = client.read_flow_run(UUID(run_id)).state
        return "none" if state is None else str(state.type.value).lower()

    def await_state(self, run_id: str, *wanted: str, seconds: float = 240) -> str:
        """Wait until the run is in one of these states, and return which."""
        return awaited(
            lambda: state if (state := self.state(run_id)) in wanted else None,
            seconds,
            lambda: f"{wanted}: {run_id} is {self.state(run_id)}\n{self.told(run_id)}",
        )

    def change_state(self, run_id: str, state: Any) -> None:
        """Ask for another state, as the buttons of the UI do."""
        with _client() as client:
            client.set_flow_run_state(UUID(run_id), state)

    def lines(self, run_id: str) -> list[str]:
        """Return what the run has logged."""
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        found: list[str] = []
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run_id)]))
        with _client() as client:
            while page := client.read_logs(chosen, limit=200, offset=len(found)):
                found += [line.message for line in page]
        return found

    def await_line(self, run_id: str, start: str) -> None:
        """Wait until the run has logged a line that begins so."""
        awaited(
            lambda: any(line.startswith(start) for line in self.lines(run_id)) or None,
            120,
            lambda: f"{start!r} in the log of {run_id}\n{self.said()}",
        )

    def await_report(self, run_id: str) -> str:
        """Wait until the run has its one report among its artifacts, and return it."""
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter

        chosen = FlowRunFilter.model_validate({"id": {"any_": [run_id]}})
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["run-report"]))

        def look() -> str | None:
            with _client() as client:
                found = client.read_artifacts(artifact_filter=key, flow_run_filter=chosen)
            assert len(found) < 2
            return str(found[0].data) if found else None

        return awaited(look, 60, lambda: f"the report of {run_id}\n{self.said()}")

    def told(self, run_id: str) -> str:
        """Return the end of the run's log, for a test that fails."""
        return "\n".join(self.lines(run_id)[-30:])

    def said(self) -> str:
        """Return the end of what the runner of the flows wrote, for a test that fails."""
        return "" if self.log is None else self.log.read_text()[-5000:]

    def pids(self) -> list[int]:
        """Return the ids of the processes that run flows now."""
        assert self.runner is not None
        return flow_processes(self.runner.pid)

    def await_request(self, method: str, path: str, since: int = 0, seconds: float = 120) -> int:
        """Wait until Azure is asked for this, and return the request's number."""

        def look() -> int | None:
            rows = self.emulator.emulator.store.execute(
                "SELECT * FROM requests WHERE seq > ? ORDER BY seq", since
            )
            return next(
                (
                    int(row["seq"])
                    for row in rows
                    if row["method"] == method and re.search(path, row["path"])
                ),
                None,
            )

        return awaited(look, seconds, lambda: f"{method} {path}\n{self.said()}")

    def requests(self) -> int:
        """Return the number of the last request."""
        rows = self.emulator.emulator.store.execute("SELECT coalesce(max(seq), 0) n FROM requests")
        return int(rows[0]["n"])

    def faults(self, *rules: dict[str, Any]) -> None:
        """Replace the fault rules."""
        with self.emulator.emulator.store.transaction():
            self.emulator.emulator.faults.replace(list(rules))

    def endpoints(self, since: int = 0) -> list[str]:
        """Return the end of the name of each endpoint that was created, oldest first."""
        rows = self.emulator.emulator.store.execute(
            "SELECT path FROM requests WHERE seq > ? AND method = 'PUT' AND status = 201 "
            "AND path LIKE '%/onlineEndpoints/%' AND path NOT LIKE '%/deployments/%' ORDER BY seq",
            since,
        )
        return [row["path"].rpartition("-")[2] for row in rows]

    def step_log(self, run_id: str, step: str) -> list[str]:
        """Return the lines of a step of the run's job, as they lie in the storage."""
        [job] = [
            run["id"]
            for run in self.emulator.emulator.store.list("run")
            if run["parent"] is None and run["tags"].get("finetune-owner") == run_id
        ]
        [found] = [
            run
            for run in self.emulator.emulator.store.list("run")
            if run["root"] == job and run["name"].endswith(step)
        ]
        name = runs.log_blob(found["id"], runs.STEP_LOG)
        log = storage.read_blob(self.emulator.emulator, runs.ARTIFACTS, name) or b""
        return log.decode().splitlines()

    def jobs(self, run_id: str) -> list[tuple[str, str]]:
        """Return the end of the name, and the status, of each job of this run."""
        return sorted(
            (run["id"].rpartition("-")[2], run["status"])
            for run in self.emulator.emulator.store.list("run")
            if run["parent"] is None and run["tags"].get("finetune-owner") == run_id
        )

    def await_no_meter(self, seconds: float = 15) -> None:
        """Wait until nothing is billed; the cluster's nodes have their idle time."""
        emulator = self.emulator.emulator

        def still() -> list[str]:
            meters = emulator.ledger.report(now=emulator.now())["meters"]
            return [meter["resource"] for meter in meters if meter["stopped"] is None]

        awaited(lambda: None if still() else True, seconds, lambda: f"no meter; open: {still()}")


@pytest.fixture(scope="module")
def stage(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An emulator on which each thing takes a moment, for all tests of a module."""
    folder = tmp_path_factory.mktemp("stage")
    latency = folder / "latency.yaml"
    latency.write_text(json.dumps(SECONDS))
    server = Server(Emulator(Settings(folder / "emulator", jobs="scripted", latency=str(latency))))
    server.start()
    prefect = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}
    environ = {
        **client_environment(server, os.environ),
        **prefect,
        "FINETUNE_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    try:
        yield Stage(server, environ)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def served(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage with a process that serves the flow."""
    folder = tmp_path_factory.mktemp("served")
    script = folder / "served.py"
    script.write_text(SERVED)
    with (folder / "log").open("w") as log:
        runner = subprocess.Popen(
            [sys.executable, str(script)], env=stage.environ, stdout=log, stderr=log
        )
    stage.deployment = "finetune-chat-model/served"
    stage.runner, stage.log = runner, folder / "log"
    try:
        _await_deployment("restart-crashed-run/served", runner)
        yield stage
    finally:
        runner.send_signal(signal.SIGTERM)
        try:
            runner.wait(timeout=60)
        except subprocess.TimeoutExpired:
            runner.kill()


@pytest.fixture(scope="module")
def automated(served: Stage) -> Iterator[Stage]:
    """The stage with automations, which look after the runs and are quick to act."""
    from deployments.automations import ensure_automations

    names = ensure_automations(
        finetune=["finetune-chat-model/served"],
        sweep="sweep-endpoints/served",
        restart="restart-crashed-run/served",
        retrain="finetune-chat-model/served",
        heartbeat_seconds=30,
        grace=timedelta(0),
        restart_after=timedelta(0),
    )
    yield served
    with _client() as client:
        for name in names:
            for found in client.read_automations_by_name(name):
                client.delete_automation(found.id)


def _await_deployment(name: str, runner: subprocess.Popen[bytes]) -> None:
    from prefect.exceptions import ObjectNotFound

    def look() -> bool | None:
        assert runner.poll() is None, "nobody serves the flow"
        try:
            with _client() as client:
                client.read_deployment_by_name(name)
        except ObjectNotFound:
            return None
        return True

    awaited(look, 120, lambda: f"the deployment {name}")


def _client() -> Any:
    from prefect import get_client

    return get_client(sync_client=True)
