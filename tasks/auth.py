"""Sign in and find the workspace."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import auth
from lifecycle.auth import WorkspaceResult, WorkspaceSpec

from .step import step


@step()
def authenticate(workspace: WorkspaceSpec) -> WorkspaceResult:
    """Prove that a credential gives a token and that the workspace answers; facts, no token."""
    found = auth.authenticate(workspace)
    get_run_logger().info(
        "Signed in to workspace %s in %s (tenant %s)", found.ref.name, found.region, found.tenant_id
    )
    return found
