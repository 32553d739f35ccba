"""``sweep_endpoints``: delete the endpoints of ours that have expired."""

# No `from __future__ import annotations`: Prefect loads this file under a module name that pydantic
# cannot look the text of an annotation up in, and every deployed run would fail on its parameters.

from typing import Any

from prefect import flow

from lifecycle.auth import WorkspaceSpec
from lifecycle.errors import StillBilling
from tasks.auth import authenticate
from tasks.sweep import sweep_expired


@flow(name="sweep-endpoints")
def sweep_endpoints(
    workspace: WorkspaceSpec = WorkspaceSpec(),  # noqa: B008 - frozen
    apply: bool = False,
) -> dict[str, Any]:
    """Delete the endpoints that bear our tags and have expired.

    Args:
        workspace: The Azure ML workspace; environment and config.json fill what is not given.
        apply: Whether to delete; without it the run only lists.

    Returns:
        What was found, deleted and left, as JSON.

    Raises:
        StillBilling: An expired endpoint could not be seen gone.
    """
    result = sweep_expired(authenticate(workspace).ref, apply)
    if result.failed:
        names = [f"onlineEndpoints/{failure.name}" for failure in result.failed]
        raise StillBilling(f"{len(names)} expired endpoints are left.", resources=names)
    return result.model_dump(mode="json")
