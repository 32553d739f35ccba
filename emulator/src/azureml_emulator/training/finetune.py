"""The fourth step, *finetune*: transformers' Trainer, with peft's LoRA or on all weights.

One process trains, on the GPU where there is a CUDA one, else on the CPU. The batches of all GPUs
and nodes that the job asks for are put together into one, so that the steps, the learning rate at
each and the weights at the end are those of the cluster.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..executors.checks import gpu_problem
from . import encoding, parameters, resources
from .model_import import ADAPTER, link_files
from .parameters import TrainingParameters
from .preprocess import INFO
from .request import Events, Request, StepFailed

os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]

import numpy as np
import peft
import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from .reporting import Reporter

TINY = 5_000_000
"""Models of fewer parameters are trained on one thread: sharing work costs more than it saves."""

_WEIGHTS = (".safetensors", ".bin", ".index.json")


@dataclass(frozen=True)
class Plan:
    """How the training goes, as far as it is more than a parameter.

    Args:
        steps_per_epoch: Optimizer steps of one epoch.
        eval_steps: Steps between two evaluations, for the strategy ``steps``.
        evaluates: Whether there is anything to evaluate, and a wish to.
        dtype: What the model computes in.
    """

    steps_per_epoch: int
    eval_steps: int
    evaluates: bool
    dtype: torch.dtype


def run(request: Request, events: Events) -> None:
    """Leave the best model in ``pytorch_model_folder``.

    Raises:
        StepFailed: More GPUs are asked for than there are, there is no room, or the loss is lost.
    """
    _check_gpus(request)
    training = parameters.read(request.parameters)
    for line in parameters.notices(request.parameters):
        print(line)
    base = request.upstream["model_selector_output"]
    data = request.upstream["preprocess_output"]
    info = json.loads((data / INFO).read_text(encoding="utf-8"))
    plan = plan_of(training, info, device_dtype(training.precision))
    _check_room(request, training, info, plan, base)

    # What one library finds wrong with another is not for this log.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.set_seed(training.seed)
    model = load_model(base, training, plan.dtype)
    reporter = Reporter(events)
    trainer = make_trainer(model, training, plan, info, data, request.work, reporter)
    _introduce(request, training, info, plan, model)
    checkpoint = newest_checkpoint(request.work)
    if checkpoint is not None:
        print(f"Resuming from {checkpoint.name}")
    result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    begun = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    reporter.finished(
        trainer.state,
        train_loss=result.training_loss if trainer.state.global_step > begun else None,
        seconds=result.metrics["train_runtime"],
    )
    _save(trainer.model, training, base, request.outputs["pytorch_model_folder"])


def plan_of(training: TrainingParameters, info: Mapping[str, Any], dtype: torch.dtype) -> Plan:
    """Return how training goes.

    Args:
        training: The parameters.
        info: What the preprocess step said of the encoded rows.
        dtype: What the model computes in.
    """
    per_step = (
        training.per_device_train_batch_size
        * training.devices
        * training.gradient_accumulation_steps
    )
    steps = math.ceil(info["train"]["rows"] / per_step)
    interval = training.evaluation_steps_interval
    return Plan(
        steps_per_epoch=steps,
        # The component takes an interval outside 0 to 1 for none.
        eval_steps=max(round(steps * interval), 1) if 0 < interval <= 1 else training.eval_steps,
        evaluates=training.evaluation_strategy != "disable" and "validation" in info,
        dtype=dtype,
    )


def device_dtype(precision: str) -> torch.dtype:
    """Return what to compute in for the component's *precision*, ``32`` or ``16``.

    16 is bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU, on which
    16 bits without that hardware are slower than 32.
    """
    if precision == "32":
        return torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    able = torch.cpu.get_capabilities()
    if able.get("avx512_bf16") or able.get("amx_bf16"):
        return torch.bfloat16
    print("This CPU does not compute in bfloat16: precision 32 is used")
    return torch.float32


def load_model(base: Path, training: TrainingParameters, dtype: torch.dtype) -> Any:
    """Return the model to be trained: all its weights in float32, or its adapters.

    Args:
        base: A Hugging Face folder.
        training: The parameters.
        dtype: What to compute in; also of weights that are not trained.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype if training.apply_lora else torch.float32,
        ignore_mismatched_sizes=training.ignore_mismatched_sizes,
        local_files_only=True,
    )
    model.config.use_cache = False
    if model.num_parameters() < TINY:
        torch.set_num_threads(1)
    if not training.apply_lora:
        return model
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            target_modules="all-linear",
            r=training.lora_r,
            lora_alpha=training.lora_alpha,
            lora_dropout=training.lora_dropout,
        ),
    )


