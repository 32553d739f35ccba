"""The training inputs of ``chat_completion_pipeline`` as the trainer reads them.

Names, defaults and enums are the component's (``finetune_acft_hf_nlp`` of Azure/azureml-assets);
docs/internals/training.md has the table of what each does here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

Strategy = Literal["epoch", "steps", "disable"]

NOT_APPLIED: Mapping[str, str] = {
    "apply_deepspeed": "one process trains, so there is nothing to shard",
    "deepspeed": "one process trains, so there is nothing to shard",
    "apply_ort": "the component itself turns ONNX Runtime off",
    "finetune_config_path": "the model's own files say how it is loaded",
    "trust_remote_code": "code that comes with a model is not run",
    "resume_from_checkpoint": "a job begins without one; a step that lost its node resumes",
    "evaluation_config": "no step evaluates, as on Azure",
    "evaluation_config_params": "no step evaluates, as on Azure",
}
"""Inputs that are accepted and have no effect, and why."""

_UNSET = ("", "false")
_ABOVE_ZERO = 1e-300
_BELOW_ONE = 1 - 1e-9
_BOUNDS: Mapping[str, tuple[float | None, float | None]] = {
    "lora_r": (1, None),
    "lora_alpha": (1, None),
    "lora_dropout": (0, _BELOW_ONE),
    "gradient_accumulation_steps": (1, None),
    "warmup_steps": (0, None),
    "weight_decay": (0, None),
    "adam_beta1": (0, _BELOW_ONE),
    "adam_beta2": (0, _BELOW_ONE),
    "adam_epsilon": (_ABOVE_ZERO, None),
    "max_grad_norm": (0, None),
    "eval_steps": (1, None),
    "logging_steps": (1, None),
    "early_stopping_patience": (1, None),
    "early_stopping_threshold": (0, None),
    "dataloader_num_workers": (0, None),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True)
class TrainingParameters:
    """The inputs that the trainer honours, by their own names and in their own units."""

    apply_lora: bool
    merge_lora_weights: bool
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    num_train_epochs: int
    max_steps: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    auto_find_batch_size: bool
    gradient_accumulation_steps: int
    eval_accumulation_steps: int
    number_of_gpu_to_use_finetuning: int
    num_nodes_finetune: int
    optim: str
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    precision: str
    seed: int
    enable_full_determinism: bool
    dataloader_num_workers: int
    ignore_mismatched_sizes: bool
    evaluation_strategy: Strategy
    evaluation_steps_interval: float
    eval_steps: int
    logging_strategy: str
    logging_steps: int
    metric_for_best_model: str
    save_total_limit: int
    apply_early_stopping: bool
    early_stopping_patience: int
    early_stopping_threshold: float
    batch_size: int
    max_seq_length: int
    pad_to_max_length: bool

    @property
    def devices(self) -> int:
        """How many GPUs the cluster would train on."""
        return self.number_of_gpu_to_use_finetuning * self.num_nodes_finetune


def read(parameters: Mapping[str, str]) -> TrainingParameters:
    """Return the training inputs among *parameters*, whose types were checked.

    Args:
        parameters: Every input of the pipeline component, defaults filled in.
    """
    values = {field.name: _READ[str(field.type)](parameters[field.name]) for field in _fields()}
    return TrainingParameters(**cast(Any, values))


def problem(training: TrainingParameters) -> str | None:
    """Return one sentence about the first value with which training could not go well, or None.

    These are the rules that the component does not declare, and its trainer has or ought to have.
    """
    if training.learning_rate <= 0:
        return "Invalid learning rate. Learning rate should be greater than 0."
    for name, (low, high) in _BOUNDS.items():
        value = getattr(training, name)
        if low is not None and value < low:
            least = "more than 0" if low == _ABOVE_ZERO else f"{low} or more"
            return f"Invalid value for input '{name}': {value} should be {least}."
        if high is not None and value > high:
            most = "less than 1" if high == _BELOW_ONE else f"{high} or less"
            return f"Invalid value for input '{name}': {value} should be {most}."
    if training.max_seq_length != -1 and training.max_seq_length < 1:
        return (
            f"Invalid value for input 'max_seq_length': {training.max_seq_length} should be -1 (as "
            f"long as the model can) or 1 or more."
        )
    if training.apply_early_stopping and training.evaluation_strategy == "disable":
        return (
            "Set evaluation_strategy to one of steps or epoch when apply_early_stopping is True. "
            "Current evaluation_strategy is disable."
        )
    return None


def notices(parameters: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each input that was set and has no effect.

    Args:
        parameters: Every input of the pipeline component, defaults filled in.
    """
    for name, why in NOT_APPLIED.items():
        if parameters.get(name, "") not in _UNSET:
            yield f"Accepted and not applied: {name} = {parameters[name]} ({why})"
    if (metric := parameters.get("metric_for_best_model", "loss")) != "loss":
        yield (
            f"Accepted and not applied: metric_for_best_model = {metric} (nothing is generated "
            f"while training, so the loss decides)"
        )


def _fields() -> tuple[Any, ...]:
    return fields(TrainingParameters)


def _boolean(text: str) -> bool:
    return text.lower() == "true"


_READ: Mapping[str, Callable[[str], Any]] = {
    "bool": _boolean,
    "int": int,
    "float": float,
    "str": str,
    "Strategy": str,
}
