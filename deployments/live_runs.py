"""The runs of a local stack at its two ends: none goes on when it stops, none is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from .definitions import FINETUNE, HELPERS

_POLL_SECONDS = 1.0
_BEGUN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def crash_orphans() -> None:
    """Say of each run that an earlier stack left that it has crashed; before any is served.

    That stack was killed, and its runs with it. An automation of its starts them again.
    """
    with get_client(sync_client=True) as client:
        for run in _found(client, _BEGUN):
            message = "What ran it was killed."
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def cancel_runs(seconds: float, is_served: Callable[[], bool]) -> list[str]:
    """Cancel every run, and wait for their ends.

    Schedules are paused first, else a run may begin behind our back. What waits for its turn to
    train is cancelled as well; a sweep or a restart that waits is kept for the next stack.

    Args:
        seconds: How long to wait.
        is_served: Whether somebody is left who ends runs.

    Returns:
        The runs that have not ended.
    """
    end = time.monotonic() + seconds
    said: set[str] = set()
    alive: list[FlowRun] = []
    training: list[UUID] | None = None
    with get_client(sync_client=True) as client:
        while time.monotonic() < end and is_served():
            # SQLite answers 503 now and then, and a run that has just ended says no.
            with suppress(httpx.HTTPError):
                if training is None:
                    training = _paused(client)
                waiting = _found(client, [StateType.SCHEDULED], training) if training else []
                alive = [*waiting, *_found(client, _BEGUN)]
                if not alive:
                    break
                for run in alive:
                    # One that is pending has no process yet: it will run in a moment.
                    if run.state_type in (StateType.SCHEDULED, StateType.RUNNING):
                        client.set_flow_run_state(run.id, Cancelling())
            names = {run.name for run in alive}
            if names - said:
                print(f"Cancelled, and waited for: {', '.join(sorted(names))}", flush=True)
            said |= names
            time.sleep(_POLL_SECONDS)
    return [f"{run.name} ({run.id})" for run in alive]


def _paused(client: SyncPrefectClient) -> list[UUID]:
    """Pause every schedule; return the deployments that train."""
    training = _ids(client, FINETUNE)
    for one in [*training, *_ids(client, HELPERS)]:
        client.pause_deployment(one)
    return training


def _ids(client: SyncPrefectClient, names: Iterable[str]) -> list[UUID]:
    found = []
    for name in names:
        # A stack that is stopped while it starts has not made them yet.
        with suppress(ObjectNotFound):
            found.append(client.read_deployment_by_name(name).id)
    return found


def _found(
    client: SyncPrefectClient, types: list[StateType], deployments: list[UUID] | None = None
) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)),
            deployment_id=FlowRunFilterDeploymentId(any_=deployments) if deployments else None,
        )
    )
