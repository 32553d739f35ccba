"""Jobs that nobody comes back for are found and canceled; nodes without a job are told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.component import TrainingSpec
from lifecycle.job import submit_job
from lifecycle.orphans import find_idle_clusters, find_jobs
from lifecycle.owners import Owner
from lifecycle.sweep import sweep

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
OTHER = "00000000-0000-4000-8000-00000000000a"
LONG_AGO = timedelta(hours=1)


def owner(state: str, *, ended: timedelta | None) -> Owner:
    """A run in this state."""
    now = datetime.now(UTC)
    return Owner(state=state, ended_at=None if ended is None else now - ended, heartbeat_at=None)


@pytest.fixture
def live_jobs(slow_workspace: WorkspaceRef, make_plan: Callable[..., Any]) -> list[str]:
    """Two jobs of two runs."""
    plan = make_plan(slow_workspace)
    return [submit_job(slow_workspace, plan, TrainingSpec(), run).name for run in (RUN, OTHER)]


@pytest.mark.parametrize(
    ("state", "ended", "verdict", "reason"),
    [
        (None, None, "leave", "nothing is known"),
        ("RUNNING", None, "leave", "its run is RUNNING"),
        ("CRASHED", LONG_AGO, "leave", "may come back for it"),
        ("CRASHED", timedelta(hours=25), "cancel", "its run is CRASHED since 1500 minutes"),
        ("CANCELLED", timedelta(minutes=1), "leave", "since 1 minutes only"),
        ("CANCELLED", LONG_AGO, "cancel", "its run is CANCELLED since 60 minutes"),
        ("FAILED", LONG_AGO, "cancel", "its run is FAILED since 60 minutes"),
    ],
)
def test_only_a_job_that_nobody_comes_back_for_is_canceled(
    slow_workspace: WorkspaceRef,
    live_jobs: list[str],
    state: str | None,
    ended: timedelta | None,
    verdict: str,
    reason: str,
) -> None:
    """A crashed run may for a day, and one that nobody knows here may be at work elsewhere."""
    known = None if state is None else owner(state, ended=ended)
    findings = find_jobs(slow_workspace, datetime.now(UTC), lambda run: known)

    assert sorted(live_jobs) == sorted(finding.name for finding in findings)
    assert {verdict} == {finding.verdict for finding in findings}
    assert [] == [finding.reason for finding in findings if reason not in finding.reason]


def test_a_sweep_cancels_orphans_and_lets_the_others_be(
    slow_emulator: Any, slow_workspace: WorkspaceRef, live_jobs: list[str], clock: Any
) -> None:
    """By their owner alone; a second sweep finds nothing to do."""
    now, over = datetime.now(UTC), owner("FAILED", ended=LONG_AGO)

    def owner_of(run: str) -> Owner | None:
        return over if run == RUN else None

    dry = sweep(slow_workspace, False, now, owner_of=owner_of, clock=clock)
    done = sweep(slow_workspace, True, now, owner_of=owner_of, clock=clock)
    again = sweep(slow_workspace, True, now, owner_of=owner_of, clock=clock)

    assert ([], [f"jobs/{live_jobs[0]}"]) == (dry.canceled, dry.overdue())
    assert ([live_jobs[0]], []) == (done.canceled, done.overdue())
    assert [live_jobs[1]] == [finding.name for finding in again.jobs]


def test_a_job_that_cannot_be_canceled_is_named(
    slow_emulator: Any, slow_workspace: WorkspaceRef, live_jobs: list[str], clock: Any
) -> None:
    """It goes on being billed, and that is said."""
    over = owner("FAILED", ended=LONG_AGO)
    locked = {"status": 409, "error": {"code": "ScopeLocked", "message": "It is locked."}}
    slow_emulator.faults({"match": {"path": f"{live_jobs[0]}/cancel"}, "effect": locked})

    result = sweep(slow_workspace, True, datetime.now(UTC), owner_of=lambda run: over, clock=clock)

    assert [live_jobs[0]] == [failure.name for failure in result.failed]
    assert [f"jobs/{live_jobs[0]}"] == result.overdue()


def test_nodes_without_a_job_are_told_and_nothing_is_done(
    slow_emulator: Any, slow_workspace: WorkspaceRef, clock: Any
) -> None:
    """A cluster that keeps nodes up costs money by day and night."""
    from azure.ai.ml.entities import AmlCompute

    for name, least in (("kept-up", 1), ("empty", 0)):
        cluster = AmlCompute(
            name=name, size="Standard_NC24ads_A100_v4", min_instances=least, max_instances=1
        )
        ml_client(slow_workspace).compute.begin_create_or_update(cluster)
    slow_emulator.advance(60)

    [finding] = find_idle_clusters(slow_workspace)

    assert ("kept-up", 1, "min_instances keeps 1 up") == (
        finding.name,
        finding.nodes,
        finding.reason,
    )
    assert [] == sweep(slow_workspace, True, datetime.now(UTC), clock=clock).overdue()
