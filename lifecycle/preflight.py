"""Step 5, *preflight*: put together what was found, and refuse all that would fail, unspent.

Reads nothing from Azure: the steps before it did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pydantic import Field

from lifecycle.component import ComponentResult, Parameters, TrainingSpec, merge_parameters
from lifecycle.compute import (
    ComputeSpec,
    ComputeState,
    SizeInfo,
    find_size,
    require_allowed,
    validate_compute,
)
from lifecycle.conversations.summary import notes
from lifecycle.dataset import DatasetResult, DatasetSpec, SplitFile
from lifecycle.endpoint import EndpointSpec, require_lifetime
from lifecycle.errors import ComponentInputError, ModelNotFound, Refused
from lifecycle.evaluation import EvaluationSpec
from lifecycle.job import TRAINED_MODEL_OUTPUT, compute_inputs, display_name, effective_batch
from lifecycle.model import ModelResult
from lifecycle.plain import Result

_MODEL_INPUTS = {"mlflow_model": "mlflow_model_path", "custom_model": "pytorch_model_path"}


class Plan(Result):
    """What the run will do, complete and checked; all that the job step needs to know."""

    model: ModelResult = Field(title="Model", description="The foundation model.")
    model_input: str = Field(
        title="Model input",
        description="Input of the component that takes the model.",
        examples=["mlflow_model_path"],
    )
    component: ComponentResult = Field(title="Component", description="The pipeline component.")
    compute: ComputeSpec = Field(title="Compute", description="The compute asked for.")
    size: SizeInfo = Field(title="VM size", description="What a node is, and its GPUs.")
    existing_compute: ComputeState | None = Field(
        title="Existing cluster", description="The cluster if it is there already."
    )
    dataset: DatasetResult = Field(title="Data set", description="The files of every split.")
    data_inputs: dict[str, SplitFile] = Field(
        title="Data inputs",
        description="The file for each of the component's data inputs.",
    )
    parameters: Parameters = Field(title="Parameters", description="The component's parameters.")
    display_name: str = Field(
        title="Display name",
        description="The job's name for people.",
        examples=["Phi-4-mini-instruct-ultrachat-bs8-cosine-ds2-lora-save_limit1-seqlen2048"],
    )
    registered_name: str = Field(
        title="Registered model",
        description="Name that the trained model is registered under.",
        examples=["Phi-4-mini-instruct-ultrachat-200k"],
    )
    instance_type: SizeInfo = Field(
        title="Instance type", description="VM size of the endpoint's deployment."
    )
    warnings: list[str] = Field(
        title="Warnings", description="What a person should know before money is spent."
    )


def check(
    model: ModelResult,
    component: ComponentResult,
    sizes: Mapping[str, SizeInfo],
    found: ComputeState | None,
    data: DatasetResult,
    *,
    compute: ComputeSpec,
    dataset: DatasetSpec,
    training: TrainingSpec,
    endpoint: EndpointSpec,
    evaluation: EvaluationSpec,
) -> Plan:
    """Check everything that was found against everything that was asked for.

    Args:
        model: What :func:`lifecycle.model.select_model` returned.
        component: What :func:`lifecycle.component.get_component` returned.
        sizes: What :func:`lifecycle.compute.list_sizes` returned.
        found: What :func:`lifecycle.compute.check_compute` returned.
        data: What :func:`lifecycle.dataset.download_data` returned.
        compute: The compute asked for.
        dataset: The data set asked for.
        training: The component and parameters asked for.
        endpoint: The endpoint asked for.
        evaluation: What will be asked of the endpoint.

    Raises:
        Refused: The first problem, as the class it is; its remedy goes on to name all others.
    """
    _refuse_all(
        lambda: _model_input(model),
        lambda: merge_parameters(component, training, model.defaults),
        lambda: validate_compute(compute, found, sizes, model.finetune_allow_list),
        lambda: _instance_type(endpoint, sizes, model.inference_allow_list),
        lambda: _data_inputs(dataset, data),
        lambda: _check_wiring(component, model, compute, dataset),
        lambda: _registered_name(model, dataset),
        lambda: require_lifetime(
            endpoint,
            deployments=2 if evaluation.baseline else 1,
            requests=evaluation.conversations * (2 if evaluation.baseline else 1),
        ),
    )
    parameters = merge_parameters(component, training, model.defaults)
    size = validate_compute(compute, found, sizes, model.finetune_allow_list)
    instance_type = _instance_type(endpoint, sizes, model.inference_allow_list)
    data_inputs = _data_inputs(dataset, data)
    return Plan(
        model=model,
        model_input=_model_input(model),
        component=component,
        compute=compute,
        size=size,
        existing_compute=found,
        dataset=data,
        data_inputs=data_inputs,
        parameters=parameters,
        display_name=display_name(
            model.name,
            dataset.effective_short_name,
            parameters.values,
            gpus=size.gpus,
            nodes=compute.nodes,
        ),
        registered_name=_registered_name(model, dataset),
        instance_type=instance_type,
        warnings=[
            *model.warnings,
            *_dropped_warnings(parameters),
            *_unread_warnings(component, parameters),
            *_size_warnings(compute, size, instance_type),
            *notes(data),
            *_data_warnings(
                data_inputs,
                parameters,
                batch=effective_batch(parameters.values, gpus=size.gpus, nodes=compute.nodes),
            ),
        ],
    )


def _refuse_all(*checks: Callable[[], object]) -> None:
    """Run every check; raise what the first one refused, with all other problems in its remedy."""
    problems: list[Refused] = []
    for check_one in checks:
        try:
            check_one()
        except Refused as problem:
            problems.append(problem)
    if not problems:
        return
    first, *others = problems
    if others:
        first.remedy = f"{first.remedy} Also: {' '.join(str(other) for other in others)}"
    raise first


def _model_input(model: ModelResult) -> str:
    name = _MODEL_INPUTS.get(model.model_type)
    if name is None:
        raise ModelNotFound(
            f"{model.name} {model.version} is of type {model.model_type}, "
            f"and the component takes {' or '.join(_MODEL_INPUTS)}.",
            where="model.name",
            remedy="Choose another model.",
        )
    return name


def _instance_type(
    endpoint: EndpointSpec, sizes: Mapping[str, SizeInfo], allow_list: list[str] | None
) -> SizeInfo:
    where = "endpoint.instance_type"
    size = find_size(endpoint.instance_type, sizes, where=where)
    require_allowed(size, allow_list, sizes, use="serve", where=where)
    return size


def _data_inputs(dataset: DatasetSpec, data: DatasetResult) -> dict[str, SplitFile]:
    data.file(dataset.effective_generation_split)
    return {name: data.file(split) for name, split in _data_splits(dataset).items()}


def _data_splits(dataset: DatasetSpec) -> dict[str, str]:
    """Name the split for each data input of the component that is given one."""
    splits = {
        "train_file_path": dataset.train_split,
        "validation_file_path": dataset.validation_split,
        "test_file_path": dataset.test_split,
    }
    return {name: split for name, split in splits.items() if split is not None}


def _check_wiring(
    component: ComponentResult, model: ModelResult, compute: ComputeSpec, dataset: DatasetSpec
) -> None:
    """Refuse a component that is not shaped as the job step will wire it."""
    wired = [*_data_splits(dataset), *compute_inputs(compute, size_name="", gpus=1)]
    if model.model_type in _MODEL_INPUTS:
        wired.append(_MODEL_INPUTS[model.model_type])
    lacks = [f"input {name}" for name in wired if name not in component.inputs]
    if TRAINED_MODEL_OUTPUT not in component.outputs:
        lacks.append(f"output {TRAINED_MODEL_OUTPUT}")
    if lacks:
        raise ComponentInputError(
            f"{component.name} {component.version} is no chat completion pipeline: "
            f"it has no {', no '.join(lacks)}.",
            where="training.component",
            remedy="Name chat_completion_pipeline, or a version of it that has them.",
        )


def _registered_name(model: ModelResult, dataset: DatasetSpec) -> str:
    name = f"{model.name}-{dataset.effective_model_suffix}"
    if len(name) > 255 or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise Refused(
            f"The trained model cannot be registered as {name!r}.",
            where="dataset.model_suffix",
            remedy="Set a suffix of letters, digits, dashes and dots, 255 characters in all.",
        )
    return name


def _dropped_warnings(parameters: Parameters) -> list[str]:
    return [
        f"{item.name} = {item.value!r} ({item.origin}) was dropped: {item.reason}."
        for item in parameters.dropped
    ]


def _unread_warnings(component: ComponentResult, parameters: Parameters) -> list[str]:
    return [
        f"What {component.name} says of its input {name} cannot be read ({declared.unread}): "
        f"{parameters.values[name]!r} is passed unchecked."
        for name, declared in component.inputs.items()
        if declared.unread is not None and name in parameters.values
    ]


def _size_warnings(compute: ComputeSpec, size: SizeInfo, instance_type: SizeInfo) -> list[str]:
    warnings = []
    if compute.tier == "low_priority":
        warnings.append(
            f"Low-priority nodes of {size.name} may be taken away in mid-job, with its work."
        )
    if instance_type.source == "nobody":
        warnings.append(
            f"Nobody says what {instance_type.name} is: Azure does not list it, and it is not in "
            "the table that comes with this package. The endpoint is tried with it all the same."
        )
    elif instance_type.gpus == 0:
        warnings.append(f"{instance_type.name} has no GPU: replies will be slow.")
    return warnings


def _data_warnings(
    data_inputs: Mapping[str, SplitFile], parameters: Parameters, *, batch: int
) -> list[str]:
    warnings = []
    train = data_inputs["train_file_path"]
    if train.rows < batch:
        warnings.append(f"One batch takes {batch} rows, and there are {train.rows} to train on.")
    limit = int(parameters.values.get("max_seq_length", -1))
    if train.tokens is not None and 0 < limit < train.tokens.longest:
        longer = train.tokens.longer_than(limit)
        warnings.append(
            f"{train.split}: about {longer:,} of {train.rows:,} rows are longer than "
            f"max_seq_length, {limit} tokens, and will be cut ({train.tokens.method})."
        )
    return warnings
