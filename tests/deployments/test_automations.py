"""What Prefect does by itself when a run ends badly: started again, swept after, found dead."""

from __future__ import annotations

import os
import signal
import time
import uuid
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.flows import flow
from prefect.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Pending,
    Running,
    Suspended,
)

from deployments.automations import lost_heartbeat
from tasks.runs import owner_of, restart

DEPLOYMENT = r"/onlineEndpoints/[^/]+/deployments/[^/]+$"


@pytest.mark.long
def test_a_killed_run_is_started_again_and_trains_once(automated: Any) -> None:
    """SIGKILL in mid-deployment: its endpoint goes, its job is met again, and it completes."""
    before = automated.requests()
    run = automated.start_run()
    automated.await_request("PUT", DEPLOYMENT, since=before)
    [process] = automated.pids()

    os.kill(process, signal.SIGKILL)

    assert "completed" == automated.await_state(run, "completed"), automated.said()
    assert [("a1", "Completed")] == automated.jobs(run)
    assert ["a1", "a2"] == automated.endpoints(since=before)
    automated.await_no_meter()
    assert 1 <= len(_runs_of("sweep-endpoints"))


@pytest.mark.long
def test_a_cancelled_run_leaves_nothing_and_is_not_started_again(automated: Any) -> None:
    """Cancel in the UI, in mid-deployment."""
    before = automated.requests()
    run = automated.start_run()
    automated.await_request("PUT", DEPLOYMENT, since=before)

    automated.change_state(run, Cancelling())

    assert "cancelled" == automated.await_state(run, "cancelled"), automated.said()
    assert [("a1", "Completed")] == automated.jobs(run)
    automated.await_no_meter()
    assert run not in {
        str(one.parameters["flow_run_id"]) for one in _runs_of("restart-crashed-run")
    }


@pytest.mark.long
def test_a_run_whose_heartbeats_stop_has_crashed(automated: Any) -> None:
    """And only that one: its host died. A run that gives signs of life, or waits, is left alone."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("sweep-endpoints/served")
        [dead, alive, waiting] = [
            client.create_flow_run_from_deployment(deployment.id, state=Pending()) for _ in range(3)
        ]
        watch = client.create_automation(lost_heartbeat([deployment.id], timedelta(seconds=4)))
        try:
            time.sleep(3)  # The server's triggers learn of the automation.
            for run in (dead, alive, waiting):
                client.set_flow_run_state(run.id, Running())
            client.set_flow_run_state(waiting.id, Suspended(timeout_seconds=3600))
            for _ in range(20):
                time.sleep(1.5)
                _beat(alive.id, deployment.id)
            seen = [client.read_flow_run(run.id) for run in (dead, alive, waiting)]
        finally:
            client.delete_automation(watch)

    assert ["Crashed", "Running", "Suspended"] == [run.state_name for run in seen]


@pytest.mark.parametrize(
    ("states", "answer"),
    [
        ([Running(), Completed()], "It is Completed: nothing to do."),
        ([Running(), Cancelling(), Crashed()], "It was cancelled before it crashed"),
        ([Running(), Crashed()], "It belongs to no deployment"),
        ([Running(), Cancelled()], "It is Cancelled"),
    ],
    ids=["completed", "cancelled-then-crashed", "no-deployment", "cancelled"],
)
def test_what_is_not_started_again(prefect_server: str, states: list[Any], answer: str) -> None:
    """What a person has ended, what has ended well, and what nobody would run."""
    run = _run_through(states)

    assert restart(run, 3).startswith(answer)
    if "cancelled" in answer:
        assert restart(run, 3).startswith("It is Cancelled")


@pytest.mark.long
def test_a_run_is_not_started_for_ever(automated: Any) -> None:
    """One that dies of its own doing; and a second restart finds nothing to do."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("sweep-endpoints/served")
        run = client.create_flow_run_from_deployment(deployment.id, state=Running())
        client.set_flow_run_state(run.id, Crashed(), force=True)

    assert "It was started 1 times: it stays as it is." == restart(str(run.id), 1)
    assert "Attempt 2: accept." == restart(str(run.id), 2)
    assert restart(str(run.id), 2).startswith("It is AwaitingRetry")


def test_a_cancel_that_ends_as_a_crash_is_a_cancel(prefect_server: str) -> None:
    """Its runner died with it; nobody comes back for its job."""
    cancelled = owner_of(_run_through([Running(), Cancelling(), Crashed()]))

    assert cancelled is not None
    assert "CANCELLED" == cancelled.state


def _run_through(states: list[Any]) -> str:
    """Make a run without a deployment, and take it through these states."""
    with get_client(sync_client=True) as client:
        first, *others = states
        run = client.create_flow_run(flow(lambda: None, name=f"run-{uuid.uuid4()}"), state=first)
        for state in others:
            client.set_flow_run_state(run.id, state, force=True)
    return str(run.id)


def _beat(run: UUID, deployment: UUID) -> None:
    """Give the sign of life that a flow's engine gives."""
    of = {"prefect.resource.id": f"prefect.deployment.{deployment}"}
    emit_event(
        "prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run}"},
        related=[{**of, "prefect.resource.role": "deployment"}],
    )


def _runs_of(name: str) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[name])))
