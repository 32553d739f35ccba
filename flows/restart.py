"""Start a run again whose process died: told which, or by a look at all; it comes back to its job.

``restart_crashed_run`` is what an automation runs when Prefect says Crashed. An event that
Prefect's server has lost fires no automation, so ``restart_missed_runs`` looks at the states.
"""

# No `from __future__ import annotations`: see flows/finetune.py.

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from prefect import flow, get_run_logger
from pydantic import Field

from tasks.runs import restart, restart_missed

MOST_ATTEMPTS = 3
# Later than the automations, which are the first to act.
CRASHED_MINUTES = 5.0
SILENT_MINUTES = 10.0


@flow(name="restart-crashed-run", flow_run_name="restart {flow_run_id}")
def restart_crashed_run(
    flow_run_id: Annotated[UUID, Field(examples=["00000000-0000-0000-0000-000000000000"])],
    most_attempts: Annotated[int, Field(ge=1, le=100, examples=[3])] = MOST_ATTEMPTS,
) -> str:
    """Start a crashed run again, as *Retry* in the UI does; an automation runs this.

    It is harmless to run this twice. A run that a person ended is not started again.

    Args:
        flow_run_id: Id of the run that crashed.
        most_attempts: How often a run may be started in all: one that dies of its own doing must
            not be started for ever.

    Returns:
        What was done, or why nothing was.
    """
    return restart(str(flow_run_id), most_attempts)


@flow(name="restart-missed-runs", flow_run_name="restart what no automation has")
def restart_missed_runs(
    deployments: Annotated[
        list[str], Field(min_length=1, examples=[["finetune-chat-model/retrain"]])
    ],
    crashed_minutes: Annotated[float, Field(ge=0, le=1_440, examples=[5])] = CRASHED_MINUTES,
    silent_minutes: Annotated[float, Field(ge=1, le=1_440, examples=[10])] = SILENT_MINUTES,
    most_attempts: Annotated[int, Field(ge=1, le=100, examples=[3])] = MOST_ATTEMPTS,
) -> dict[str, str]:
    """Start crashed runs again that no automation has, and find the dead that none has found.

    Args:
        deployments: Whose runs are looked at, as flow/deployment.
        crashed_minutes: How long ago a run must have crashed, in minutes; longer than an automation
            takes.
        silent_minutes: How long a run must have given no sign of life to be marked Crashed, in
            minutes; more than three heartbeats.
        most_attempts: How often a run may be started in all.

    Returns:
        What was done with which run, or why nothing was, by its id.

    Raises:
        ConfigurationError: There is no such deployment.
    """
    done = restart_missed(
        deployments,
        crashed=timedelta(minutes=crashed_minutes),
        silent=timedelta(minutes=silent_minutes),
        most_attempts=most_attempts,
    )
    for run, what in done.items():
        get_run_logger().info("%s: %s", run, what)
    return done
