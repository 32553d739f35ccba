"""The last step, *model converter*: the trained weights become an MLflow model."""

from __future__ import annotations

from ..packaging import package
from .model_import import ADAPTER
from .request import Events, Request


def run(request: Request, events: Events) -> None:
    """Leave the MLflow model in ``mlflow_model_folder``."""
    weights = request.upstream["model_path"]
    if (weights / ADAPTER).is_dir():
        # Only then: what merges takes ten seconds to import.
        from .finetune import merge

        merged = request.work / "merged"
        merge(weights, merged)
        weights = merged
    print("Saving the model in MLflow format")
    package(
        weights,
        request.outputs["mlflow_model_folder"],
        base_model=request.model.id,
        job=request.job,
    )
    print("Model saved")
