"""The registry: models and components as the SDK reads them, today and in 2024."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names
from azureml_emulator.weights import STANDIN, describe

from tests.conftest import RunningEmulator
from tests.emulator.conftest import Wire

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

PHI_3 = "Phi-3-mini-4k-instruct"
DATA_PLANE = f"/mferp/managementfrontend{names.REGISTRY_ID}"


def _client() -> MLClient:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(DefaultAzureCredential(), registry_name=names.REGISTRY_NAME)


@pytest.fixture
def registry(emulator: RunningEmulator) -> MLClient:
    """The SDK's client of today's registry."""
    return _client()


def test_latest_is_the_version_made_last(registry: MLClient) -> None:
    """The label resolves by date of creation: 15, where comparing text would say 2 or 9."""
    found = registry.models.get(PHI_3, label="latest")

    assert f"azureml://registries/azureml/models/{PHI_3}/versions/15" == found.id
    assert ["15", "1"] == [one.version for one in registry.models.list(PHI_3)]


def test_a_fixed_version_is_found_in_any_case(registry: MLClient) -> None:
    """A name in another case is the same model, and keeps its own spelling."""
    found = registry.models.get(PHI_3.lower(), version="1")

    assert (PHI_3, "1", "mlflow_model") == (found.name, found.version, found.type)


def test_tags_are_text_that_holds_python(registry: MLClient) -> None:
    """Lists and tables among the tags arrive as the text Python writes for them."""
    latest = registry.models.get(PHI_3, label="latest")
    first = registry.models.get(PHI_3, version="1")
    defaults = ast.literal_eval(latest.tags["model_specific_defaults"])
    allowed = ast.literal_eval(first.tags["finetune_compute_allow_list"])

    assert ("5e-6", "5e-7", "5e-5") == tuple(
        defaults[f"learning_rate{suffix}"] for suffix in ("", "_min", "_max")
    )
    assert (2, "true", 16) == tuple(
        defaults[name] for name in ("deepspeed_stage", "apply_lora", "precision")
    )
    assert "Standard_ND40rs_v2" == allowed[0]


def test_supported_computes_are_in_the_system_metadata(emulator: RunningEmulator) -> None:
    """The allow lists that left the tags in June 2026 are on the wire, and so is retirement."""
    answer = Wire(emulator)("GET", f"{DATA_PLANE}/models/{PHI_3}/versions/15").json()
    metadata = answer["properties"]["system_metadata"]

    assert "Standard_NC24ads_A100_v4" in metadata["supportedComputes"]["finetuneComputes"]
    assert "Standard_NC6s_v3" in metadata["supportedComputes"]["inferenceComputes"]
    assert metadata["deprecation"]["finetuneRetirementDate"].startswith("2025-08-30")
    assert answer["properties"]["isArchived"]


def test_a_description_says_what_really_backs_the_model(
    start_emulator: Callable[..., RunningEmulator],
) -> None:
    """Nobody takes a stand-in, or another's weights, for the model whose name it goes by."""
    start_emulator(jobs="train", weights={"phi-4": STANDIN})
    registry = _client()
    said = {
        name: str(registry.models.get(name, label="latest").description)
        for name in (PHI_3, "SmolLM2-135M-Instruct", "Phi-4")
    }

    assert "3.8 billion parameters" in said[PHI_3]
    assert said[PHI_3].endswith(describe("tiny"))
    assert said["SmolLM2-135M-Instruct"].endswith(describe("smollm2"))
    assert said["Phi-4"].endswith("it is the local model standin (Phi3ForCausalLM).")


def test_a_scripted_emulator_claims_no_model(registry: MLClient) -> None:
    """Where nothing is trained and nothing replies, the description says so."""
    found = registry.models.get("Phi-4", label="latest")

    assert str(found.description).endswith("training and replies are scripted.")


def test_a_folder_under_a_new_name_is_a_model_of_the_registry(
    start_emulator: Callable[..., RunningEmulator],
) -> None:
    """The user's own model is listed, and runs on every GPU size that is sold."""
    emulator = start_emulator(weights={"my-model": STANDIN})
    found = _client().models.get("my-model", label="latest")
    answer = Wire(emulator)("GET", f"{DATA_PLANE}/models/my-model/versions/1").json()
    sizes = answer["properties"]["system_metadata"]["supportedComputes"]["finetuneComputes"]

    assert ("1", "mlflow_model") == (found.version, found.type)
    assert "Standard_NC4as_T4_v3" in sizes
    assert "Standard_D2_v2" not in sizes


