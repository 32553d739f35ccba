"""Parameters that the job would reject forty minutes later are refused before anything is spent."""

from __future__ import annotations

import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle.clients import WorkspaceRef
from lifecycle.component import (
    ComponentInput,
    ComponentResult,
    TrainingSpec,
    check_value,
    get_component,
    merge_parameters,
    read_input,
)
from lifecycle.errors import ComponentInputError, ComponentNotFound, FinetuneError

FLAG = ComponentInput(type="string", default="false", enum=["true", "false"], optional=True)
COMPONENT = ComponentResult(
    name="chat_completion_pipeline",
    version="0.0.82",
    id="azureml://registries/azureml/components/chat_completion_pipeline/versions/0.0.82",
    inputs={
        "mlflow_model_path": ComponentInput(type="mlflow_model", optional=True),
        "train_file_path": ComponentInput(type="uri_file", optional=True),
        "deepspeed": ComponentInput(type="uri_file", optional=True),
        "compute_finetune": ComponentInput(type="string", optional=True),
        "instance_type_finetune": ComponentInput(type="string", optional=True),
        "num_nodes_finetune": ComponentInput(type="integer", min=1, optional=True),
        "number_of_gpu_to_use_finetuning": ComponentInput(type="integer", min=1, optional=True),
        "task_name": ComponentInput(type="string", default="ChatCompletion"),
        "num_train_epochs": ComponentInput(type="integer", min=1, optional=True),
        "per_device_train_batch_size": ComponentInput(type="integer", min=1, optional=True),
        "per_device_eval_batch_size": ComponentInput(type="integer", min=1, optional=True),
        "learning_rate": ComponentInput(type="number", optional=True),
        "warmup_ratio": ComponentInput(type="number", min=0, max=1, optional=True),
        "lr_scheduler_type": ComponentInput(type="string", enum=["linear", "cosine"]),
        "apply_lora": FLAG,
        "apply_deepspeed": FLAG,
        "deepspeed_stage": ComponentInput(type="string", enum=["2", "3"], optional=True),
        "precision": ComponentInput(type="string", enum=["32", "16"], optional=True),
    },
    outputs=["mlflow_model_folder", "pytorch_model_folder"],
)


def merge(
    overrides: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> Any:
    """Merge onto the tutorial's defaults."""
    given: dict[str, Any] = {"overrides": overrides or {}}
    if defaults is not None:
        given["defaults"] = defaults
    return merge_parameters(COMPONENT, TrainingSpec(**given), model or {})


def test_the_defaults_are_the_tutorials() -> None:
    """Without a word of configuration the job is the tutorial's."""
    assert {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "learning_rate": 5e-6,
        "lr_scheduler_type": "cosine",
        "apply_lora": "true",
        "apply_deepspeed": "true",
        "deepspeed_stage": "2",
    } == merge().values


def test_the_model_goes_before_our_defaults_and_the_person_before_the_model() -> None:
    """The order is defaults < model < overrides, and each value says whose it is."""
    merged = merge({"learning_rate": 2e-5}, {"learning_rate": "5e-7", "num_train_epochs": 1})

    assert (2e-5, "overrides") == (merged.values["learning_rate"], merged.origin["learning_rate"])
    assert (1, "model") == (merged.values["num_train_epochs"], merged.origin["num_train_epochs"])
    assert "defaults" == merged.origin["apply_lora"]


def test_what_only_the_model_knows_is_dropped_by_name() -> None:
    """learning_rate_min is in today's tags and no input: the tutorial fails on it."""
    merged = merge(model={"learning_rate_min": "5e-7", "num_nodes_finetune": 2, "precision": 16})

    assert {"learning_rate_min": "5e-7", "num_nodes_finetune": 2} == {
        item.name: item.value for item in merged.dropped
    }
    assert all(item.reason and item.origin == "model" for item in merged.dropped)
    assert "16" == merged.values["precision"]


def test_an_unknown_override_is_refused_with_the_nearest_names() -> None:
    """A typing error is not silently without effect."""
    with pytest.raises(ComponentInputError, match="num_train_epochs") as raised:
        merge({"num_train_epoch": 2})

    assert "training.overrides.num_train_epoch" == raised.value.where


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_train_epochs", 0),
        ("num_train_epochs", 1.5),
        ("num_train_epochs", "abc"),
        ("num_train_epochs", True),
        ("learning_rate", "fast"),
        ("learning_rate", "nan"),
        ("warmup_ratio", 1.1),
        ("warmup_ratio", -0.1),
        ("lr_scheduler_type", "cosine2"),
        ("apply_lora", "maybe"),
        ("deepspeed_stage", 5),
        ("precision", 8),
    ],
)
@pytest.mark.parametrize("layer", ["defaults", "overrides", "model"])
def test_a_value_that_the_component_would_reject_is_refused(
    layer: str, name: str, value: Any
) -> None:
    """Type, enum and bounds are checked whoever asks: neither the SDK nor Azure does."""
    given = {"defaults": {"lr_scheduler_type": "cosine"}, layer: {name: value}}
    given["defaults"].setdefault("lr_scheduler_type", "cosine")

    with pytest.raises(ComponentInputError) as raised:
        merge(given.get("overrides"), given.get("model"), given["defaults"])

    assert raised.value.where is not None
    assert raised.value.where.endswith(f".{name}")


