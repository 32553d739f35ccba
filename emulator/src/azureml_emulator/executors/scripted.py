"""Steps that only play: believable states, log lines, metrics and outputs, in no time of their own.

The same parameters give the same lines. Each step is a row of beats; ``job.step`` of the latency
table is spread over them, so that a log grows between two polls.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from . import Host, Step, strike
from .checks import problem

TRAINING_POINTS = 10


@dataclass(frozen=True)
class Beat:
    """What happens at one moment of a step.

    Args:
        text: What is printed.
        metrics: What is logged.
        at: The training step that the metrics belong to.
    """

    text: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    at: int = 0


class ScriptedExecutor:
    """Plays the script of a step, one beat after another."""

    def start(self, host: Host, step: Step) -> None:
        """Play the first beat."""
        self.wake(host, step, 0)

    def recover(self, host: Host, step: Step) -> None:
        """Do nothing: the next beat is an event, which outlives the emulator."""

    def wake(self, host: Host, step: Step, beat: int) -> None:
        """Play beat number *beat*, and ask for the next or end the step."""
        if beat == 0 and (wrong := problem(step, host.exists)):
            host.log(step, f"{wrong}\n")
            host.end(step, "Failed", message=wrong)
            return
        beats = script(step, rows=_training_rows(host, step))
        if step.fault is not None and beat == len(beats) // 2:
            strike(host, step)
            return
        if beat < len(beats):
            host.log(step, beats[beat].text)
            if beats[beat].metrics:
                host.record(step, beats[beat].metrics, at=beats[beat].at)
            host.wake(step, after=host.seconds("job.step") / len(beats), beat=beat + 1)
            return
        for output in step.outputs:
            for path, data in files(step, output).items():
                host.write(step, output, path, data)
        host.end(step)

    def stop(self, host: Host, step: Step) -> None:
        """Stop: nothing of this step lives outside the timeline."""

    def close(self) -> None:
        """Close: nothing runs."""


def script(step: Step, *, rows: int) -> list[Beat]:
    """Return the beats of *step*.

    Args:
        step: The step.
        rows: Rows of the training file.
    """
    if step.kind == "validation":
        return _validation(step)
    if step.kind == "model_import":
        return _model_import(step)
    if step.kind == "preprocess":
        return _preprocess(step, rows)
    if step.kind == "finetune":
        return _finetune(step, rows)
    return _convert(step)


def files(step: Step, output: str) -> dict[str, bytes]:
    """Return the files that *step* leaves in *output*, by path."""
    base = step.parameters.get("mlflow_model_path", step.parameters.get("huggingface_id", ""))
    if output == "mlflow_model_folder":
        return _mlflow_model(step, base)
    note = {"component": step.component, "job": step.job, "base_model": base, "scripted": True}
    return {f"{output}.json": json.dumps(note, indent=2).encode()}


def _training_rows(host: Host, step: Step) -> int:
    found = host.locate(step.parameters.get("train_file_path", ""))
    if found is None or not found.is_file():
        return 0
    return _rows(found, found.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _rows(path: Path, modified: int) -> int:
    with path.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _validation(step: Step) -> list[Beat]:
    parameters = step.parameters
    return [
        Beat(f"Validating the inputs of job {step.job}\n"),
        Beat(
            f"task_name: {parameters.get('task_name', '')}\n"
            f"compute_finetune: {parameters.get('compute_finetune', '')}\n"
            f"number_of_gpu_to_use_finetuning: "
            f"{parameters.get('number_of_gpu_to_use_finetuning', '')}\n"
        ),
        Beat("Validation of data and parameters succeeded\n"),
    ]


def _model_import(step: Step) -> list[Beat]:
    source = step.parameters.get("mlflow_model_path", step.parameters.get("huggingface_id", ""))
    return [
        Beat(f"Importing the model {source}\n"),
        Beat("Reading the MLflow model's configuration\n"),
        Beat("Model, tokenizer and configuration copied\n"),
    ]


def _held_out(step: Step, rows: int) -> int:
    return 0 if "validation_file_path" in step.parameters else rows // 5


def _preprocess(step: Step, rows: int) -> list[Beat]:
    length = step.parameters.get("max_seq_length", "-1")
    held_out = _held_out(step, rows)
    return [
        Beat(f"Reading {step.parameters.get('train_file_path', '')}\n"),
        Beat(f"{held_out} of {rows} rows of train are held out for validation\n"),
        Beat(f"Tokenizing {rows - held_out} rows, max_seq_length {length}\n"),
        Beat("Encoded data written\n"),
    ]


def _finetune(step: Step, rows: int) -> list[Beat]:
    parameters = step.parameters
    rows -= _held_out(step, rows)
    epochs = int(parameters.get("num_train_epochs", "1"))
    per_step = (
        int(parameters.get("per_device_train_batch_size", "1"))
        * int(parameters.get("gradient_accumulation_steps", "1"))
        * int(parameters.get("number_of_gpu_to_use_finetuning", "1"))
        * step.nodes
    )
    steps = max(math.ceil(rows * epochs / per_step), 1)
    if (limit := int(parameters.get("max_steps", "-1"))) > 0:
        steps, epochs = limit, max(math.ceil(limit * per_step / max(rows, 1)), 1)
    lora = "with LoRA" if parameters.get("apply_lora") == "true" else "all weights"
    beats = [
        Beat(
            "***** Running training *****\n"
            f"  Num examples = {rows}\n"
            f"  Num Epochs = {epochs}\n"
            f"  Total train batch size = {per_step}\n"
            f"  Total optimization steps = {steps} ({lora}, {step.nodes} x {step.size})\n"
        )
    ]
    points = min(steps, TRAINING_POINTS)
    for point in range(1, points + 1):
        beats.append(_training_point(step, math.ceil(steps * point / points), steps, epochs))
    last = beats[-1].metrics
    evaluation = {"eval_loss": round(last["loss"] * 1.08 + 0.02, 4), "epoch": float(epochs)}
    beats.append(Beat(f"{json.dumps(evaluation)}\n", evaluation, steps))
    summary = {"train_loss": round(last["loss"] * 1.3, 4), "total_steps": float(steps)}
    beats.append(Beat(f"Training completed. {json.dumps(summary)}\n", summary, steps))
    return beats


def _training_point(step: Step, at: int, steps: int, epochs: int) -> Beat:
    done = at / steps
    seed = int(step.parameters.get("seed", "42"))
    ripple = 0.03 * math.sin(seed + 7 * at)
    rate = float(step.parameters.get("learning_rate", "2e-5"))
    if step.parameters.get("lr_scheduler_type") == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    elif not step.parameters.get("lr_scheduler_type", "").startswith("constant"):
        rate *= 1 - done
    metrics = {
        "loss": round(0.35 + 1.75 * math.exp(-3 * done) + ripple, 4),
        "learning_rate": rate,
        "epoch": round(epochs * done, 2),
    }
    return Beat(f"step {at}/{steps} {json.dumps(metrics)}\n", metrics, at)


def _convert(step: Step) -> list[Beat]:
    return [
        Beat("Loading the fine-tuned weights\n"),
        Beat("Saving the model in MLflow format\n"),
        Beat("Model saved\n"),
    ]


def _mlflow_model(step: Step, base: str) -> dict[str, bytes]:
    model = (
        "artifact_path: mlflow_model_folder\n"
        "flavors:\n"
        "  hftransformersv2:\n"
        "    hf_pretrained_class: AutoModelForCausalLM\n"
        "    task_type: chat-completion\n"
        "  python_function:\n"
        "    loader_module: scripted\n"
        "    python_version: 3.11.7\n"
        "metadata:\n"
        f"  base_model_asset_id: {json.dumps(base)}\n"
        "  scripted: true\n"
        f"run_id: {step.run_id}\n"
    )
    config = {"_name_or_path": Path(base).name, "job": step.job, "scripted": True}
    return {
        "MLmodel": model.encode(),
        "conda.yaml": b"dependencies:\n- python=3.11\n- pip:\n  - mlflow\nname: mlflow-env\n",
        "requirements.txt": b"mlflow\n",
        "data/model/config.json": json.dumps(config, indent=2).encode(),
    }
