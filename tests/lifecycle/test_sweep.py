"""The sweep touches only what bears our tags and has expired, and says what it left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.endpoint import (
    EndpointRef,
    EndpointSpec,
    create_endpoint,
    keep_endpoint,
    plan_endpoint,
)
from lifecycle.leftovers import EndpointSummary
from lifecycle.owners import Owner
from lifecycle.sweep import SweepResult, judge, sweep

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def ended(state: str, *, minutes: float, heartbeat: float | None = None) -> Owner:
    """A run that ended so long ago, and gave its last sign of life so long ago."""
    return Owner(
        state=state,
        ended_at=NOW - timedelta(minutes=minutes),
        heartbeat_at=None if heartbeat is None else NOW - timedelta(minutes=heartbeat),
    )


def summary(**changed: object) -> EndpointSummary:
    """An endpoint that expired an hour ago, with changes."""
    values: dict[str, object] = {
        "name": "ultrachat-x-a1",
        "provisioning_state": "Succeeded",
        "owner": "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24",
        "created_at": (NOW - timedelta(hours=3)).isoformat(),
        "expires_at": (NOW - timedelta(hours=1)).isoformat(),
        "keep": False,
        **changed,
    }
    return EndpointSummary.model_validate(values)


def test_an_expired_endpoint_is_to_be_deleted() -> None:
    """What outlived its purpose goes."""
    finding = judge(summary(), NOW)

    assert ("delete", "it expired 60 minutes ago") == (finding.verdict, finding.reason)


def test_an_endpoint_expires_at_the_moment_that_its_tag_says() -> None:
    """Not a second earlier."""
    expires = summary(expires_at=NOW.isoformat())

    assert "leave" == judge(expires, NOW - timedelta(seconds=1)).verdict
    assert "delete" == judge(expires, NOW).verdict


def test_the_time_zone_of_the_tag_counts() -> None:
    """Noon in UTC+2 is ten o'clock here, and Z is UTC."""
    assert "delete" == judge(summary(expires_at="2026-11-21T13:59:00+02:00"), NOW).verdict
    assert "leave" == judge(summary(expires_at="2026-11-21T12:01:00Z"), NOW).verdict


def test_a_kept_endpoint_is_protected() -> None:
    """The keep tag is stronger than any date."""
    finding = judge(summary(keep=True), NOW)

    assert ("leave", "it is kept on purpose") == (finding.verdict, finding.reason)


def test_a_new_endpoint_is_never_deleted() -> None:
    """An expiry in the past, from a wrong clock, does not delete what was just created."""
    young = summary(created_at=(NOW - timedelta(minutes=4)).isoformat())

    assert ("leave", "it is younger than 5 minutes") == (
        judge(young, NOW).verdict,
        judge(young, NOW).reason,
    )


@pytest.mark.parametrize(
    ("changed", "tag"),
    [
        ({"owner": None}, "finetune-owner"),
        ({"owner": ""}, "finetune-owner"),
        ({"created_at": None}, "finetune-created-at"),
        ({"created_at": "yesterday"}, "finetune-created-at"),
        ({"expires_at": None}, "finetune-expires-at"),
        ({"expires_at": ""}, "finetune-expires-at"),
        ({"expires_at": "1700000000"}, "finetune-expires-at"),
        ({"expires_at": "2026-11-21T10:00:00"}, "finetune-expires-at"),
    ],
)
def test_a_tag_that_cannot_be_read_is_reported_and_left(
    changed: dict[str, object], tag: str
) -> None:
    """The sweep never guesses: not from half the tags, nor from a date without a time zone."""
    finding = judge(summary(**changed), NOW)

    assert "leave" == finding.verdict
    assert tag in finding.reason


@pytest.mark.parametrize(
    ("owner", "verdict", "reason"),
    [
        (None, "leave", "it expires in 60 minutes"),
        (ended("CRASHED", minutes=11), "delete", "its run is CRASHED since 11 minutes"),
        (ended("COMPLETED", minutes=11), "delete", "its run is COMPLETED since 11 minutes"),
        (ended("CRASHED", minutes=9), "leave", "it expires in 60 minutes"),
        (ended("CRASHED", minutes=11, heartbeat=2), "leave", "it expires in 60 minutes"),
        (ended("CRASHED", minutes=20, heartbeat=15), "delete", "its run is CRASHED since 20 min"),
        (Owner(state="RUNNING", ended_at=None, heartbeat_at=None), "leave", "it expires in 60"),
    ],
)
def test_an_endpoint_whose_run_is_over_need_not_expire(
    owner: Owner | None, verdict: str, reason: str
) -> None:
    """Ended some time ago, and silent for as long: a state alone is no proof."""
    due_in_an_hour = summary(expires_at=(NOW + timedelta(hours=1)).isoformat())

    finding = judge(due_in_an_hour, NOW, lambda run: owner)

    assert verdict == finding.verdict
    assert finding.reason.startswith(reason)


@pytest.mark.parametrize(
    "changed", [{"keep": True}, {"created_at": (NOW - timedelta(minutes=4)).isoformat()}]
)
def test_what_is_protected_is_so_too_when_its_run_is_over(changed: dict[str, object]) -> None:
    """The keep tag, and the first minutes."""
    long_over = ended("FAILED", minutes=600)

    assert "leave" == judge(summary(**changed), NOW, lambda run: long_over).verdict


RUNS = [f"00000000-0000-4000-8000-00000000000{digit}" for digit in "abc"]


