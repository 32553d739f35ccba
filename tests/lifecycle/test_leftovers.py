"""Whatever a run left is found by its owner tag and put away, by whoever comes first or second."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azureml_emulator.services import compute

from lifecycle.clients import WorkspaceRef
from lifecycle.component import TrainingSpec
from lifecycle.compute import ComputeSpec, SizeInfo, check_compute, ensure_compute
from lifecycle.endpoint import EndpointRef, EndpointSpec, create_endpoint, keep_endpoint
from lifecycle.endpoint import plan_endpoint as plan
from lifecycle.errors import StillBilling
from lifecycle.job import job_name, submit_job
from lifecycle.leftovers import (
    ask_endpoints_away,
    list_ours,
    put_away_cluster,
    put_away_endpoints,
    put_away_job,
)

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
OTHER = "00000000-0000-4000-8000-00000000000a"
DELETE = {"method": "DELETE", "path": "/onlineEndpoints/[^/]+$"}
LIST = {"method": "GET", "path": "/onlineEndpoints$"}
SIZE = SizeInfo(name="Standard_NC24ads_A100_v4", gpus=1, vcpus=24, memory_gb=220, low_priority=True)
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def make(workspace: WorkspaceRef, endpoint_spec: EndpointSpec) -> Callable[[str, int], EndpointRef]:
    """Create the endpoint of an attempt of a run."""

    def make(run: str, attempt: int) -> EndpointRef:
        endpoint = plan(endpoint_spec, run, attempt, NOW)
        create_endpoint(workspace, endpoint_spec, endpoint)
        return endpoint

    return make


def names(workspace: WorkspaceRef) -> list[str]:
    """What is left."""
    return sorted(found.name for found in list_ours(workspace))


def test_every_attempt_of_the_run_goes_and_nothing_else(
    workspace: WorkspaceRef, make: Callable[[str, int], EndpointRef], clock: Any
) -> None:
    """No memory of names is needed; another run's endpoint stays, and one in use by a wish."""
    first, second, kept, other = make(RUN, 1), make(RUN, 2), make(RUN, 3), make(OTHER, 1)
    keep_endpoint(workspace, kept)

    gone = put_away_endpoints(workspace, RUN, spare_kept=True, clock=clock)

    assert sorted([first.name, second.name]) == sorted(gone)
    assert sorted([kept.name, other.name]) == names(workspace)
    assert [] == put_away_endpoints(workspace, RUN, spare_kept=True, clock=clock)
    assert [kept.name] == put_away_endpoints(workspace, RUN, clock=clock)
    assert [] == clock.slept


def test_an_endpoint_that_appears_a_little_later_goes_too(
    workspace: WorkspaceRef, make: Callable[[str, int], EndpointRef], clock: Any
) -> None:
    """A create was sent, its run was killed, and Azure takes its time."""
    made: list[str] = []

    def appear(seconds: float) -> None:
        if not made and clock.monotonic() > 20:
            made.append(make(RUN, 1).name)

    clock.on_sleep = appear

    assert made == put_away_endpoints(workspace, RUN, window_seconds=60, clock=clock)
    assert [] == names(workspace)


def test_what_a_later_attempt_has_made_is_its_own(
    workspace: WorkspaceRef, make: Callable[[str, int], EndpointRef], clock: Any
) -> None:
    """The hook of a crash may still look for the endpoint whose create was never answered."""
    made = make(RUN, 2)

    assert [] == put_away_endpoints(
        workspace, RUN, born_until=NOW - timedelta(seconds=1), window_seconds=60, clock=clock
    )
    assert [made.name] == put_away_endpoints(workspace, RUN, born_until=NOW, clock=clock)


@pytest.mark.parametrize("status", [401, 429, 503])
def test_an_outage_is_waited_out(
    emulator: Any,
    workspace: WorkspaceRef,
    make: Callable[[str, int], EndpointRef],
    clock: Any,
    status: int,
) -> None:
    """A list that does not come is not an empty one."""
    made = make(RUN, 1)
    soon = {"Retry-After": "0.01"}
    effect = {"status": status, "headers": soon}
    emulator.faults({"match": LIST, "nth": list(range(1, 10)), "effect": effect})

    assert [made.name] == put_away_endpoints(workspace, RUN, clock=clock)


def test_what_stays_is_named(
    emulator: Any, workspace: WorkspaceRef, make: Callable[[str, int], EndpointRef], clock: Any
) -> None:
    """Each by its name, and one that stays does not protect the others."""
    first, second, third = make(RUN, 1), make(RUN, 2), make(RUN, 3)
    for_two = {"method": "DELETE", "path": f"/({first.name}|{third.name})$"}
    emulator.faults({"match": for_two, "effect": {"status": 403}})

    with pytest.raises(StillBilling) as problem:
        put_away_endpoints(workspace, RUN, clock=clock)

    assert {f"onlineEndpoints/{one.name}" for one in (first, third)} == set(problem.value.resources)
    assert second.name not in names(workspace)


