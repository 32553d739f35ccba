"""Whatever can be refused is refused at once, all of it, before anything is spent."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.component import ComponentInput, ComponentResult, TrainingSpec
from lifecycle.compute import ComputeSpec, ComputeState, SizeInfo
from lifecycle.dataset import DatasetResult, DatasetSpec, SplitFile, TokenLengths
from lifecycle.endpoint import EndpointSpec
from lifecycle.errors import (
    ComponentInputError,
    DatasetError,
    ModelNotFound,
    Refused,
    SizeNotAllowed,
    SizeUnknown,
)
from lifecycle.evaluation import EvaluationSpec
from lifecycle.model import ModelResult
from lifecycle.preflight import Plan, check

A100 = "Standard_NC24ads_A100_v4"
FOUR_A100 = "Standard_NC96ads_A100_v4"
CPU = "Standard_D12_v2"
SIZES = {
    size.name.lower(): size
    for size in [
        SizeInfo(name=A100, gpus=1, vcpus=24, memory_gb=220, low_priority=True),
        SizeInfo(name=FOUR_A100, gpus=4, vcpus=96, memory_gb=880, low_priority=False),
        SizeInfo(name=CPU, gpus=0, vcpus=4, memory_gb=28, low_priority=True),
    ]
}
WIRED = [
    "mlflow_model_path",
    "pytorch_model_path",
    "train_file_path",
    "validation_file_path",
    "test_file_path",
    *(
        f"{kind}_{step}"
        for kind in ("compute", "instance_type")
        for step in ("model_import", "preprocess", "finetune")
    ),
]


def model(**given: Any) -> ModelResult:
    """A model that allows both sizes with GPUs."""
    usual: dict[str, Any] = {
        "name": "Phi-4-mini-instruct",
        "version": "7",
        "id": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/7",
        "model_type": "mlflow_model",
        "description": None,
        "finetune_allow_list": [A100, FOUR_A100],
        "inference_allow_list": [A100],
        "allow_list_source": "tags",
        "defaults": {},
        "archived": False,
        "retirement_date": None,
        "warnings": [],
    }
    return ModelResult(**{**usual, **given})


def component(without: str | None = None, outputs: list[str] | None = None) -> ComponentResult:
    """The pipeline component, as far as the job needs it."""
    inputs = {name: ComponentInput(type="string", optional=True) for name in WIRED}
    integers = [
        "number_of_gpu_to_use_finetuning",
        "num_nodes_finetune",
        "num_train_epochs",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "max_seq_length",
        "save_total_limit",
    ]
    inputs |= {name: ComponentInput(type="integer", min=-1, optional=True) for name in integers}
    inputs["learning_rate"] = ComponentInput(type="number", optional=True)
    inputs["lr_scheduler_type"] = ComponentInput(
        type="string", enum=["linear", "cosine"], optional=True
    )
    for name in ("apply_lora", "apply_deepspeed"):
        inputs[name] = ComponentInput(type="string", enum=["true", "false"], optional=True)
    inputs["deepspeed_stage"] = ComponentInput(type="string", enum=["2", "3"], optional=True)
    inputs.pop(str(without), None)
    return ComponentResult(
        name="chat_completion_pipeline",
        version="0.0.82",
        id="azureml://registries/azureml/components/chat_completion_pipeline/versions/0.0.82",
        inputs=inputs,
        outputs=["mlflow_model_folder"] if outputs is None else outputs,
    )


def data(rows: int = 100, splits: tuple[str, ...] = ("train_sft", "test_sft", "test_gen")) -> Any:
    """A data set of those splits."""
    files = [
        SplitFile(split=split, path=f"/data/{split}.jsonl", rows=rows, sha256="0" * 64)
        for split in splits
    ]
    return DatasetResult(name="HuggingFaceH4/ultrachat_200k", revision="abc", files=files)


def plan(**given: Any) -> Plan:
    """Check what would pass, but for what is given."""
    usual: dict[str, Any] = {
        "model": model(),
        "component": component(),
        "sizes": SIZES,
        "found": None,
        "data": data(),
        "compute": ComputeSpec(size=A100),
        "dataset": DatasetSpec(),
        "training": TrainingSpec(),
        "endpoint": EndpointSpec(instance_type=A100),
        "evaluation": EvaluationSpec(),
    }
    return check(**{**usual, **given})


def test_a_plan_says_all_that_the_job_needs() -> None:
    """Names, sizes, files and parameters, without asking anybody again."""
    made = plan(compute=ComputeSpec(size=FOUR_A100.upper(), nodes=2))

    assert "Phi-4-mini-instruct-ultrachat-bs8-cosine-ds2-lora-save_limit-1-seqlen-1" == (
        made.display_name
    )
    assert "Phi-4-mini-instruct-ultrachat-200k" == made.registered_name
    assert {"train_file_path": "train_sft", "test_file_path": "test_sft"} == {
        name: file.split for name, file in made.data_inputs.items()
    }
    assert (FOUR_A100, 4) == (made.size.name, made.size.gpus)
    assert A100 == made.instance_type.name
    assert [] == made.warnings


def test_a_plan_says_how_many_rows_will_be_cut_and_what_was_dropped() -> None:
    """The trainer cuts long conversations in silence; the data step's own notes are there too."""
    long = TokenLengths(method="estimated", mean=900, longest=1000, bins=[90, *[0] * 14, 10])
    train = data().files[0].model_copy(update={"tokens": long, "dropped": {"empty": 2}})
    given = data().model_copy(update={"files": [train, *data().files[1:]]})

    def told(limit: int) -> str:
        overrides: dict[str, Any] = {"max_seq_length": limit}
        training = TrainingSpec(overrides=overrides)
        return "\n".join(plan(data=given, training=training).warnings)

    assert "train_sft: 2 rows were dropped (empty 2)." in told(1024)
    assert "longer than" not in told(1024)
    assert "about 10 of 100 rows are longer than max_seq_length, 512 tokens" in told(512)