def make_trainer(
    model: Any,
    training: TrainingParameters,
    plan: Plan,
    info: Mapping[str, Any],
    data: Path,
    work: Path,
    reporter: Reporter,
) -> Any:
    """Return the Trainer, ready to train.

    Args:
        model: What :func:`load_model` returned.
        training: The parameters.
        plan: How training goes.
        info: What the preprocess step said of the encoded rows.
        data: Where they are.
        work: Where checkpoints go.
        reporter: Who is told of metrics.
    """
    strategy = training.evaluation_strategy if plan.evaluates else "no"
    arguments = transformers.TrainingArguments(
        output_dir=str(work),
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps if training.max_steps > 0 else -1,
        per_device_train_batch_size=training.per_device_train_batch_size * training.devices,
        per_device_eval_batch_size=training.per_device_eval_batch_size * training.devices,
        auto_find_batch_size=training.auto_find_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        eval_accumulation_steps=(
            training.eval_accumulation_steps if training.eval_accumulation_steps > 0 else None
        ),
        prediction_loss_only=True,
        optim=training.optim,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        bf16=plan.dtype == torch.bfloat16,
        fp16=plan.dtype == torch.float16,
        seed=training.seed,
        full_determinism=training.enable_full_determinism,
        dataloader_num_workers=training.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        logging_strategy=training.logging_strategy,
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        eval_strategy=strategy,
        eval_steps=plan.eval_steps,
        # As in the component: what is evaluated is saved. Without evaluation each epoch is, so that
        # a step that loses its node goes on from there.
        save_strategy=strategy if plan.evaluates else "epoch",
        save_steps=plan.eval_steps,
        save_total_limit=training.save_total_limit if training.save_total_limit > 0 else None,
        load_best_model_at_end=plan.evaluates,
        metric_for_best_model="eval_loss" if plan.evaluates else None,
        greater_is_better=False if plan.evaluates else None,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=True,
        log_level="warning",
    )
    callbacks: list[Any] = [reporter]
    if training.apply_early_stopping and plan.evaluates:
        callbacks.append(
            transformers.EarlyStoppingCallback(
                training.early_stopping_patience, training.early_stopping_threshold
            )
        )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        data_collator=collator(
            info["pad_token_id"], info["max_seq_length"] if info["pad_to_max_length"] else None
        ),
        train_dataset=encoding.load(data, "train"),
        eval_dataset=encoding.load(data, "validation") if plan.evaluates else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def collator(
    pad_token: int, length: int | None
) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """Return what makes one batch of encoded rows, padded on the right.

    Args:
        pad_token: What fills up shorter rows; it is neither seen nor learned.
        length: How long each row becomes; None for the longest row of the batch.
    """

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        width = length or max(len(row["tokens"]) for row in rows)
        tokens = np.full((len(rows), width), pad_token, dtype=np.int64)
        labels = np.full((len(rows), width), encoding.IGNORED, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            end = len(row["tokens"])
            tokens[place, :end] = row["tokens"]
            labels[place, :end] = np.where(row["answers"], row["tokens"], encoding.IGNORED)
            mask[place, :end] = 1
        return {
            "input_ids": torch.from_numpy(tokens),
            "labels": torch.from_numpy(labels),
            "attention_mask": torch.from_numpy(mask),
        }

    return collate


def merge(folder: Path, target: Path) -> None:
    """Write the model of *folder*, with its adapter merged into it, to *target*."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    adapted = peft.PeftModel.from_pretrained(model, folder / ADAPTER)
    _save_weights(adapted.merge_and_unload(), folder, target)


def newest_checkpoint(work: Path) -> Path | None:
    """Return the newest whole checkpoint in *work*, or None, and remove what is newer.

    The Trainer writes ``trainer_state.json`` last; a process that was killed while it saved leaves
    none, or half of one.
    """
    found = sorted(
        work.glob("checkpoint-*"),
        key=lambda path: int(path.name.rpartition("-")[2]),
        reverse=True,
    )
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            print(f"{path.name} was not saved to its end and is not used")
            shutil.rmtree(path)
        else:
            return path
    return None


def _check_gpus(request: Request) -> None:
    if problem := gpu_problem(request.as_step()):
        raise StepFailed(problem)


def _check_room(
    request: Request,
    training: TrainingParameters,
    info: Mapping[str, Any],
    plan: Plan,
    base: Path,
) -> None:
    config = transformers.AutoConfig.from_pretrained(base, local_files_only=True)
    text = config.get_text_config()
    weights = resources.parameter_count(base)
    longest = info["max_seq_length"] if info["pad_to_max_length"] else info["train"]["longest"]
    what = f"Training {request.model.name or request.model.id}"
    if not torch.cuda.is_available():
        needed = resources.training_bytes(
            weights=weights,
            trained=0 if training.apply_lora else weights,
            size=plan.dtype.itemsize if training.apply_lora else 4,
            tokens=training.per_device_train_batch_size * training.devices * longest,
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            vocabulary=text.vocab_size,
        )
        resources.require_memory(needed, resources.available_memory(), what)
    # The model that is saved at the end; of all weights also one checkpoint with its optimizer.
    disk = 2 * weights if training.apply_lora else (2 + 12) * weights
    resources.require_disk(disk, request.work, what)


def _introduce(
    request: Request,
    training: TrainingParameters,
    info: Mapping[str, Any],
    plan: Plan,
    model: Any,
) -> None:
    per_step = (
        training.per_device_train_batch_size
        * training.devices
        * training.gradient_accumulation_steps
    )
    steps, epochs = plan.steps_per_epoch * training.num_train_epochs, training.num_train_epochs
    if training.max_steps > 0:
        steps, epochs = training.max_steps, math.ceil(training.max_steps / plan.steps_per_epoch)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    total = sum(one.numel() for one in model.parameters())
    how = f"LoRA of rank {training.lora_r}" if training.apply_lora else "all weights"
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        "***** Running training *****\n"
        f"  Num examples = {info['train']['rows']}\n"
        f"  Num Epochs = {epochs}\n"
        f"  Total train batch size = {per_step}\n"
        f"  Total optimization steps = {steps}\n"
        f"  Number of trainable parameters = {trained:,} of {total:,} ({how})\n"
        f"  Computing in {str(plan.dtype).removeprefix('torch.')} on {place}, for "
        f"{request.nodes} x {request.size}"
    )


def _save(model: Any, training: TrainingParameters, base: Path, target: Path) -> None:
    if not training.apply_lora:
        _save_weights(model, base, target)
    elif training.merge_lora_weights:
        _save_weights(model.merge_and_unload(), base, target)
    else:
        model.save_pretrained(target / ADAPTER)
        link_files(base, target)
        print("Base model and adapter saved")


def _save_weights(model: Any, base: Path, target: Path) -> None:
    """Write the model and what belongs to it; its weights in the type that the base has."""
    config = transformers.AutoConfig.from_pretrained(base, local_files_only=True)
    model.config.use_cache = True
    model.to(config.dtype or torch.float32).save_pretrained(target)
    # After it: what is saved must not be written through a link into the base model.
    link_files(base, target, leave=_WEIGHTS)
    print(f"Model saved: {sum(path.stat().st_size for path in target.iterdir()):,} bytes")
