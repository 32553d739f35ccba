"""Register the trained model."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import registration as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.job import JobResult
from lifecycle.registration import RegisteredModel

from .step import step


@step(run_name="register {name}")
def register_model(workspace: WorkspaceRef, job: JobResult, name: str) -> RegisteredModel:
    """Register the job's output as an MLflow model, or adopt what is registered already."""
    model = lifecycle.register_model(workspace, job, name)
    get_run_logger().info("Registered model %s, version %s", model.name, model.version)
    return model