def make(
    workspace: WorkspaceRef, spec: EndpointSpec, run: str, born: datetime, *, keep: bool = False
) -> EndpointRef:
    """Create the endpoint of a run at a moment in the past."""
    endpoint = plan_endpoint(spec, run, 1, born)
    create_endpoint(workspace, spec, endpoint)
    if keep:
        keep_endpoint(workspace, endpoint)
    return endpoint


def names_in_azure(workspace: WorkspaceRef) -> list[str]:
    """Every endpoint of the workspace."""
    return sorted(found.name for found in ml_client(workspace).online_endpoints.list())


@pytest.fixture
def foreign(workspace: WorkspaceRef) -> str:
    """An endpoint of somebody else, with a tag of somebody else."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    name = "production-chat"
    theirs = ManagedOnlineEndpoint(name=name, auth_mode="key", tags={"expires": "2020-01-01"})
    ml_client(workspace).online_endpoints.begin_create_or_update(theirs).result()
    return name


def test_a_dry_run_changes_nothing(
    emulator: Any, workspace: WorkspaceRef, endpoint_spec: EndpointSpec, foreign: str, clock: Any
) -> None:
    """Without being told to, a sweep only says what it would do."""
    old = make(workspace, endpoint_spec, RUNS[0], NOW - timedelta(hours=3))
    before = len(emulator.requests())

    result = sweep(workspace, False, NOW, clock=clock)

    assert [(old.name, RUNS[0], "delete")] == [
        (found.name, found.owner, found.verdict) for found in result.found
    ]
    assert (False, [], [old.name], []) == (
        result.applied,
        result.deleted,
        result.left,
        result.failed,
    )
    assert {"GET"} == {row["method"] for row in emulator.requests()[before:]}


def test_only_what_is_ours_and_expired_is_deleted(
    emulator: Any, workspace: WorkspaceRef, endpoint_spec: EndpointSpec, foreign: str, clock: Any
) -> None:
    """Another's endpoint, a kept one and one that is still due are there afterwards."""
    old = make(workspace, endpoint_spec, RUNS[0], NOW - timedelta(hours=3))
    kept = make(workspace, endpoint_spec, RUNS[1], NOW - timedelta(hours=3), keep=True)
    due = make(workspace, endpoint_spec, RUNS[2], NOW - timedelta(minutes=30))

    result = sweep(workspace, True, NOW, clock=clock)

    assert sorted([foreign, kept.name, due.name]) == names_in_azure(workspace)
    assert [old.name] == result.deleted
    assert sorted([kept.name, due.name]) == sorted(result.left)


def test_one_that_cannot_be_deleted_does_not_protect_the_others(
    emulator: Any, workspace: WorkspaceRef, endpoint_spec: EndpointSpec, clock: Any
) -> None:
    """A lock on one endpoint is told, and the rest is swept."""
    locked = make(workspace, endpoint_spec, RUNS[0], NOW - timedelta(hours=3))
    old = make(workspace, endpoint_spec, RUNS[1], NOW - timedelta(hours=3))
    body = '{"error": {"code": "ScopeLocked", "message": "A lock forbids it."}}'
    emulator.faults(
        {
            "match": {"method": "DELETE", "path": locked.name},
            "effect": {"status": 409, "body": body},
        }
    )
    clock.on_sleep = lambda seconds: clock.slept.append(60.0)

    result = sweep(workspace, True, NOW, clock=clock)

    assert ([old.name], [locked.name]) == (result.deleted, result.left)
    [failure] = result.failed
    assert locked.name == failure.name
    assert "ScopeLocked" in failure.error
    assert [locked.name] == names_in_azure(workspace)


def test_a_second_sweep_finds_nothing_to_do(
    emulator: Any, workspace: WorkspaceRef, endpoint_spec: EndpointSpec, clock: Any
) -> None:
    """Sweeping is idempotent, and its result is JSON."""
    make(workspace, endpoint_spec, RUNS[0], NOW - timedelta(hours=3))
    sweep(workspace, True, NOW, clock=clock)

    result = sweep(workspace, True, NOW, clock=clock)

    assert ([], [], [], []) == (result.found, result.deleted, result.left, result.failed)
    assert result == SweepResult.model_validate_json(result.model_dump_json())


def test_what_azure_does_not_list_is_told_and_hinders_nothing(
    emulator: Any, workspace: WorkspaceRef, endpoint_spec: EndpointSpec, clock: Any
) -> None:
    """An identity that may not read jobs or clusters sweeps endpoints all the same."""
    old = make(workspace, endpoint_spec, RUNS[0], NOW - timedelta(hours=3))
    emulator.faults(
        {"match": {"method": "GET", "path": "/(jobs|computes)$"}, "effect": {"status": 403}}
    )

    result = sweep(workspace, True, NOW, clock=clock)

    assert ([old.name], [], 2) == (result.deleted, result.overdue(), len(result.unread))


def test_what_is_left_is_named_by_a_dry_run_too(
    emulator: Any, workspace: WorkspaceRef, endpoint_spec: EndpointSpec, clock: Any
) -> None:
    """The exit code says whether anything is left that should not be."""
    old = make(workspace, endpoint_spec, RUNS[0], NOW - timedelta(hours=3))

    assert [f"onlineEndpoints/{old.name}"] == sweep(workspace, False, NOW, clock=clock).overdue()
    assert [] == sweep(workspace, True, NOW, clock=clock).overdue()
