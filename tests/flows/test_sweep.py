"""The sweep as a flow: it knows how runs ended, and says what it did in an artifact."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.flows import flow
from prefect.states import AwaitingRetry, Completed, Crashed, Running, State

from flows.sweep import sweep_endpoints
from lifecycle.clients import WorkspaceRef
from lifecycle.endpoint import EndpointSpec, create_endpoint, plan_endpoint
from lifecycle.errors import ServiceError, StillBilling
from tasks.runs import has_completed, owner_of, restart
from tests.flows.heartbeats import beat

# Nobody waits for it: it stays until a person changes something.
LOCKED = {"status": 409, "error": {"code": "ScopeLocked", "message": "It is locked."}}

SPEC = EndpointSpec(instance_type="Standard_NC24ads_A100_v4")


def run_in(*states: State[Any]) -> str:
    """Make a flow run that has just come into these states, one after another."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow(lambda: None, name="a-run"), state=Running())
        for state in states:
            client.set_flow_run_state(run.id, state, force=True)
    return str(run.id)


def make(workspace: WorkspaceRef, run: str) -> str:
    """Create the endpoint of a run, ten minutes ago by its tags."""
    endpoint = plan_endpoint(SPEC, run, 1, datetime.now(UTC) - timedelta(minutes=10))
    create_endpoint(workspace, SPEC, endpoint)
    return endpoint.name


def test_what_prefect_knows_of_a_run(prefect_server: str) -> None:
    """Its state, and since when that is its last; of another server's runs nothing."""
    crashed, running = owner_of(run_in(Crashed())), owner_of(run_in(Running()))

    assert crashed is not None
    assert running is not None
    assert ("CRASHED", True) == (crashed.state, crashed.ended_at is not None)
    assert ("RUNNING", None, None) == (running.state, running.ended_at, running.heartbeat_at)
    waiting = owner_of(run_in(Crashed(), AwaitingRetry()))
    assert waiting is not None
    assert ("SCHEDULED", True) == (waiting.state, waiting.ended_at is not None)
    assert None is owner_of(str(uuid.uuid4()))
    assert None is owner_of("no-uuid")


def test_only_a_run_that_completed_keeps_its_endpoint(prefect_server: str) -> None:
    """Whatever came after; where nobody knows, what is kept is left."""
    assert has_completed(run_in(Completed(), AwaitingRetry(), Running(), Crashed()))
    assert not has_completed(run_in(Crashed(), AwaitingRetry(), Running()))


def test_a_run_that_is_heard_of_again_is_not_started_beside_itself(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeats were lost for a while: Prefect says Crashed, and it is at work."""
    monkeypatch.setattr("tasks.runs.LAST_WORDS", timedelta(0))  # The test has no half minute.
    run = run_in(Crashed())
    beat(run)

    assert "It gives signs of life" in restart(run, 3)


def test_a_run_that_was_heard_of_long_ago_is_dead(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lived on after it was said to have crashed, and died then, of which nobody was told."""
    monkeypatch.setattr("tasks.runs.LAST_WORDS", timedelta(0))
    monkeypatch.setattr("tasks.runs.ALIVE", timedelta(0))
    run = run_in(Crashed())
    beat(run)

    assert "It belongs to no deployment: nobody would run it." == restart(run, 3)


def test_the_endpoint_of_a_run_that_is_over_goes_before_it_expires(
    emulator: Any, workspace: WorkspaceRef, prefect_server: str
) -> None:
    """Two sweeps are no more than one; a live run's endpoint stays, and the artifact tells."""
    over, live = make(workspace, run_in(Crashed())), make(workspace, run_in(Running()))

    early: Any = sweep_endpoints(apply=True)
    result: Any = sweep_endpoints(apply=True, grace_minutes=0)
    again: Any = sweep_endpoints(apply=True, grace_minutes=0)

    assert [] == early["deleted"]
    assert ([over], [live]) == (result["deleted"], result["left"])
    assert ([], [live]) == (again["deleted"], again["left"])
    told = _artifacts()
    assert f"| endpoint | {over} | deleted | its run is CRASHED" in told[1]
    assert over not in told[0]
    assert f"| endpoint | {live} | leave | it expires in" in told[0]


def test_a_sweep_that_leaves_something_fails(
    emulator: Any, workspace: WorkspaceRef, prefect_server: str
) -> None:
    """What should be gone and is not turns the run red, with its name."""
    over = make(workspace, run_in(Crashed()))
    emulator.faults({"match": {"method": "DELETE"}, "effect": LOCKED})

    with pytest.raises(StillBilling, match=over) as problem:
        sweep_endpoints(apply=True, grace_minutes=0)

    assert [f"onlineEndpoints/{over}"] == problem.value.resources
    assert "**FAILED**" in _artifacts()[0]


def test_a_sweep_that_cannot_see_the_jobs_fails(
    emulator: Any, workspace: WorkspaceRef, prefect_server: str
) -> None:
    """It has deleted what it could, and is not green: a job may be left."""
    over = make(workspace, run_in(Crashed()))
    emulator.faults({"match": {"method": "GET", "path": "/jobs$"}, "effect": {"status": 403}})

    with pytest.raises(ServiceError, match="Whether a job is left is not known"):
        sweep_endpoints(apply=True, grace_minutes=0)

    assert f"| endpoint | {over} | deleted |" in _artifacts()[0]


def _artifacts() -> list[str]:
    """Return the texts of the sweeps' artifacts, the newest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["sweep"])),
            sort=ArtifactSort.CREATED_DESC,
        )
    return [str(artifact.data) for artifact in found]
