"""The five steps as real processes: what they leave, report, and say when they fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.emulator.conftest import TrainedModel
from tests.emulator.training.asking import (
    ask,
    chat,
    events,
    run_container,
    start_container,
    write_rows,
)


def test_a_job_trains_the_stand_in_and_leaves_an_mlflow_model(trained_model: TrainedModel) -> None:
    """The loss falls, is reported as it falls, and the model is packaged with its weights."""
    reported = events(trained_model.job, "finetune")

    losses = [event["metrics"]["loss"] for event in reported if "loss" in event["metrics"]]
    told = yaml.safe_load((trained_model.mlflow / "MLmodel").read_text(encoding="utf-8"))
    log = (trained_model.job / "finetune" / "log").read_text(encoding="utf-8")
    assert losses[-1] < losses[0] / 3
    assert "python_function" in told["flavors"]
    assert (trained_model.weights / "model.safetensors").is_file()
    assert any(trained_model.mlflow.rglob("model.safetensors"))
    assert f"step {reported[-1]['step']}/{reported[-1]['step']}" in log


def test_bad_data_fails_the_process_with_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    """Which the executor takes for the job's error."""
    path = write_rows(tmp_path / "train.jsonl", [chat("a", "b"), {"messages": []}])

    code = run_container(ask(tmp_path, "validation", {"train_file_path": path}))

    (event,) = events(tmp_path, "validation")
    log = (tmp_path / "validation" / "log").read_text(encoding="utf-8")
    assert 1 == code
    assert event["failed"].startswith("Row 2 of train.jsonl cannot be used")
    assert event["failed"] in log
    assert "Traceback" not in log


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_fails_the_process_with_the_remedy(tmp_path: Path) -> None:
    """The step's output has no room."""
    path = write_rows(tmp_path / "train.jsonl", [chat("a", "b")])
    asked = ask(tmp_path, "validation", {"train_file_path": path})
    output = asked.parent / "validation_info" / "validation_info.json"
    output.symlink_to("/dev/full")

    code = run_container(asked)

    (event,) = events(tmp_path, "validation")
    assert 1 == code
    assert "is full: free some space" in event["failed"]


@pytest.mark.long
def test_a_killed_process_goes_on_from_its_checkpoint(
    tmp_path: Path, trained_model: TrainedModel
) -> None:
    """SIGKILL in the middle of training; the weights at the end are those of an undisturbed run."""
    asked = tmp_path / "finetune" / "request.json"
    asked.parent.mkdir()
    request = json.loads((trained_model.job / "finetune" / "request.json").read_text())
    trained = trained_model.weights / "model.safetensors"
    output = asked.parent / "pytorch_model_folder"
    request |= {
        "outputs": {output.name: str(output)},
        "work": str(asked.parent / "work"),
        "events": str(asked.parent / "events"),
    }
    output.mkdir()
    (asked.parent / "work").mkdir()
    asked.write_text(json.dumps(request))

    container = start_container(asked)
    while not list((asked.parent / "work").glob("checkpoint-*")):
        assert container.poll() is None
        time.sleep(0.01)
    container.stop()
    code = run_container(asked)

    assert -signal.SIGKILL == container.poll()
    assert 0 == code
    assert trained.read_bytes() == (output / "model.safetensors").read_bytes()


def test_an_error_that_nobody_foresaw_is_a_crash_with_its_traceback(tmp_path: Path) -> None:
    """No sentence is made up for a bug."""
    code = run_container(ask(tmp_path, "validation", {"train_file_path": tmp_path / "gone.jsonl"}))

    assert 1 == code
    assert [] == events(tmp_path, "validation")
    assert "Traceback" in (tmp_path / "validation" / "log").read_text(encoding="utf-8")


def test_validation_and_import_leave_torch_alone() -> None:
    """They take a tenth of a second, and a machine without torch can be told what is wrong."""
    modules = "azureml_emulator.training.validation, azureml_emulator.training.model_import"
    code = f"import sys, {modules}; print({{'torch', 'transformers', 'mlflow'}} & set(sys.modules))"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "set()" == said.stdout.strip()
