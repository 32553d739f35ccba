"""Review the training and evaluation metrics."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import metrics as lifecycle
from lifecycle.auth import WorkspaceResult
from lifecycle.metrics import MetricsResult

from .step import step


@step(run_name="metrics of {job_name}")
def review_metrics(workspace: WorkspaceResult, job_name: str) -> MetricsResult:
    """Read the metrics of the job and its children; where that fails, a warning says so."""
    found = lifecycle.review_metrics(workspace.ref, workspace, job_name)
    logger = get_run_logger()
    for name, value in sorted(found.values.items()):
        logger.info("%s = %g", name, value)
    return found
