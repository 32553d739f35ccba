"""The workspace's models: registering a job's output, versions, archiving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azureml_emulator import settings as names

from tests.conftest import RunningEmulator
from tests.emulator.submitting import Jobs, body, jobs_catalog

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@pytest.fixture
def jobs(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """One completed job."""
    jobs = Jobs(start_emulator(catalog=jobs_catalog(tmp_path)))
    jobs.submit("ft-1")
    return jobs


@pytest.fixture
def client(jobs: Jobs) -> MLClient:
    """The SDK's own client, by the environment alone."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(
        DefaultAzureCredential(),
        names.SUBSCRIPTION_ID,
        names.RESOURCE_GROUP,
        names.WORKSPACE_NAME,
        enable_telemetry=False,
    )


def register(jobs: Jobs, version: str = "1", **properties: Any) -> requests.Response:
    """Send the PUT of a model version."""
    given = {
        "modelUri": "azureml://jobs/ft-1/outputs/trained_model",
        "modelType": "mlflow_model",
        "isArchived": False,
    } | properties
    return jobs.wire("PUT", f"models/tuned/versions/{version}", {"properties": given})


def test_a_jobs_output_becomes_a_model(client: MLClient) -> None:
    """The model lies where the job left it, knows its job, and has the folder's flavors."""
    from azure.ai.ml.entities import Model

    made = client.models.create_or_update(
        Model(
            path="azureml://jobs/ft-1/outputs/trained_model",
            type="mlflow_model",
            name="tuned",
            version="1700000000",
            tags={"finetune-owner": "run-1"},
        )
    )

    assert f"{names.WORKSPACE_ID}/models/tuned/versions/1700000000" == made.id
    assert str(made.path).endswith(
        "datastores/workspaceblobstore/paths/azureml/ft-1/trained_model/"
    )
    assert ("ft-1", {"finetune-owner": "run-1"}) == (made.job_name, made.tags)
    assert "python_function" in made.flavors
    assert "1700000000" == client.models.get("tuned", label="latest").version


def test_the_steps_output_may_be_named_instead(jobs: Jobs) -> None:
    """The converter step is a job too, and its output the same folder."""
    converter = jobs.steps("ft-1")["ft_nlp_model_converter"]["runId"]
    made = register(jobs, modelUri=f"azureml://jobs/{converter}/outputs/mlflow_model_folder")

    properties = made.json()["properties"]
    assert (201, "ft-1") == (made.status_code, properties["jobName"])
    assert properties["modelUri"].endswith("/ft-1/trained_model/")


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("azureml://jobs/none/outputs/trained_model", "JobNotFound"),
        ("azureml://jobs/ft-1/outputs/none", "NoMatchingArtifactsFoundFromJob"),
        (
            "azureml://datastores/workspaceblobstore/paths/nowhere/",
            "ModelAssetPathNotFoundInStorage",
        ),
    ],
)
def test_what_is_not_there_cannot_be_registered(jobs: Jobs, uri: str, code: str) -> None:
    """Azure's 400 hides the reason in its details; no model is left behind."""
    refused = register(jobs, modelUri=uri)

    assert 400 == refused.status_code
    assert [code] == [detail["code"] for detail in refused.json()["error"]["details"]]
    assert 404 == jobs.wire("GET", "models/tuned/versions/1").status_code


def test_a_failed_job_has_no_output(jobs: Jobs) -> None:
    """Nor has one that still runs: the output is there when the job is Completed."""
    jobs.submit("ft-2", body({"apply_lora": "maybe"}))
    refused = register(jobs, modelUri="azureml://jobs/ft-2/outputs/trained_model")

    details = refused.json()["error"]["details"]
    assert "NoMatchingArtifactsFoundFromJob" == details[0]["code"]


def test_an_mlflow_model_needs_its_mlmodel_file(jobs: Jobs) -> None:
    """A folder without one is refused under that type."""
    jobs.upload("azureml://datastores/workspaceblobstore/paths/plain/weights.bin", "x")
    refused = register(jobs, modelUri="azureml://datastores/workspaceblobstore/paths/plain/")

    assert "MLModelFileNotFound" == refused.json()["error"]["details"][0]["code"]


def test_a_version_keeps_its_place(jobs: Jobs) -> None:
    """The same registration again is taken, another one under the version is not."""
    jobs.submit("ft-2")
    statuses = [
        register(jobs).status_code,
        register(jobs, description="better").status_code,
        register(jobs, modelUri="azureml://jobs/ft-2/outputs/trained_model").status_code,
    ]

    assert [201, 200, 400] == statuses
    kept = jobs.wire("GET", "models/tuned/versions/1").json()["properties"]
    assert ("better", "ft-1") == (kept["description"], kept["jobName"])


def test_versions_are_listed_newest_first(jobs: Jobs, client: MLClient) -> None:
    """And an archived one only when it is asked for."""
    for version in ("1", "2", "3"):
        register(jobs, version)
    client.models.archive("tuned", "2")

    assert ["3", "1"] == [model.version for model in client.models.list("tuned")]
    everything = client.models.list("tuned", list_view_type="All")
    assert ["3", "2", "1"] == [model.version for model in everything]


def test_a_model_may_be_archived_whole(jobs: Jobs, client: MLClient) -> None:
    """It goes from the list of models and can be brought back."""
    register(jobs)
    client.models.archive("tuned")
    without = [model.name for model in client.models.list()]
    client.models.restore("tuned")

    assert ([], ["tuned"]) == (without, [model.name for model in client.models.list()])


def test_without_a_version_the_next_one_is_taken(client: MLClient) -> None:
    """The SDK asks the container for it."""
    from azure.ai.ml.entities import Model

    path = "azureml://jobs/ft-1/outputs/trained_model"
    made = [
        client.models.create_or_update(Model(path=path, type="mlflow_model", name="tuned")).version
        for _ in range(2)
    ]

    assert ["1", "2"] == made


def test_a_folder_of_ones_own_becomes_a_model(client: MLClient, tmp_path: Path) -> None:
    """The SDK uploads it, then registers the upload."""
    from azure.ai.ml.entities import Model

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"x")
    made = client.models.create_or_update(Model(path=folder, type="custom_model", name="own"))

    assert ("1", "custom_model") == (made.version, made.type)


def test_unknown_models_are_404(jobs: Jobs) -> None:
    """A version and a container alike."""
    assert 404 == jobs.wire("GET", "models/none/versions/1").status_code
    assert 404 == jobs.wire("GET", "models/none").status_code
