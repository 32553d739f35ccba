"""``sweep_endpoints``: put away what runs have left, and tell what else is up."""

# No `from __future__ import annotations`: Prefect loads this file under a module name that pydantic
# cannot look the text of an annotation up in, and every deployed run would fail on its parameters.

from datetime import timedelta
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from lifecycle.auth import WorkspaceSpec
from lifecycle.errors import ServiceError, StillBilling
from lifecycle.owners import GRACE
from tasks.auth import authenticate
from tasks.runs import tell_still_billing
from tasks.sweep import sweep_expired


def _name() -> str:
    """Say of a run what it does."""
    does = "sweep" if flow_run.parameters.get("apply") else "look for"
    return f"{does} what has outlived its run"


@flow(name="sweep-endpoints", flow_run_name=_name)
def sweep_endpoints(
    workspace: WorkspaceSpec = WorkspaceSpec(),  # noqa: B008 - frozen
    apply: Annotated[bool, Field(examples=[True])] = False,
    grace_minutes: Annotated[float, Field(ge=0, le=10_080, examples=[15])] = (
        GRACE / timedelta(minutes=1)
    ),
) -> dict[str, Any]:
    """Delete the endpoints, and cancel the jobs, of ours that have outlived their run.

    Args:
        workspace: The Azure ML workspace; environment and config.json fill what is not given.
        apply: Whether to delete and to cancel; without it the run only lists.
        grace_minutes: How long ago a run must have ended, and fallen silent, in minutes.

    Returns:
        What was found, put away and left, as JSON.

    Raises:
        StillBilling: Something that should be gone could not be seen gone.
        ServiceError: Azure does not list the endpoints, or the jobs.
    """
    result = sweep_expired(authenticate(workspace).ref, apply, grace_minutes)
    if result.failed:
        tell_still_billing(result.overdue())
        raise StillBilling(
            "; ".join(f"{failure.name}: {failure.error}" for failure in result.failed),
            resources=result.overdue(),
        )
    if not result.jobs_known:
        raise ServiceError(
            f"Whether a job is left is not known: {'; '.join(result.unread)}",
            where="workspace",
            remedy="Let this identity list the jobs: AzureML Data Scientist on the workspace.",
        )
    return result.model_dump(mode="json")
