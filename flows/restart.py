"""``restart_crashed_run``: start a run again whose process died; it comes back to its job."""

# No `from __future__ import annotations`: see flows/finetune.py.

from typing import Annotated
from uuid import UUID

from prefect import flow
from pydantic import Field

from tasks.runs import restart

MOST_ATTEMPTS = 3


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
