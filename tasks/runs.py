"""What Prefect knows of flow runs, for those who clean up after one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterTaskRunId,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Cancelled, Crashed

from lifecycle.courtesy import courtesy
from lifecycle.errors import ConfigurationError
from lifecycle.orphans import COMES_BACK
from lifecycle.owners import Owner
from lifecycle.waiting import SYSTEM_CLOCK, Clock

from .briefly import look_up

PAGE = 200
# A run whose process is being ended may still be heard of.
LAST_WORDS = timedelta(seconds=30)
# A run that lives has been heard of in this time; longer than three heartbeats.
ALIVE = timedelta(minutes=5)
# How long the start of a run's process may take.
STARTING = timedelta(hours=1)

# The lines of hours are many pages.
LOGS_SECONDS = 60.0

STILL_BILLING = "finetune.still-billing"
"""The event that says what a run may have left; its payload has the names, ``resources``."""


def tell_still_billing(resources: list[str], of: FlowRun | None = None) -> None:
    """Send the event :data:`STILL_BILLING`; where Prefect does not take it, a warning says so.

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
        courtesy(
            "sending the event about what may still be billing",
            lambda: emit_event(
                STILL_BILLING,
                resource={
                    "prefect.resource.id": "finetune.leftovers."
                    f"{flow_run.id if of is None else of.id}"
                },
                related=related,
                payload={"resources": resources},
            ),
            otherwise=None,
            instead=f"Nobody is notified of {', '.join(resources)}.",
        )


def is_cancelled(flow_run_id: str) -> bool:
    """Say whether somebody has cancelled the run, or deleted it from Prefect.

    Also False where Prefect does not answer.
    """

    def look(client: SyncPrefectClient) -> bool:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return True
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)

    return courtesy(
        "asking Prefect whether the run is cancelled",
        lambda: look_up(look),
        otherwise=False,
        instead="It is taken for one that may come back.",
    )


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

    def read(client: SyncPrefectClient) -> None:
        found = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])),
            task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=[task_run_name])),
        )
        theirs = LogFilter(task_run_id=LogFilterTaskRunId(any_=[run.id for run in found]))
        while page := client.read_logs(theirs, limit=PAGE, offset=len(lines)):
            lines.extend(line.message for line in page)

    courtesy(
        "reading what the run has logged",
        lambda: look_up(read, seconds=LOGS_SECONDS),
        otherwise=None,
        instead="Lines of the job's log may be there twice.",
    )
    return list(lines)


def owner_of(flow_run_id: str) -> Owner | None:
    """Return what Prefect knows of a run; None where it knows nothing, or does not answer."""

    def look(client: SyncPrefectClient) -> Owner | None:
        try:
            return _owner(client, client.read_flow_run(UUID(flow_run_id)))
        except (ObjectNotFound, ValueError):  # Another server's; or its tag is no id at all.
            return None

    return courtesy(
        f"asking Prefect about the run {flow_run_id}",
        lambda: look_up(look),
        otherwise=None,
        instead="It counts as one that Prefect does not know.",
    )


