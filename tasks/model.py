"""Select the foundation model."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import model as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.model import ModelResult, ModelSpec

from .step import step


@step(remembered=True, run_name="select {model.name}")
def select_model(workspace: WorkspaceRef, model: ModelSpec) -> ModelResult:
    """Find the model in the registry: name, version, id, allow lists and defaults."""
    found = lifecycle.select_model(workspace, model)
    get_run_logger().info(
        "Foundation model %s, version %s: %s", found.name, found.version, found.id
    )
    return found
