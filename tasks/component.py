"""Find the pipeline component that trains."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import component as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.component import ComponentResult, TrainingSpec

from .step import step


@step(remembered=True, run_name="get {training.component}")
def get_component(workspace: WorkspaceRef, training: TrainingSpec) -> ComponentResult:
    """Find the component in the registry, with the inputs that it declares."""
    found = lifecycle.get_component(workspace, training)
    get_run_logger().info(
        "Component %s, version %s, with %d inputs", found.name, found.version, len(found.inputs)
    )
    return found
