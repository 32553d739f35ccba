"""What Prefect knows of flow runs, for those who clean up after one."""

from __future__ import annotations

import logging
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
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.context import FlowRunContext
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound

from lifecycle.owners import Owner

PAGE = 200


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
        state=state.type.value,
        ended_at=state.timestamp if state.is_final() else None,
        heartbeat_at=beats[0].occurred if beats else None,
    )


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