def test_a_bad_value_of_the_model_can_be_overridden() -> None:
    """The publisher's slip has a remedy that works."""
    with pytest.raises(ComponentInputError, match=r"training\.overrides\.num_train_epochs"):
        merge(model={"num_train_epochs": 0})

    merged = merge({"num_train_epochs": 2}, {"num_train_epochs": 0})
    assert 2 == merged.values["num_train_epochs"]
    assert ["num_train_epochs"] == [item.name for item in merged.dropped]


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("mlflow_model_path", "azureml://x", "model.name"),
        ("compute_finetune", "mine", "compute.name"),
        ("instance_type_finetune", "Standard_X", "compute.size"),
        ("train_file_path", "x.jsonl", "dataset.path"),
        ("number_of_gpu_to_use_finetuning", 8, "compute.size"),
        ("num_nodes_finetune", 2, "compute.nodes"),
    ],
)
def test_what_the_job_step_sets_is_refused_with_the_parameter_to_use(
    name: str, value: Any, instead: str
) -> None:
    """Two places to say one thing would be one that is ignored."""
    with pytest.raises(ComponentInputError, match=instead):
        merge({name: value})


def test_an_asset_is_no_parameter() -> None:
    """A file cannot be given as text: the job would look for it by that name and fail."""
    with pytest.raises(ComponentInputError, match="uri_file"):
        merge({"deepspeed": "./ds.json"})


def test_all_problems_are_told_at_once() -> None:
    """A person corrects a configuration in one round."""
    with pytest.raises(ComponentInputError) as raised:
        merge({"num_train_epochs": 0, "lr_scheduler_type": "cosine2", "no_such": 1})

    for name in ("num_train_epochs", "lr_scheduler_type", "no_such"):
        assert f"training.overrides.{name}" in str(raised.value)


def test_a_required_input_without_a_value_is_refused() -> None:
    """Azure would find out after the queue."""
    with pytest.raises(ComponentInputError, match="requires it"):
        merge(defaults={"num_train_epochs": 1})


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        (FLAG, True, "true"),
        (FLAG, "True", "true"),
        (FLAG, False, "false"),
        (ComponentInput(type="boolean"), True, "true"),
        (ComponentInput(type="string"), True, "true"),
        (ComponentInput(type="integer"), "3", 3),
        (ComponentInput(type="integer"), 3.0, 3),
        (ComponentInput(type="integer"), -1, -1),
        (ComponentInput(type="number"), "5e-6", 5e-6),
        (ComponentInput(type="number"), 1, 1),
        (ComponentInput(type="string"), 5, "5"),
        (ComponentInput(type="string", enum=["2", "3"]), 2, "2"),
        (ComponentInput(type="integer", enum=["2", "3"]), 2, 2),
    ],
)
def test_values_are_spelled_as_the_component_takes_them(
    declared: ComponentInput, value: Any, expected: Any
) -> None:
    """Python's True goes out as "true": "True" is outside the enum, and fails the job."""
    checked = check_value(declared, value)

    assert (expected, type(expected)) == (checked, type(checked))


def test_the_component_is_read_from_the_registry(workspace: WorkspaceRef) -> None:
    """The registry's own declaration is what parameters are checked against."""
    found = get_component(workspace, TrainingSpec())

    assert "chat_completion_pipeline" == found.name
    assert found.id.startswith("azureml://registries/azureml/components/chat_completion_pipeline/")
    assert "mlflow_model_folder" in found.outputs
    assert 69 == len(found.inputs)
    epochs = found.inputs["num_train_epochs"]
    assert ("integer", 1.0, True) == (epochs.type, epochs.min, epochs.optional)
    assert ["true", "false"] == found.inputs["apply_lora"].enum
    assert ("string", False) == (found.inputs["task_name"].type, found.inputs["task_name"].optional)


