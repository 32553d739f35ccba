"""Step 9, *registration*: the job's output becomes a version of a model in the workspace, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from lifecycle import clients
from lifecycle.azure import find, translated
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import RegistrationError, ServiceError
from lifecycle.job import BASE_MODEL_TAG, JOB_OUTPUT, OWNER_TAG, JobResult
from lifecycle.plain import Result

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model

JOB_TAG = "finetune-job"

_TRIES = 20


class RegisteredModel(Result):
    """A version of a model in the workspace."""

    name: str = Field(
        title="Model", description="Name.", examples=["Phi-4-mini-instruct-ultrachat-200k"]
    )
    version: str = Field(title="Version", description="Digits.", examples=["1795251600"])
    id: str = Field(title="Asset id", description="What a deployment names it by.")


def register_model(ref: WorkspaceRef, job: JobResult, name: str) -> RegisteredModel:
    """Register the trained model of a completed job, or adopt what is registered already.

    The version is the second in which Azure took the job, so that a repeated call comes to the
    same version, and newer jobs to higher ones, as in Microsoft's tutorial. Where another job of
    the same second has it, it is the next that is free. Version and job are tied by a tag.

    Args:
        ref: The workspace.
        job: What :func:`lifecycle.job.stream_job` returned.
        name: The model's name.

    Raises:
        RegistrationError: The job has no such output, Azure refused the model, or what it
            registered is not the job's output.
        ServiceError: Azure did not answer.
    """
    path = f"azureml://jobs/{job.name}/outputs/{JOB_OUTPUT}"
    first = int(job.created_at.timestamp())
    for version in range(first, first + _TRIES):
        model = _find(ref, name, str(version))
        if model is not None and (model.tags or {}).get(JOB_TAG) != job.name:
            continue
        if model is None or not _is_whole(model):
            _create(ref, job, name, str(version), path)
            model = _find(ref, name, str(version))
        if model is None or not _is_whole(model):
            raise RegistrationError(
                f"Azure took version {version} of {name}, and does not give it back whole.",
                where=name,
            )
        return RegisteredModel(name=name, version=str(version), id=str(model.id))
    raise RegistrationError(
        f"The versions {first} to {first + _TRIES - 1} of {name} belong to other jobs.",
        where=name,
        remedy="Register under another name: set dataset.model_suffix.",
    )


def _find(ref: WorkspaceRef, name: str, version: str) -> Model | None:
    return find(
        f"looking for version {version} of the model {name}",
        name,
        lambda: clients.ml_client(ref).models.get(name, version=version),
    )


def _is_whole(model: Model) -> bool:
    """Say whether the service finished what it registered: with a path, and as an MLflow model."""
    return bool(model.path) and model.type == "mlflow_model"


def _create(ref: WorkspaceRef, job: JobResult, name: str, version: str, path: str) -> None:
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    model = Model(
        path=path,
        type=AssetTypes.MLFLOW_MODEL,
        name=name,
        version=version,
        description=f"Fine-tuned by {job.display_name}",
        tags={OWNER_TAG: job.owner, JOB_TAG: job.name, BASE_MODEL_TAG: job.base_model},
    )
    try:
        with translated(f"registering the model {name}", where=name, not_found=RegistrationError):
            clients.ml_client(ref).models.create_or_update(model)
    except ServiceError as error:
        if error.transient:
            raise
        raise RegistrationError(error.message, where=name) from error
