"""Delete endpoints of ours that have expired."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import get_run_logger

from lifecycle import sweep as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.sweep import SweepResult

from .step import step


@step()
def sweep_expired(workspace: WorkspaceRef, apply: bool) -> SweepResult:
    """List the endpoints of ours, and delete those that have expired if *apply* says so."""
    result = lifecycle.sweep(workspace, apply, datetime.now(UTC))
    logger = get_run_logger()
    for found in result.found:
        done = "deleted" if found.name in result.deleted else found.verdict
        logger.info("%s: %s, %s", found.name, done, found.reason)
    for failure in result.failed:
        logger.error("%s may still be billing: %s", failure.name, failure.error)
    return result
