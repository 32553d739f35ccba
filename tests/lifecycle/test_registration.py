"""The trained model is registered once, under a version that a repeated call finds again."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.errors import RegistrationError, ServiceError
from lifecycle.job import JobResult
from lifecycle.registration import register_model

NAME = "Phi-4-mini-instruct-chats"
MODEL_PUT = {"method": "PUT", "path": "/models/[^/]+/versions/[^/]+$"}
SOON = {"Retry-After": "0.01"}


def puts(emulator: Any) -> list[int]:
    """Statuses of the requests that registered a model."""
    return [
        row["status"]
        for row in emulator.requests()
        if row["method"] == "PUT" and "/models/" in row["path"]
    ]


def occupy(ref: WorkspaceRef, job: JobResult, *, owner: str, kind: str) -> int:
    """Register something else as the version that would be the job's."""
    from azure.ai.ml.entities import Model

    version = int(job.created_at.timestamp())
    model = Model(
        name=NAME,
        version=str(version),
        path=f"azureml://jobs/{job.name}/outputs/trained_model",
        type=kind,
        tags={"finetune-job": owner},
    )
    ml_client(ref).models.create_or_update(model)
    return version


def test_the_jobs_output_becomes_an_mlflow_model(
    workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """Its version is the second in which Azure took the job; its tags tell where it is from."""
    registered = register_model(workspace, completed_job, NAME)
    model = ml_client(workspace).models.get(NAME, version=registered.version)

    assert str(int(completed_job.created_at.timestamp())) == registered.version
    assert int(registered.version) < 2**31
    assert model.id == registered.id
    assert "mlflow_model" == model.type
    assert {
        "finetune-owner": completed_job.owner,
        "finetune-job": completed_job.name,
        "finetune-base-model": completed_job.base_model,
    } == dict(model.tags)


def test_a_repeated_call_adopts_what_is_there(
    emulator: Any, workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """A retried run makes no second version."""
    first = register_model(workspace, completed_job, NAME)
    again = register_model(workspace, completed_job, NAME)

    assert first == again
    assert 1 == len(puts(emulator))


def test_a_version_of_another_job_is_left_alone(
    workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """Two jobs of one second, or a model of somebody else's: the next version is taken."""
    first = occupy(workspace, completed_job, owner="ft-other-a1", kind="mlflow_model")

    registered = register_model(workspace, completed_job, NAME)

    assert first + 1 == int(registered.version)
    assert registered == register_model(workspace, completed_job, NAME)
    assert "ft-other-a1" == ml_client(workspace).models.get(NAME, str(first)).tags["finetune-job"]


def test_a_model_registered_by_half_is_not_adopted(
    workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """A version of this job that is no MLflow model would fail only once it is deployed."""
    occupy(workspace, completed_job, owner=completed_job.name, kind="custom_model")

    with pytest.raises(RegistrationError):
        register_model(workspace, completed_job, NAME)


def test_a_lost_answer_makes_no_second_version(
    emulator: Any, workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """Azure registered it and the answer never came."""
    emulator.faults(
        {
            "match": MODEL_PUT,
            "nth": [1, 2, 3, 4],
            "effect": {"status": 503, "after": True, "headers": SOON},
        }
    )
    with pytest.raises(ServiceError) as failure:
        register_model(workspace, completed_job, NAME)
    registered = register_model(workspace, completed_job, NAME)

    assert failure.value.transient
    assert str(int(completed_job.created_at.timestamp())) == registered.version


def test_a_refused_model_is_a_registration_error(
    emulator: Any, workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """Azure's words, and that the job's output is kept."""
    emulator.faults({"match": MODEL_PUT, "effect": {"status": 400}})
    with pytest.raises(RegistrationError, match="output is kept") as failure:
        register_model(workspace, completed_job, NAME)

    assert NAME == failure.value.where


def test_a_job_without_that_output_is_a_registration_error(
    workspace: WorkspaceRef, completed_job: JobResult
) -> None:
    """The path is not found, as users report."""
    nobody = completed_job.model_copy(update={"name": "ft-nothing-a1"})

    with pytest.raises(RegistrationError):
        register_model(workspace, nobody, NAME)
