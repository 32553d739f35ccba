"""The finetune step: every parameter reaches the Trainer, and a lost node costs little."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from azureml_emulator.training import finetune, model_import, parameters, preprocess
from azureml_emulator.training.model_import import ADAPTER
from azureml_emulator.training.reporting import Reporter
from azureml_emulator.training.request import Events, Request, StepFailed
from safetensors.torch import load_file

from tests.emulator.training import asking
from tests.emulator.training.asking import chat, request, write_rows

ROWS = [chat(f"where is number {number}", f"it is at {number * 7}") for number in range(20)]
QUICK = {
    "apply_lora": "true",
    "learning_rate": 0.003,
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "evaluation_strategy": "steps",
    "eval_steps": 2,
    "logging_steps": 1,
}


class NodeLost(Exception):
    """The step's process is gone."""


class LosingEvents(Events):
    """Loses the node as soon as something is reported of a step."""

    def __init__(self, path: Path, *, at: int) -> None:
        super().__init__(path)
        self._at = at

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Report, or lose the node."""
        super().metrics(values, step=step)
        if step == self._at:
            raise NodeLost


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose first steps are done."""
    folder = tmp_path_factory.mktemp("job")
    files: dict[str, Path | None] = {"train_file_path": write_rows(folder / "train.jsonl", ROWS)}
    for step in (model_import, preprocess):
        asked = request(folder, step.__name__.rpartition(".")[2], files)
        step.run(asked, Events(asked.events))
    return folder


def finetuning(job: Path, place: Path, **given: object) -> Request:
    """Return a request of its own for the finetune step of *job*."""
    place.mkdir(exist_ok=True)
    for earlier in ("model_import", "preprocess"):
        if not (place / earlier).exists():
            (place / earlier).symlink_to(job / earlier)
    return request(place, "finetune", **QUICK | given)


def run(asked: Request, events: Events | None = None) -> dict[str, torch.Tensor]:
    """Run the step and return its weights."""
    finetune.run(asked, events or Events(asked.events))
    weights: dict[str, torch.Tensor] = load_file(
        asked.outputs["pytorch_model_folder"] / "model.safetensors"
    )
    return weights


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two models are equal, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_step_that_loses_its_node_ends_with_the_same_weights(job: Path, tmp_path: Path) -> None:
    """It goes on from its checkpoint; equal seeds give equal weights, others do not."""
    whole = run(finetuning(job, tmp_path / "whole", lora_dropout=0.1))
    other = run(finetuning(job, tmp_path / "other", lora_dropout=0.1, seed=7))
    lost = finetuning(job, tmp_path / "lost", lora_dropout=0.1)
    with pytest.raises(NodeLost):
        run(lost, LosingEvents(lost.events, at=5))
    # Half of a checkpoint, as a kill leaves it.
    (lost.work / "checkpoint-5").mkdir()

    resumed = run(lost)

    steps = [event["step"] for event in asking.events(tmp_path / "lost", "finetune")]
    assert same(whole, resumed)
    assert not same(whole, other)
    assert [1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 6] == steps


def test_metrics_come_as_the_training_goes(job: Path, tmp_path: Path) -> None:
    """Loss, learning rate and tokens per second at each step; perplexity is that of the loss."""
    run(finetuning(job, tmp_path))

    events = asking.events(tmp_path, "finetune")
    first, evaluation, last = events[0], events[2], events[-1]
    names = {"loss", "grad_norm", "learning_rate", "epoch", "tokens_per_second"}
    assert (1, names) == (first["step"], set(first["metrics"]))
    assert math.exp(evaluation["metrics"]["eval_loss"]) == evaluation["metrics"]["perplexity"]
    assert {"train_loss", "train_runtime", "total_steps"} == set(last["metrics"])
    assert events[-3]["metrics"]["loss"] < first["metrics"]["loss"]


def test_without_lora_all_weights_are_trained_and_keep_their_type(
    job: Path, tmp_path: Path
) -> None:
    """The component's default; what belongs to the model is saved with it."""
    asked = finetuning(job, tmp_path, apply_lora="false", learning_rate=0.001, max_steps=2)

    trained = run(asked)

    base = load_file(asked.upstream["model_selector_output"] / "model.safetensors")
    changed = {key for key in base if not torch.equal(base[key], trained[key])}
    names = {path.name for path in asked.outputs["pytorch_model_folder"].iterdir()}
    assert set(base) == changed
    assert {key: base[key].dtype for key in base} == {key: trained[key].dtype for key in base}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_an_adapter_that_is_not_merged_gives_the_same_model_later(
    job: Path, tmp_path: Path
) -> None:
    """The base model is left as it was, and merging afterwards is merging at once."""
    merged = run(finetuning(job, tmp_path / "merged"))
    apart = finetuning(job, tmp_path / "apart", merge_lora_weights="false")

    base = run(apart)
    finetune.merge(apart.outputs["pytorch_model_folder"], tmp_path / "later")

    original = load_file(apart.upstream["model_selector_output"] / "model.safetensors")
    later = load_file(tmp_path / "later" / "model.safetensors")
    assert same(original, base)
    assert (apart.outputs["pytorch_model_folder"] / ADAPTER).is_dir()
    assert all(torch.allclose(merged[key], later[key], atol=1e-6) for key in merged)


