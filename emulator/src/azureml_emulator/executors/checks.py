"""What a running step finds wrong with a pipeline's inputs.

The service accepts any literal at submit, and so does the SDK; only the first step of the running
job looks. The rules are those that the component declares of its own inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import Step

FILE_TYPES = ("uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model")


def problem(step: Step, exists: Callable[[str], bool]) -> str | None:
    """Return one sentence about why *step* cannot do its work, or None.

    Args:
        step: Any step; the validation and the training have something to find wrong.
        exists: Says whether a file or model is there.
    """
    if step.kind == "validation":
        return first_problem(step, exists)
    return gpu_problem(step) if step.kind == "finetune" else None


def first_problem(step: Step, exists: Callable[[str], bool]) -> str | None:
    """Return one sentence about the first input that cannot be used, or None.

    Args:
        step: The validation step.
        exists: Says whether a file or model is there.
    """
    for name, value in step.parameters.items():
        declared = step.declared[name]
        if declared["type"] in FILE_TYPES:
            problem = None if exists(value) else f"there is nothing at {value}"
        else:
            problem = _literal_problem(value, declared)
        if problem:
            return f"Invalid value for input '{name}': {problem}."
    return None


def gpu_problem(step: Step) -> str | None:
    """Return one sentence if the training step is to use more GPUs than a node has, or None."""
    asked = int(step.parameters.get("number_of_gpu_to_use_finetuning", "1"))
    if asked <= step.gpus:
        return None
    return (
        "RuntimeError: CUDA error: invalid device ordinal. Input "
        f"'number_of_gpu_to_use_finetuning' is {asked} and {step.size} has {step.gpus} GPUs."
    )


def _literal_problem(value: str, declared: Mapping[str, Any]) -> str | None:
    if enum := declared.get("enum"):
        allowed = [str(item) for item in enum]
        return None if value in allowed else f"'{value}' is not one of {allowed}"
    if declared["type"] == "boolean":
        return None if value.lower() in ("true", "false") else f"'{value}' is not a boolean"
    if declared["type"] not in ("integer", "number"):
        return None
    try:
        number = int(value) if declared["type"] == "integer" else float(value)
    except ValueError:
        return f"'{value}' is not of type {declared['type']}"
    low, high = declared.get("min"), declared.get("max")
    if low is not None and number < float(low):
        return f"{value} is less than the minimum {low}"
    if high is not None and number > float(high):
        return f"{value} is more than the maximum {high}"
    return None
