"""What Prefect does by itself: when a run ends badly, and when data changes.

Four automations, made or brought up to date:

- a run whose heartbeats stop is marked Crashed (the open-source server does not do that itself);
- a run that crashed is started again, and comes back to its training job;
- after a run that ended in any way but well, and past the grace, a sweep looks for what it left;
- the event ``finetune.data-changed`` starts a retraining.

Prefect may fire an automation twice for one event: what they start is harmless to start twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.events import ResourceSpecification

from lifecycle.owners import GRACE

from .definitions import FINETUNE, HEARTBEAT_SECONDS, RESTART, RETRAIN, SWEEP

DATA_CHANGED = "finetune.data-changed"
"""The event that starts a retraining, whoever sends it and about whatever resource."""

RESTART_AFTER = timedelta(seconds=90)
"""How long after its crash a run is started again.

Longer than a heartbeat, so that one which only could not be heard is known by its next. And a
process worker says a second time that the run has crashed, when the hook of the first has ended,
which takes a minute where an endpoint was being created; an attempt that was at work by then would
be ended by it.
"""

_LATE_HEARTBEATS = 3
_RUN = "prefect.flow-run."
# By the names of states, and not by their types: ours is a COMPLETED that is named for its trouble.
_BADLY = ("Crashed", "Cancelled", "Failed", "TimedOut", "StillBilling")
# In these nothing of a run is alive, or none of it ought to be.
_AT_REST = ("Completed", *_BADLY, "AwaitingRetry", "Paused", "Suspended")


def ensure_automations(
    *,
    finetune: Iterable[str] = FINETUNE,
    sweep: str = SWEEP,
    restart: str = RESTART,
    retrain: str = RETRAIN,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    grace: timedelta = GRACE,
    restart_after: timedelta = RESTART_AFTER,
) -> list[str]:
    """Make the automations, or bring them up to date, and return their names.

    Args:
        finetune: The deployments whose runs are looked after, as ``flow/deployment``.
        sweep: The deployment that sweeps.
        restart: The deployment that starts crashed runs again.
        retrain: The deployment that is run when data has changed.
        heartbeat_seconds: How often those runs give a sign of life.
        grace: How long after a run's end a sweep comes.
        restart_after: How long after its crash a run is started again.

    Raises:
        prefect.exceptions.ObjectNotFound: There is no such deployment.
    """
    with get_client(sync_client=True) as client:

        def id_of(name: str) -> UUID:
            return client.read_deployment_by_name(name).id

        watched = [id_of(name) for name in finetune]
        automations = [
            lost_heartbeat(watched, timedelta(seconds=heartbeat_seconds)),
            restart_after_crash(watched, id_of(restart), restart_after),
            sweep_after_run(watched, id_of(sweep), grace),
            retrain_on_new_data(id_of(retrain)),
        ]
        for automation in automations:
            put_automation(client, automation)
    return [automation.name for automation in automations]


def lost_heartbeat(watched: Iterable[UUID], heartbeat: timedelta) -> AutomationCore:
    """Mark a run Crashed that has missed three heartbeats: fewer would be bad luck."""
    within = heartbeat * _LATE_HEARTBEATS
    return AutomationCore(
        name="finetune: a run whose heartbeats stop has crashed",
        description=f"No sign of life for {within.total_seconds():.0f} s",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": f"{_RUN}*"}),
            match_related=_of(watched),
            for_each={"prefect.resource.id"},
            # Retrying: what Running is called when a run is started again.
            after={_RUN + name for name in ("heartbeat", "Running", "Retrying")},
            expect={_RUN + name for name in ("heartbeat", *_AT_REST)},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"No heartbeat for {within.total_seconds():.0f} seconds.",
            )
        ],
    )


def restart_after_crash(
    watched: Iterable[UUID], restart: UUID, after: timedelta = RESTART_AFTER
) -> AutomationCore:
    """Start a run again that has crashed, a few times at most (`flows/restart.py` counts)."""
    run_id = {"__prefect_kind": "jinja", "template": "{{ flow_run.id }}"}
    return AutomationCore(
        name="finetune: a crashed run is started again",
        trigger=on_states(["Crashed"], watched),
        actions=[_run(restart, {"flow_run_id": run_id}, after=after)],
    )


def sweep_after_run(watched: Iterable[UUID], sweep: UUID, grace: timedelta) -> AutomationCore:
    """Sweep when the grace of a run that ended badly is over."""
    return AutomationCore(
        name="finetune: a sweep follows a run that ended badly",
        trigger=on_states(_BADLY, watched),
        actions=[_run(sweep, {"apply": True}, after=grace + timedelta(minutes=1))],
    )


def retrain_on_new_data(retrain: UUID) -> AutomationCore:
    """Run *retrain* when somebody says that data has changed."""
    return AutomationCore(
        name="finetune: new data starts a retraining",
        description=f"prefect event emit {DATA_CHANGED} --resource-id DATA",
        trigger=EventTrigger(expect={DATA_CHANGED}, posture=Posture.Reactive, threshold=1),
        actions=[_run(retrain, {})],
    )


def on_states(states: Iterable[str], watched: Iterable[UUID]) -> EventTrigger:
    """Return what fires when a run of *watched* comes into a state of one of these names."""
    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": f"{_RUN}*"}),
        match_related=_of(watched),
        expect={_RUN + name for name in states},
        posture=Posture.Reactive,
        threshold=1,
    )


def on_event(event: str, watched: Iterable[UUID]) -> EventTrigger:
    """Return what fires when a run of *watched* sends this event."""
    return EventTrigger(
        match_related=_of(watched), expect={event}, posture=Posture.Reactive, threshold=1
    )


def _run(
    deployment: UUID, parameters: dict[str, Any], after: timedelta = timedelta(0)
) -> RunDeployment:
    return RunDeployment(
        source="selected",
        deployment_id=deployment,
        parameters=parameters,
        job_variables=None,
        schedule_after=after,
    )


def _of(watched: Iterable[UUID]) -> ResourceSpecification:
    return ResourceSpecification(
        {
            "prefect.resource.role": "deployment",
            "prefect.resource.id": [f"prefect.deployment.{one}" for one in watched],
        }
    )


def put_automation(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Make an automation, or bring the one of its name up to date."""
    found = client.read_automations_by_name(automation.name)
    for one in found[:1]:
        client.update_automation(one.id, automation)
    for one in found[1:]:
        client.delete_automation(one.id)
    if not found:
        client.create_automation(automation)


def take_automation_away(client: SyncPrefectClient, name: str) -> bool:
    """Delete an automation that may be there, and say whether it was."""
    found = client.read_automations_by_name(name)
    for one in found:
        client.delete_automation(one.id)
    return bool(found)