def test_training_stops_early_when_nothing_gets_better(job: Path, tmp_path: Path) -> None:
    """And the best model is the one that is kept."""
    asked = finetuning(
        job,
        tmp_path,
        max_steps=40,
        apply_early_stopping="true",
        early_stopping_threshold=100,
        early_stopping_patience=2,
        save_total_limit=1,
    )

    run(asked)

    last = asking.events(tmp_path, "finetune")[-1]["metrics"]
    assert 6.0 == last["total_steps"]
    assert 1 == len(list(asked.work.glob("checkpoint-*")))


def test_a_loss_that_is_no_number_ends_the_step_with_a_sentence(job: Path, tmp_path: Path) -> None:
    """Rather than a model that says nothing, hours later."""
    with pytest.raises(StepFailed, match="lower learning_rate"):
        run(finetuning(job, tmp_path, learning_rate=1e30, max_steps=20))


def test_too_little_memory_is_told_before_anything_is_loaded(job: Path, tmp_path: Path) -> None:
    """With what it needs, what there is, and what to do."""
    with pytest.raises(StepFailed, match=r"Training tiny needs about .* GiB of memory and"):
        run(finetuning(job, tmp_path, per_device_train_batch_size=10**9))


def test_more_gpus_than_a_node_has_fail_the_step(job: Path, tmp_path: Path) -> None:
    """As on Azure, where the process of the GPU that is not there dies."""
    with pytest.raises(StepFailed, match="has 8 GPUs"):
        run(finetuning(job, tmp_path, number_of_gpu_to_use_finetuning=9))


def test_a_batch_is_padded_and_only_its_answers_are_labels() -> None:
    """To the longest row, or to the length that is asked for."""
    rows: list[dict[str, Any]] = [
        {"tokens": [5, 6, 7], "answers": [False, True, True]},
        {"tokens": [8], "answers": [True]},
    ]

    short = finetune.collator(9, None)(rows)
    long = finetune.collator(9, 5)(rows)

    assert [[5, 6, 7], [8, 9, 9]] == short["input_ids"].tolist()
    assert [[-100, 6, 7], [8, -100, -100]] == short["labels"].tolist()
    assert [[1, 1, 1], [1, 0, 0]] == short["attention_mask"].tolist()
    assert (2, 5) == tuple(long["input_ids"].shape)


def test_the_batches_of_all_gpus_and_nodes_are_one(job: Path, tmp_path: Path) -> None:
    """So that steps and learning rates are the cluster's."""
    given = {
        "per_device_train_batch_size": 2,
        "number_of_gpu_to_use_finetuning": 2,
        "num_nodes_finetune": 2,
        "gradient_accumulation_steps": 2,
    }
    arguments, plan = trainer_arguments(job, tmp_path, **given)

    assert (8, 2) == (
        arguments.per_device_train_batch_size,
        arguments.gradient_accumulation_steps,
    )
    # 16 of the 20 rows are trained on, 16 a step.
    assert 1 == plan.steps_per_epoch


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"num_train_epochs": 3, "max_steps": -1}, {"num_train_epochs": 3, "max_steps": -1}),
        ({"optim": "adafactor"}, {"optim": "adafactor"}),
        ({"lr_scheduler_type": "cosine"}, {"lr_scheduler_type": "cosine"}),
        ({"warmup_steps": 5, "weight_decay": 0.1}, {"warmup_steps": 5, "weight_decay": 0.1}),
        (
            {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "max_grad_norm": 0.5},
            {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "max_grad_norm": 0.5},
        ),
        ({"auto_find_batch_size": "true"}, {"auto_find_batch_size": True}),
        ({"eval_accumulation_steps": 3}, {"eval_accumulation_steps": 3}),
        ({"dataloader_num_workers": 2}, {"dataloader_num_workers": 2}),
        ({"logging_strategy": "epoch"}, {"logging_strategy": "epoch"}),
        ({"save_total_limit": 2}, {"save_total_limit": 2}),
        ({"save_total_limit": -1}, {"save_total_limit": None}),
        ({"seed": 11}, {"seed": 11}),
        ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch", "save_strategy": "epoch"}),
        (
            {"evaluation_strategy": "disable"},
            {"eval_strategy": "no", "save_strategy": "epoch", "load_best_model_at_end": False},
        ),
        # 16 rows in batches of 4 are 4 steps an epoch.
        ({"evaluation_steps_interval": 0.5}, {"eval_steps": 2, "save_steps": 2}),
        ({"evaluation_steps_interval": 7, "eval_steps": 3}, {"eval_steps": 3}),
    ],
)
def test_the_parameters_reach_the_trainer(
    job: Path, tmp_path: Path, given: dict[str, object], expected: dict[str, object]
) -> None:
    """What the job says is what transformers is told."""
    arguments, _ = trainer_arguments(job, tmp_path, **given)

    assert expected == {name: getattr(arguments, name) for name in expected}


def trainer_arguments(job: Path, place: Path, **given: object) -> tuple[Any, finetune.Plan]:
    """Return what the Trainer is told for some parameters, and the plan."""
    asked = finetuning(job, place, **given)
    data = asked.upstream["preprocess_output"]
    info = json.loads((data / preprocess.INFO).read_text())
    training = parameters.read(asked.parameters)
    plan = finetune.plan_of(training, info, torch.float32)
    model = torch.nn.Linear(1, 1)
    reporter = Reporter(Events(asked.events))
    trainer = finetune.make_trainer(model, training, plan, info, data, asked.work, reporter)
    return trainer.args, plan
