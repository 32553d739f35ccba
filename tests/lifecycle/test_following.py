"""The job's own status is the one judge; its run history only informs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lifecycle import following
from lifecycle.azure import REFUSED_SECONDS
from lifecycle.clients import WorkspaceRef
from lifecycle.component import TrainingSpec
from lifecycle.errors import JobDeadlineExceeded, JobFailed, JobNotResponding, ServiceError
from lifecycle.job import JobRef, JobResult, JobSpec, stream_job, submit_job
from lifecycle.logs import LogLine
from lifecycle.preflight import Plan
from lifecycle.report import RunReport, recording

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
HISTORY = {"method": "GET", "path": "/history/"}
CHILDREN = {"method": "GET", "path": "/history/.*/children"}
DETAILS = {"method": "GET", "path": "/history/.*/details"}
DISCOVERY = {"method": "GET", "path": "/discovery"}
JOB = {"method": "GET", "path": r"/workspaces/[^/]+/jobs/[^/]+$"}

MakePlan = Callable[[WorkspaceRef], Plan]


def refused(status: int, code: str = "AuthorizationFailed") -> dict[str, Any]:
    """An answer of Azure's that refuses."""
    return {"status": status, "error": {"code": code, "message": "It cannot be read."}}


def says(body: Any) -> dict[str, Any]:
    """An answer with this body."""
    return {"status": 200, "body": body if isinstance(body, str) else json.dumps(body)}


@pytest.fixture
def job(slow_workspace: WorkspaceRef, make_plan: MakePlan) -> JobRef:
    """A job that takes its minutes."""
    return submit_job(slow_workspace, make_plan(slow_workspace), TrainingSpec(), RUN)


def followed(
    ref: WorkspaceRef, job: JobRef, clock: Any, **limits: float
) -> tuple[JobResult, list[str], list[str]]:
    """Follow the job; return its end, what was logged, and the warnings."""
    lines: list[LogLine] = []
    report = RunReport()
    with recording(report):
        result = stream_job(ref, job, JobSpec(**limits), lines.append, clock)
    return result, [line.text for line in lines], report.warnings


