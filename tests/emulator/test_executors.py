"""The scripted executor: a step's script depends on its parameters and on nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.executors import Status, Step, executor
from azureml_emulator.executors.checks import first_problem, gpu_problem
from azureml_emulator.executors.scripted import ScriptedExecutor, files, script
from azureml_emulator.settings import Settings

TYPES = {"train_file_path": "uri_file", "num_train_epochs": "integer", "learning_rate": "number"}


def step(key: str = "chat_completion_finetune", **given: Any) -> Step:
    """Return a step with some parameters."""
    parameters = {"num_train_epochs": "3", "seed": "42", "learning_rate": "2e-5"} | given
    fault = parameters.pop("fault", None)
    declared = {name: {"type": TYPES.get(name, "string")} for name in parameters}
    return Step(
        "run-1", "ft-1", key, key, parameters, declared, ("out",), size="big", gpus=8, fault=fault
    )


class Notebook:
    """A host that writes down what it is told, and calls back at once."""

    def __init__(self, player: ScriptedExecutor) -> None:
        self.player = player
        self.text = ""
        self.metrics: list[tuple[int, Mapping[str, float]]] = []
        self.written: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.waits: list[float] = []

    def log(self, step: Step, text: str) -> None:
        """Keep the text."""
        self.text += text

    def record(self, step: Step, metrics: Mapping[str, float], *, at: int) -> None:
        """Keep the metrics."""
        self.metrics.append((at, metrics))

    def exists(self, uri: str) -> bool:
        """Everything is there that is not called missing."""
        return "missing" not in uri

    def locate(self, uri: str) -> Path | None:
        """Nothing is on this disk."""
        return None

    def upstream(self, step: Step, name: str) -> Path | None:
        """Nothing is on this disk."""
        return None

    def write(self, step: Step, output: str, path: str, data: bytes) -> None:
        """Keep the name."""
        self.written.append(f"{output}/{path}")

    def end(self, step: Step, status: Status = "Completed", *, message: str = "") -> None:
        """Keep the end."""
        self.ended.append((status, message))

    def seconds(self, name: str) -> float:
        """Everything takes twelve seconds."""
        return 12.0

    def wake(self, step: Step, *, after: float, beat: int) -> None:
        """Call back at once."""
        self.waits.append(after)
        self.player.wake(self, step, beat)


def played(one: Step) -> Notebook:
    """Return what a host was told of a step played to its end."""
    player = ScriptedExecutor()
    host = Notebook(player)
    player.start(host, one)
    return host


def test_the_same_parameters_give_the_same_script() -> None:
    """Deterministic: a test may compare two runs."""
    assert script(step(), rows=100) == script(step(), rows=100)
    assert script(step(), rows=100) != script(step(seed="7"), rows=100)


def test_training_goes_down_and_ends_with_an_evaluation() -> None:
    """Loss falls, steps rise, and eval_loss comes once."""
    host = played(step(max_steps="20"))

    losses = [metrics["loss"] for _, metrics in host.metrics if "loss" in metrics]
    assert losses[0] > losses[-1]
    steps = [at for at, _ in host.metrics]
    assert sorted(steps) == steps
    assert 1 == sum("eval_loss" in metrics for _, metrics in host.metrics)
    assert [("Completed", "")] == host.ended


def test_steps_follow_from_rows_and_batch_size() -> None:
    """80 of 100 rows, three epochs, batches of 2 x 2 on 2 GPUs: 30 steps."""
    sized = step(
        per_device_train_batch_size="2",
        gradient_accumulation_steps="2",
        number_of_gpu_to_use_finetuning="2",
    )

    assert "Total optimization steps = 30" in script(sized, rows=100)[0].text


def test_max_steps_wins_over_epochs() -> None:
    """As in the trainer."""
    assert "Total optimization steps = 5" in script(step(max_steps="5"), rows=100)[0].text


def test_the_beats_share_the_steps_time() -> None:
    """Whatever their number, a step takes ``job.step``."""
    assert 12.0 == pytest.approx(sum(played(step()).waits))


def test_a_fault_ends_the_step_half_way() -> None:
    """Some of the log is there, no output, and the status that was asked for."""
    host = played(step(fault={"status": "NotResponding", "message": "no heartbeat"}))

    assert [("NotResponding", "no heartbeat")] == host.ended
    assert ("Running training" in host.text, []) == (True, host.written)


def test_the_model_is_an_mlflow_folder() -> None:
    """MLmodel with flavors, environment files, and the base model's id."""
    import yaml

    made = files(
        step(mlflow_model_path="azureml://x/models/base/versions/1"), "mlflow_model_folder"
    )
    model = yaml.safe_load(made["MLmodel"])

    assert {"conda.yaml", "requirements.txt", "data/model/config.json"} < set(made)
    assert "azureml://x/models/base/versions/1" == model["metadata"]["base_model_asset_id"]
    assert "python_function" in model["flavors"]


def test_validation_names_the_first_bad_input() -> None:
    """Files must be there and numbers must be numbers."""
    missing = step(train_file_path="missing.jsonl")
    exists = Notebook(ScriptedExecutor()).exists

    assert None is first_problem(step(), exists)
    assert "'train_file_path': there is nothing at missing.jsonl" in str(
        first_problem(missing, exists)
    )
    assert "'learning_rate'" in str(first_problem(step(learning_rate="fast"), exists))


def test_gpus_are_counted() -> None:
    """As many as the node has, and no more."""
    assert None is gpu_problem(step(number_of_gpu_to_use_finetuning="8"))
    assert "has 8 GPUs" in str(gpu_problem(step(number_of_gpu_to_use_finetuning="9")))


def test_an_unknown_executor_is_refused(tmp_path: Path) -> None:
    """The message names those there are."""
    with pytest.raises(ValueError, match="known: train, scripted"):
        executor(Settings(tmp_path, jobs="magic"))