def test_asking_awaits_nothing(
    emulator: Any, workspace: WorkspaceRef, make: Callable[[str, int], EndpointRef]
) -> None:
    """A retry that finds an earlier attempt's endpoint busy goes on with its own work."""
    made = make(RUN, 1)
    emulator.faults({"match": DELETE, "nth": [1], "effect": {"status": 409}})

    assert [made.name] == ask_endpoints_away(workspace, RUN)
    assert [made.name] == names(workspace)
    ask_endpoints_away(workspace, RUN)
    assert [] == names(workspace)


@pytest.fixture
def cluster(workspace: WorkspaceRef) -> str:
    """A cluster that the run made."""
    spec = ComputeSpec(name="made-by-it", size=SIZE.name)
    assert True is ensure_compute(workspace, spec, SIZE, owner=RUN).created
    return "made-by-it"


def test_the_runs_own_cluster_is_deleted_and_no_other(
    workspace: WorkspaceRef, cluster: str, clock: Any
) -> None:
    """Also by a later attempt, which finds it there; deleting again is no error."""
    spec = ComputeSpec(name=cluster, size=SIZE.name)

    assert True is ensure_compute(workspace, spec, SIZE, owner=RUN).created
    assert False is ensure_compute(workspace, spec, SIZE, owner=OTHER).created
    assert False is put_away_cluster(workspace, cluster, OTHER, clock=clock)
    assert check_compute(workspace, spec) is not None
    assert True is put_away_cluster(workspace, cluster, RUN, clock=clock)
    assert None is check_compute(workspace, spec)
    assert False is put_away_cluster(workspace, cluster, RUN, clock=clock)


def test_a_cluster_with_a_job_on_it_is_left(
    emulator: Any, workspace: WorkspaceRef, cluster: str, clock: Any
) -> None:
    """Somebody else uses it meanwhile; it shrinks to no node when that job has ended."""
    inner = emulator.server.emulator
    with inner.store.transaction():
        assert compute.acquire_nodes(inner, cluster, 1, "somebody's")

    assert False is put_away_cluster(workspace, cluster, RUN, clock=clock)
    assert check_compute(workspace, ComputeSpec(name=cluster, size=SIZE.name)) is not None


@pytest.mark.parametrize("nodes", [[{"nodeId": "n"}], [{"nodeId": "n", "nodeState": "Working"}]])
def test_a_cluster_whose_nodes_do_not_say_that_they_idle_is_left(
    emulator: Any,
    workspace: WorkspaceRef,
    cluster: str,
    clock: Any,
    nodes: list[dict[str, str]],
) -> None:
    """That no job is named on a node is no proof that it has none."""
    listed = {"status": 200, "body": json.dumps({"nodes": nodes})}
    emulator.faults({"match": {"path": "/listNodes$"}, "effect": listed})

    assert False is put_away_cluster(workspace, cluster, RUN, clock=clock)
    assert check_compute(workspace, ComputeSpec(name=cluster, size=SIZE.name)) is not None


def test_a_cluster_that_cannot_be_deleted_is_named(
    emulator: Any, workspace: WorkspaceRef, cluster: str, clock: Any
) -> None:
    """A refusal that may pass is waited out; one that stays is an error."""
    emulator.faults({"match": {"method": "DELETE"}, "nth": [1, 2], "effect": {"status": 409}})
    assert True is put_away_cluster(workspace, cluster, RUN, clock=clock)
    ensure_compute(workspace, ComputeSpec(name=cluster, size=SIZE.name), SIZE, owner=RUN)
    emulator.faults({"match": {"method": "DELETE"}, "effect": {"status": 403}})

    with pytest.raises(StillBilling) as problem:
        put_away_cluster(workspace, cluster, RUN, clock=clock)

    assert [f"computes/{cluster}"] == problem.value.resources


def test_a_live_job_is_canceled_and_its_end_awaited(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: Callable[..., Any], clock: Any
) -> None:
    """And a second call finds it ended."""
    submit_job(slow_workspace, make_plan(slow_workspace), TrainingSpec(), RUN)

    assert "Canceled" == put_away_job(slow_workspace, RUN, clock=clock)
    assert "Canceled" == put_away_job(slow_workspace, RUN, clock=clock)
    assert [] == slow_emulator.open_meters()


def test_a_job_that_appears_a_little_later_is_canceled_too(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: Callable[..., Any], clock: Any
) -> None:
    """Its submit was sent, its run was killed; a run that has none has none."""
    asked = make_plan(slow_workspace)
    sent: list[str] = []

    def submit(seconds: float) -> None:
        slow_emulator.advance(seconds)
        if not sent:
            sent.append(submit_job(slow_workspace, asked, TrainingSpec(), RUN).name)

    clock.on_sleep = submit

    assert "Canceled" == put_away_job(slow_workspace, RUN, window_seconds=20, clock=clock)
    assert [job_name(RUN, 1)] == sent
    assert None is put_away_job(slow_workspace, OTHER, clock=clock)