@pytest.mark.parametrize(
    ("match", "effect"),
    [
        (CHILDREN, says({"value": []})),
        (CHILDREN, refused(404, "NotFound")),
        pytest.param(CHILDREN, says([]), marks=pytest.mark.long),
        (CHILDREN, says({"value": [None, 7, {"runId": None}, {"runId": {}}]})),
        (HISTORY, refused(403)),
        pytest.param(HISTORY, refused(404, "NotFound"), marks=pytest.mark.long),
        pytest.param(HISTORY, {"status": 401}, marks=pytest.mark.long),
        (HISTORY, {"status": 500, "headers": {"Retry-After": "0.01"}}),
        (HISTORY, {"status": 429, "headers": {"Retry-After": "86400"}}),
        (HISTORY, says("")),
        pytest.param(HISTORY, says({}), marks=pytest.mark.long),
        pytest.param(HISTORY, says("<html>"), marks=pytest.mark.long),
        pytest.param(DETAILS, says({"status": None}), marks=pytest.mark.long),
        (DETAILS, says({"runId": "x", "status": "Flummoxed"})),
        (DISCOVERY, refused(403)),
        (DISCOVERY, says({})),
        pytest.param(DISCOVERY, says({"api": None}), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_job_completes_whatever_its_history_says(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    job: JobRef,
    clock: Any,
    match: dict[str, str],
    effect: dict[str, Any],
) -> None:
    """Deadlines do not count on steps that nobody sees; one warning at most says what is lost."""
    slow_emulator.faults({"match": match, "effect": effect})

    result, _, warnings = followed(
        slow_workspace, job, clock, queue_deadline_minutes=3, run_deadline_minutes=60
    )

    assert "Completed" == result.status
    assert len(warnings) <= 1
    assert all("goes on by the job's own status" in warning for warning in warnings)


def test_a_history_that_is_refused_is_one_warning(
    slow_emulator: Any, slow_workspace: WorkspaceRef, job: JobRef, clock: Any
) -> None:
    """However often it is tried again; and the job's own states are logged instead."""
    slow_emulator.faults({"match": HISTORY, "effect": refused(403)})

    _, lines, warnings = followed(slow_workspace, job, clock)

    [warning] = warnings
    assert warning.startswith("Azure answered 403 while reading the run history of ft-")
    assert "Status: Running" in lines


def test_a_history_that_comes_back_is_read_to_the_end(
    slow_emulator: Any, slow_workspace: WorkspaceRef, job: JobRef, clock: Any
) -> None:
    """What was written meanwhile is logged when it can be read."""
    slow_emulator.faults({"match": HISTORY, "nth": list(range(1, 9)), "effect": refused(403)})

    _, lines, _ = followed(slow_workspace, job, clock)

    assert any("The run history can be read again, after" in line for line in lines)
    assert any("train" in line for line in lines)
    assert not any("The end of a log is missing" in line for line in lines)


def test_a_failed_job_is_failed_without_its_history(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan, clock: Any
) -> None:
    """The end is the job's; what it was is missing in the words."""
    effect = {"status": "Failed", "step": "finetune", "message": "CUDA out of memory."}
    emulator.faults(
        {"match": {"method": "PUT", "path": "/jobs/"}, "effect": {"job": effect}},
        {"match": HISTORY, "effect": refused(403)},
    )
    job = submit_job(workspace, make_plan(workspace), TrainingSpec(), RUN)

    with pytest.raises(JobFailed, match="is Failed"):
        stream_job(workspace, job, JobSpec(), lambda line: None, clock)


def test_a_job_whose_steps_cannot_be_read_is_canceled_after_both_deadlines(
    slow_emulator: Any, slow_workspace: WorkspaceRef, job: JobRef, clock: Any
) -> None:
    """It does not bill for ever either."""

    def stall(seconds: float) -> None:
        slow_emulator.advance(seconds if sum(clock.slept) > 14 * 60 else 0)

    clock.on_sleep = stall
    slow_emulator.faults({"match": CHILDREN, "effect": says({"value": []})})

    with pytest.raises(JobDeadlineExceeded, match="do not show whether it waits or runs"):
        followed(slow_workspace, job, clock, queue_deadline_minutes=4, run_deadline_minutes=10)

    assert 14 * 60 < sum(clock.slept) < 17 * 60
    assert [] == slow_emulator.open_meters()


@pytest.mark.parametrize("status", ["Flummoxed", "NotResponding", "Paused", None])
def test_a_state_that_nobody_knows_may_pass(
    slow_emulator: Any, slow_workspace: WorkspaceRef, job: JobRef, clock: Any, status: str | None
) -> None:
    """Azure adds states, and finds a node again that did not respond."""
    body = {
        "name": job.name,
        "properties": {"jobType": "Pipeline", "displayName": "x", "status": status, "services": {}},
    }
    slow_emulator.faults({"match": JOB, "nth": [1, 2, 3], "effect": says(body)})

    result, lines, _ = followed(slow_workspace, job, clock)

    assert "Completed" == result.status
    assert any("Looking for another 10 minutes" in line for line in lines)


@pytest.mark.parametrize("status", ["Flummoxed", "NotResponding", "Paused"])
def test_a_state_that_stays_unknown_ends_the_watch(
    slow_emulator: Any, slow_workspace: WorkspaceRef, job: JobRef, clock: Any, status: str
) -> None:
    """It is named, and the job is not canceled by whoever follows it."""
    body = {
        "name": job.name,
        "properties": {"jobType": "Pipeline", "displayName": "x", "status": status, "services": {}},
    }
    clock.on_sleep = lambda seconds: None
    slow_emulator.faults({"match": JOB, "effect": says(body)})

    with pytest.raises(JobNotResponding, match=f"is {status}"):
        followed(slow_workspace, job, clock)

    assert following.UNCLEAR_SECONDS <= sum(clock.slept) < following.UNCLEAR_SECONDS + 60
    assert not any("/cancel" in row["path"] for row in slow_emulator.requests())


@pytest.mark.parametrize("status", ["completed", "COMPLETED"])
def test_a_status_is_read_without_regard_to_case(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan, clock: Any, status: str
) -> None:
    """Azure itself changes the case of words between two answers."""
    job = submit_job(workspace, make_plan(workspace), TrainingSpec(), RUN)
    body = {
        "name": job.name,
        "properties": {"jobType": "Pipeline", "displayName": "x", "status": status, "services": {}},
    }
    emulator.faults({"match": JOB, "effect": says(body)})

    result, _, warnings = followed(workspace, job, clock)

    assert "Completed" == result.status
    assert any("does not say when it took the job" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("effect", "patience"),
    [
        (refused(403), following.OUTAGE_SECONDS),
        (says(""), following.OUTAGE_SECONDS),
        (refused(404, "NotFound"), REFUSED_SECONDS),
        (refused(403, "DenyAssignmentAuthorizationFailed"), 0),
    ],
    ids=str,
)
def test_a_job_that_cannot_be_read_ends_the_watch_and_not_the_job(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    job: JobRef,
    clock: Any,
    effect: dict[str, Any],
    patience: float,
) -> None:
    """Nothing is canceled because it could not be read."""
    clock.on_sleep = lambda seconds: None
    slow_emulator.faults({"match": JOB, "effect": effect})

    with pytest.raises(ServiceError):
        followed(slow_workspace, job, clock)

    assert patience <= sum(clock.slept) < patience + 60
    assert not any("/cancel" in row["path"] for row in slow_emulator.requests())