def test_archived_models_are_not_listed(registry: MLClient) -> None:
    """The list of models shows those in service, though an archived one can still be read."""
    assert [
        "Phi-4",
        "Phi-4-mini-instruct",
        "SmolLM2-135M-Instruct",
        "tiny-phi3-stand-in",
    ] == [one.name for one in registry.models.list()]
    assert "15" == registry.models.get(PHI_3, version="15").version


@pytest.mark.parametrize("view", ["ArchivedOnly", "ActiveOnly", "All"])
def test_list_views(emulator: RunningEmulator, view: str) -> None:
    """``listViewType`` chooses between archived, active and all versions."""
    answer = Wire(emulator)("GET", f"{DATA_PLANE}/models/{PHI_3}/versions?listViewType={view}")

    assert (0 if view == "ActiveOnly" else 2) == len(answer.json()["value"])


def test_a_bad_page_size_is_refused(emulator: RunningEmulator) -> None:
    """What is no number is the caller's mistake, 400, and not the emulator's, 500."""
    answer = Wire(emulator)("GET", f"{DATA_PLANE}/models/{PHI_3}/versions?$top=all")

    assert (400, "$top") == (answer.status_code, answer.json()["error"]["target"])


def test_the_component_declares_its_inputs(registry: MLClient) -> None:
    """All 69 inputs arrive with type, default, enum and minimum as the SDK understands them."""
    found = registry.components.get("chat_completion_pipeline", label="latest")
    inputs: dict[str, Any] = found.inputs

    assert 69 == len(inputs)
    assert ("integer", 1, 1) == tuple(
        inputs["num_train_epochs"][name] for name in ("type", "default", "min")
    )
    assert ["2", "3"] == inputs["deepspeed_stage"]["enum"]
    assert ["ChatCompletion"] == inputs["task_name"]["enum"]
    assert "mlflow_model" == inputs["mlflow_model_path"]["type"]
    assert {"pytorch_model_folder", "mlflow_model_folder"} == set(found.outputs)


def test_a_job_can_be_built_of_the_component(registry: MLClient) -> None:
    """The component that was fetched makes a pipeline, and refuses an input it does not declare."""
    from azure.ai.ml.dsl import pipeline
    from azure.ai.ml.exceptions import UnexpectedKeywordError

    component = registry.components.get("chat_completion_pipeline", version="0.0.82")

    @pipeline  # type: ignore[untyped-decorator]
    def build() -> dict[str, Any]:
        node = component(num_train_epochs=1, apply_lora="true")
        return {"trained_model": node.outputs.mlflow_model_folder}

    assert component.id == build().jobs["node"].component.id
    with pytest.raises(UnexpectedKeywordError, match="learning_rate_min"):
        component(learning_rate_min="5e-7")


@pytest.mark.parametrize("kind", ["models", "components"])
def test_what_is_not_there_is_not_found(registry: MLClient, kind: str) -> None:
    """An unknown name or version is a 404 of the SDK's own kind, naming what was asked for."""
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    operations = getattr(registry, kind)
    known = {"models": PHI_3, "components": "chat_completion_pipeline"}[kind]

    with pytest.raises(ResourceNotFoundError, match="nobodys"):
        operations.get("nobodys", version="1")
    with pytest.raises(ResourceNotFoundError, match="999"):
        operations.get(known, version="999")
    with pytest.raises(HttpResponseError, match="nobodys") as raised:
        operations.get("nobodys", label="latest")
    assert 404 == raised.value.status_code


def test_the_registry_of_2024(start_emulator: Callable[..., RunningEmulator]) -> None:
    """The catalogue of the tutorial's day: version 1, served, its list of computes a tag."""
    start_emulator(catalog="2024")
    found = _client().models.get(PHI_3, label="latest")

    assert "1" == found.version
    assert "Standard_ND40rs_v2" in ast.literal_eval(found.tags["finetune_compute_allow_list"])
    assert "inference_compute_allow_list" not in found.tags
    assert "learning_rate_min" not in found.tags["model_specific_defaults"]
    assert [PHI_3] == [one.name for one in _client().models.list()]