def _owner(client: SyncPrefectClient, run: FlowRun) -> Owner | None:
    state, states = run.state, client.read_flow_run_states(run.id)
    beats = client.read_events(
        EventFilter(
            event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
        ),
        limit=1,
    ).events
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

    One that somebody had cancelled is made Cancelled. One that gives signs of life is left: it
    could not be heard for a while, or a process worker told of an earlier attempt's crash late. It
    completes, or Prefect's engine ends it, because its place among the deployment's runs was given
    away; :func:`restart_missed` finds it then.

    Returns:
        What was done, or why nothing was.
    """
    with get_client(sync_client=True) as client:
        return _restart(client, UUID(flow_run_id), most_attempts)


def _restart(client: SyncPrefectClient, run_id: UUID, most_attempts: int) -> str:
    run = client.read_flow_run(run_id)
    if run.state is None or not run.state.is_crashed():
        return f"It is {run.state_name}: nothing to do."
    owner = _owner(client, run)
    if owner is not None and owner.state == StateType.CANCELLED.value:
        # Prefect refuses it unforced: what it says of a run's end is to be what the run's end was.
        state: State[Any] = Cancelled(message="It was cancelled, and died before it had ended.")
        client.set_flow_run_state(run_id, state, force=True)
        return "It was cancelled before it crashed: it is Cancelled."
    if owner is not None and _lives(owner):
        return "It gives signs of life: it only could not be heard for a while."
    if run.deployment_id is None:
        return "It belongs to no deployment: nobody would run it."
    if run.run_count >= most_attempts:
        return f"It was started {run.run_count} times: it stays as it is."
    now = client.read_flow_run(run_id).state
    if now is None or now.id != run.state.id:
        return "It was started by somebody else meanwhile."
    retry: State[Any] = AwaitingRetry()
    result = client.set_flow_run_state(run.id, retry)
    return f"Attempt {run.run_count + 1}: {result.status.value.lower()}."


def restart_missed(
    deployments: Iterable[str],
    crashed: timedelta,
    silent: timedelta,
    most_attempts: int,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, str]:
    """Do for these deployments' runs what an automation does that has missed no event.

    Args:
        deployments: As ``flow/deployment``.
        crashed: How long ago a run must have crashed to be started again; one of more than a day
            ago is left, since a sweep ends its job then.
        silent: How long a run that has given signs of life must be without one to have crashed, or
            to be cancelled where somebody has asked for that. It is given a fifth of that once
            more: where it was Prefect that could not be reached, a run that lives is heard of then.
        most_attempts: How often a run may be started in all.
        clock: Whose time passes.

    Returns:
        What was done with which run, or why nothing was, by its id.

    Raises:
        ConfigurationError: There is no such deployment.
    """
    done: dict[str, str] = {}
    with get_client(sync_client=True) as client:
        watched = [_deployment(client, name) for name in deployments]
        for run in _runs(client, watched, StateType.CRASHED):
            if run.state is not None and crashed < clock.now() - run.state.timestamp < COMES_BACK:
                with suppress(ObjectNotFound):  # Somebody has deleted it.
                    done[str(run.id)] = _restart(client, run.id, most_attempts)
        if _dead(client, watched, silent, clock.now()):
            clock.sleep(silent.total_seconds() / 5)
            for run, reason in _dead(client, watched, silent, clock.now()):
                with suppress(ObjectNotFound):
                    done[str(run.id)] = _said_dead(client, run, reason)
    return done


def _said_dead(client: SyncPrefectClient, run: FlowRun, reason: str) -> str:
    # From Cancelling, Prefect lets a run go nowhere else.
    is_cancelling = run.state is not None and run.state.is_cancelling()
    state: State[Any] = (Cancelled if is_cancelling else Crashed)(message=reason)
    result = client.set_flow_run_state(run.id, state)
    return f"{state.name}: {result.status.value.lower()}. {reason}"


def _dead(
    client: SyncPrefectClient, watched: list[UUID], silent: timedelta, now: datetime
) -> list[tuple[FlowRun, str]]:
    """Return the runs of these deployments that nobody is at work on any longer, and why so."""
    dead = []
    for run in _runs(client, watched, StateType.RUNNING, StateType.CANCELLING):
        owner = _owner(client, run)
        beat = owner.heartbeat_at if owner is not None else None
        if run.state and beat and now - max(beat, run.state.timestamp) > silent:
            dead.append((run, f"No heartbeat since {beat:%Y-%m-%d %H:%M:%S} UTC."))
    for run in _runs(client, watched, StateType.PENDING):
        if run.state and now - run.state.timestamp > STARTING:
            dead.append((run, f"It has not begun since {run.state.timestamp:%H:%M:%S} UTC."))
    return dead


def _deployment(client: SyncPrefectClient, name: str) -> UUID:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound as error:
        raise ConfigurationError(
            "there is no such deployment.",
            where=name,
            remedy="Name it as FLOW/DEPLOYMENT, as `prefect deployment ls` does.",
        ) from error


def _runs(client: SyncPrefectClient, of: list[UUID], *types: StateType) -> list[FlowRun]:
    """Return the newest runs of these deployments in a state of these types."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
            deployment_id=FlowRunFilterDeploymentId(any_=of),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )


def _lives(owner: Owner) -> bool:
    """Say whether a crashed run is heard of, longer after than a dying one is."""
    if owner.ended_at is None or owner.heartbeat_at is None:
        return False
    is_new = datetime.now(UTC) - owner.heartbeat_at < ALIVE
    return is_new and owner.heartbeat_at - owner.ended_at > LAST_WORDS


def has_completed(flow_run_id: str) -> bool:
    """Say whether an attempt of the run has completed; also where Prefect does not answer.

    What such an attempt kept on purpose is in use.
    """

    def look(client: SyncPrefectClient) -> bool:
        return any(state.is_completed() for state in client.read_flow_run_states(UUID(flow_run_id)))

    return courtesy(
        "asking Prefect whether the run has completed before",
        lambda: look_up(look),
        otherwise=True,
        instead="An endpoint that is tagged as kept is left alone.",
    )


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
    state = _last_state(flow_run_id, step)
    return state is not None and state is not StateType.COMPLETED


def has_begun(flow_run_id: str, step: str) -> bool:
    """Say whether a step of the run has begun; also where nobody knows. Args as above."""
    return _last_state(flow_run_id, step) is not None


def _last_state(flow_run_id: str, step: str) -> StateType | None:
    """Return the state of a step's newest task run; RUNNING where Prefect does not answer."""

    def look(client: SyncPrefectClient) -> StateType | None:
        found = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])),
            sort=TaskRunSort.EXPECTED_START_TIME_DESC,
        )
        newest = next((run for run in found if run.task_key.startswith(f"{step}-")), None)
        return None if newest is None else newest.state_type or StateType.PENDING

    unknown: StateType | None = StateType.RUNNING
    return courtesy(
        f"asking Prefect how far the step {step} is",
        lambda: look_up(look),
        otherwise=unknown,
        instead="It may be under way.",
    )