def test_a_plan_survives_json() -> None:
    """It passes between steps, and is stored."""
    made = plan()

    assert made == Plan.model_validate_json(made.model_dump_json())


def test_a_validation_split_is_given_to_the_component() -> None:
    """Where none is named, the component takes a part of the training rows."""
    made = plan(
        data=data(splits=("train_sft", "dev", "test_sft", "test_gen")),
        dataset=DatasetSpec(validation_split="dev"),
    )

    assert "dev" == made.data_inputs["validation_file_path"].split


def test_a_model_without_mlflow_goes_in_by_its_own_input() -> None:
    """Newer models of the registry are custom models."""
    assert "pytorch_model_path" == plan(model=model(model_type="custom_model")).model_input


@pytest.mark.parametrize(
    ("given", "error", "where"),
    [
        ({"model": model(model_type="triton_model")}, ModelNotFound, "model.name"),
        ({"compute": ComputeSpec(size=CPU)}, SizeNotAllowed, "compute.size"),
        ({"compute": ComputeSpec(size="Standard_NC6")}, SizeUnknown, "compute.size"),
        (
            {"endpoint": EndpointSpec(instance_type="Standard_NC6")},
            SizeUnknown,
            "endpoint.instance_type",
        ),
        (
            {"endpoint": EndpointSpec(instance_type=FOUR_A100)},
            SizeNotAllowed,
            "endpoint.instance_type",
        ),
        ({"data": data(splits=("train_sft", "test_gen"))}, DatasetError, "dataset"),
        ({"data": data(splits=("train_sft", "test_sft"))}, DatasetError, "dataset"),
        (
            {"training": TrainingSpec(overrides={"lr_scheduler_type": "cosine2"})},
            ComponentInputError,
            "training.overrides.lr_scheduler_type",
        ),
        ({"component": component(without="train_file_path")}, ComponentInputError, None),
        ({"component": component(without="compute_finetune")}, ComponentInputError, None),
        ({"component": component(outputs=["model"])}, ComponentInputError, "training.component"),
        ({"model": model(name="x" * 250)}, Refused, "dataset.model_suffix"),
    ],
)
def test_each_problem_is_refused_by_its_own_class(
    given: dict[str, Any], error: type[Refused], where: str | None
) -> None:
    """The class decides nothing but the words; the place says what to change."""
    with pytest.raises(error) as refusal:
        plan(**given)

    assert error is type(refusal.value)
    assert where in (None, refusal.value.where)


def test_all_problems_are_told_at_once() -> None:
    """Nobody runs five times to learn of five mistakes."""
    found = ComputeState(
        name="gpu-cluster-big",
        size=A100,
        tier="dedicated",
        provisioning_state="Failed",
        min_instances=0,
        max_instances=1,
    )
    with pytest.raises(ComponentInputError) as refusal:
        plan(
            found=found,
            training=TrainingSpec(overrides={"no_such_thing": 1}),
            endpoint=EndpointSpec(instance_type=FOUR_A100),
            data=data(splits=("train_sft",)),
        )

    told = str(refusal.value)
    assert "training.overrides.no_such_thing" in told
    assert "compute.name: The cluster gpu-cluster-big is failed" in told
    assert "endpoint.instance_type: The model does not allow" in told
    assert "has no split 'test_gen'" in told


def test_what_is_allowed_but_surprising_is_a_warning() -> None:
    """What the model says, what was dropped, few rows, low priority, and a slow endpoint."""
    made = plan(
        model=model(
            warnings=["No list of sizes was found."],
            defaults={"learning_rate_min": "5e-7"},
            finetune_allow_list=None,
            inference_allow_list=None,
        ),
        data=data(rows=3),
        compute=ComputeSpec(size=A100, tier="low_priority", allow_low_priority=True),
        training=TrainingSpec(overrides={"gradient_accumulation_steps": 4}),
        endpoint=EndpointSpec(instance_type=CPU),
    )

    told = "\n".join(made.warnings)
    assert 5 == len(made.warnings)
    assert "No list of sizes was found." in told
    assert "learning_rate_min = '5e-7' (model) was dropped" in told
    assert "One batch takes 4 rows, and there are 3" in told
    assert "may be taken away" in told
    assert f"{CPU} has no GPU" in told