def test_a_fixed_version_is_found_by_its_number(workspace: WorkspaceRef) -> None:
    """A schedule can be pinned to the component it was tested with."""
    latest = get_component(workspace, TrainingSpec())
    pinned = get_component(workspace, TrainingSpec(component_version=latest.version))

    assert latest == pinned


@pytest.mark.parametrize(
    "spec", [{"component": "no_such_pipeline"}, {"component_version": "99.0.0"}]
)
def test_a_component_that_is_not_there_is_refused(
    workspace: WorkspaceRef, spec: dict[str, str]
) -> None:
    """A typing error is told as such, before anything is created."""
    with pytest.raises(ComponentNotFound) as raised:
        get_component(workspace, TrainingSpec(**spec))

    assert "training.component" == raised.value.where


def test_the_tutorials_parameters_fit_the_registrys_component(workspace: WorkspaceRef) -> None:
    """Our defaults and the tags of Phi-3-mini are accepted by the real declaration."""
    component = get_component(workspace, TrainingSpec())
    tags = {
        "apply_ort": "false",
        "precision": 16,
        "learning_rate": "5e-6",
        "learning_rate_min": "5e-7",
        "save_total_limit": 1,
    }
    merged = merge_parameters(component, TrainingSpec(overrides={"max_seq_length": 2048}), tags)

    assert ["learning_rate_min"] == [item.name for item in merged.dropped]
    assert ("16", 2048) == (merged.values["precision"], merged.values["max_seq_length"])


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
_DECLARATION = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["integer", "Number", "BOOLEAN", "string", "uri_file"]) | _ANYTHING,
        "default": _ANYTHING,
        "enum": st.lists(_ANYTHING, max_size=3) | _ANYTHING,
        "min": _ANYTHING,
        "max": st.sampled_from(["1", "1e3", "many"]) | _ANYTHING,
        "optional": _ANYTHING,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_DECLARATION, st.booleans() | st.integers() | st.floats() | st.text(max_size=8))
def test_a_declaration_of_whatever_shape_is_read(
    declaration: dict[str, Any], value: str | float
) -> None:
    """What is not understood of it is named; a value passes, or is refused with a reason."""
    declared = read_input(SimpleNamespace(**declaration))

    assert declared == ComponentInput.model_validate_json(declared.model_dump_json()) or "nan" in (
        str(declared.default)
    )
    with suppress(ValueError):
        assert isinstance(check_value(declared, value), str | int | float)


@pytest.mark.parametrize(
    ("declaration", "unread"),
    [
        ({"type": "integer", "min": "many"}, "min = 'many'"),
        ({"type": "integer", "enum": 7}, "enum = 7"),
        ({"type": ["integer"]}, "type = ['integer']"),
        ({"type": "string", "default": {"a": 1}}, "default = {'a': 1}"),
        ({"type": "integer", "max": True}, "max = True"),
    ],
)
def test_a_value_of_an_unread_declaration_is_passed_unchecked(
    declaration: dict[str, Any], unread: str
) -> None:
    """The publisher's odd declaration refuses no value of the user's, and is no crash."""
    declared = read_input(SimpleNamespace(**declaration))

    assert unread == declared.unread
    assert "anything" == check_value(declared, "anything")


@pytest.mark.parametrize("inputs", [None, [], 7, {"num_train_epochs": None}])
def test_a_component_that_cannot_be_read_is_an_error_of_ours(
    emulator: Any, workspace: WorkspaceRef, inputs: Any
) -> None:
    """It says what was being read; nothing is created."""
    listed = {
        "name": "0.0.82",
        "id": "azureml://registries/azureml/components/chat_completion_pipeline/versions/0.0.82",
        "properties": {
            "componentSpec": {
                "name": "chat_completion_pipeline",
                "version": "0.0.82",
                "type": "pipeline",
                "inputs": inputs,
                "outputs": {},
                "_source": "REMOTE.REGISTRY",
            }
        },
    }
    effect = {"status": 200, "body": json.dumps({"value": [listed], **listed})}
    emulator.faults({"match": {"path": "/components/"}, "effect": effect})

    with pytest.raises(FinetuneError, match="chat_completion_pipeline"):
        merge_parameters(get_component(workspace, TrainingSpec()), TrainingSpec(), {})
