"""What Prefect knows of flow runs, for those who clean up after one."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterTaskRunId,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry

from lifecycle.owners import Owner

PAGE = 200
# A run whose process is being ended may still be heard of.
LAST_WORDS = timedelta(seconds=30)

STILL_BILLING = "finetune.still-billing"
"""The event that says what a run may have left; its payload has the names, ``resources``."""


def tell_still_billing(resources: list[str], of: FlowRun | None = None) -> None:
    """Send the event :data:`STILL_BILLING`.

    Args:
        resources: What may be left, as ``onlineEndpoints/name``; nothing is sent of nothing.
        of: The run that left it; that in which this is called, where not given.
    """
    about = {} if of is None else {"flow-run": of.id, "deployment": of.deployment_id}
    related = [
        {"prefect.resource.id": f"prefect.{role}.{one}", "prefect.resource.role": role}
        for role, one in about.items()
        if one is not None
    ]
    if resources:
        emit_event(
            STILL_BILLING,
            resource={
                "prefect.resource.id": f"finetune.leftovers.{flow_run.id if of is None else of.id}"
            },
            related=related,
            payload={"resources": resources},
        )


def is_cancelled(flow_run_id: str) -> bool:
    """Say whether somebody has cancelled the run; also False where Prefect does not answer."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run_id)).state
    except httpx.HTTPError:
        return False
    return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)


def has_retries_left() -> bool:
    """Say whether the flow run that this is called in would be tried again if it failed now."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return False
    return context.flow_run.run_count <= (context.flow.retries or 0)


def logged_by(flow_run_id: str, task_run_name: str) -> list[str]:
    """Return what the run has logged in task runs of this name, oldest first.

    Nothing where Prefect does not answer: a line that is logged twice is better than none.
    """
    for handler in logging.getLogger("prefect.task_runs").handlers:
        handler.flush()  # What this process has logged is sent in batches.
    lines: list[str] = []
    try:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])),
                task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=[task_run_name])),
            )
            theirs = LogFilter(task_run_id=LogFilterTaskRunId(any_=[run.id for run in found]))
            while page := client.read_logs(theirs, limit=PAGE, offset=len(lines)):
                lines += [line.message for line in page]
    except httpx.HTTPError as error:
        get_run_logger().warning("Lines may be logged twice: Prefect does not answer: %r", error)
    return lines


def owner_of(flow_run_id: str) -> Owner | None:
    """Return what Prefect knows of a run; None where it knows nothing, or does not answer."""
    try:
        run_id = UUID(flow_run_id)
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
            states = client.read_flow_run_states(run_id)
            beats = client.read_events(
                EventFilter(
                    event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
                    resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]),
                ),
                limit=1,
            ).events
    except (ValueError, ObjectNotFound, httpx.HTTPError):
        return None
    if state is None:
        return None
    return Owner(
        # A cancel whose runner died with it ends as a crash, when the heartbeats are missed.
        state="CANCELLED" if _was_cancelled(states) else state.type.value,
        # One that is to be started again does nothing until it is, which may take long.
        ended_at=_last_end(states)
        if state.is_final() or state.is_scheduled() or state.is_pending()
        else None,
        heartbeat_at=beats[0].occurred if beats else None,
    )


def restart(flow_run_id: str, most_attempts: int) -> str:
    """Have a crashed run started again by whoever runs its deployment, as *Retry* in the UI does.

    Returns:
        What was done, or why nothing was.
    """
    retry: State[Any] = AwaitingRetry()
    owner = owner_of(flow_run_id)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run_id))
        if run.state is None or not run.state.is_crashed():
            return f"It is {run.state_name}: nothing to do."
        if owner is not None and _lives(owner):
            return "It gives signs of life: it only could not be heard for a while."
        if _was_cancelled(client.read_flow_run_states(run.id)):
            return "It was cancelled before it crashed: it stays as it is."
        if run.deployment_id is None:
            return "It belongs to no deployment: nobody would run it."
        if run.run_count >= most_attempts:
            return f"It was started {run.run_count} times: it stays as it is."
        result = client.set_flow_run_state(run.id, retry)
    return f"Attempt {run.run_count + 1}: {result.status.value.lower()}."


def _lives(owner: Owner) -> bool:
    """Say whether a crashed run has been heard of since, longer after than a dying one is."""
    if owner.ended_at is None or owner.heartbeat_at is None:
        return False
    return owner.heartbeat_at - owner.ended_at > LAST_WORDS


def has_completed(flow_run_id: str) -> bool:
    """Say whether an attempt of the run has completed; also where Prefect does not answer.

    What such an attempt kept on purpose is in use.
    """
    try:
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(UUID(flow_run_id))
    except httpx.HTTPError:
        return True
    return any(state.is_completed() for state in states)


def _was_cancelled(history: list[State[Any]]) -> bool:
    """Say whether the state before its last was Cancelling."""
    states = sorted(history, key=lambda state: state.timestamp)
    return len(states) > 1 and states[-1].is_crashed() and states[-2].is_cancelling()


def _last_end(states: list[State[Any]]) -> datetime | None:
    return max((state.timestamp for state in states if state.is_final()), default=None)


def is_under_way(flow_run_id: str, step: str) -> bool:
    """Say whether a step of the run has begun and not completed; also where nobody knows.

    Its process may have died in it, and what it sent to Azure may take effect yet.

    Args:
        flow_run_id: The flow run's id.
        step: The name of its task.
    """
    try:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])),
                sort=TaskRunSort.EXPECTED_START_TIME_DESC,
            )
    except httpx.HTTPError:
        return True
    newest = next((run for run in found if run.task_key.startswith(f"{step}-")), None)
    return newest is not None and newest.state_type is not StateType.COMPLETED
