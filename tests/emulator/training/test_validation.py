"""The validation step: what is wrong with a job is known before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from azureml_emulator.training import validation
from azureml_emulator.training.request import Events, Request, StepFailed

from tests.emulator.training.asking import chat, request, write_rows


def run(asked: Request) -> None:
    """Run the step."""
    validation.run(asked, Events(asked.events))


def test_rows_of_every_split_are_checked_and_counted(tmp_path: Path) -> None:
    """The step's output says what it found."""
    rows = [chat("a", "b"), chat("c", "d")]
    files: dict[str, Path | None] = {
        "train_file_path": write_rows(tmp_path / "train.jsonl", rows),
        "validation_file_path": write_rows(tmp_path / "val.jsonl", rows[:1]),
    }
    asked = request(tmp_path, "validation", files)

    run(asked)

    info = asked.outputs["validation_info"] / "validation_info.json"
    assert {"train": 2, "validation": 1} == json.loads(info.read_text())["rows"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_bad_row_fails_the_step_in_any_split(tmp_path: Path, split: str) -> None:
    """Also in the files that are not trained on."""
    good, bad = [chat("a", "b")], [chat("a", "b"), {}]
    files: dict[str, Path | None] = {
        f"{name}_file_path": write_rows(tmp_path / f"{name}.jsonl", bad if name == split else good)
        for name in ("train", "validation", "test")
    }

    with pytest.raises(StepFailed, match=f"Row 2 of {split}.jsonl"):
        run(request(tmp_path, "validation", files))


def test_parameters_files_and_the_model_are_checked(tmp_path: Path) -> None:
    """By the component's rules, and by the trainer's own."""
    train: dict[str, Path | None] = {
        "train_file_path": write_rows(tmp_path / "train.jsonl", [chat("a", "b")])
    }
    empty: dict[str, Path | None] = {"train_file_path": write_rows(tmp_path / "no.jsonl", [])}

    def refused(files: dict[str, Path | None] | None, **given: object) -> str:
        with pytest.raises(StepFailed) as failed:
            run(request(tmp_path, "validation", files, **given))
        return str(failed.value)

    assert "'optim': 'sgd' is not one of" in refused(train, optim="sgd")
    assert "'lora_r': 0 should be 1 or more" in refused(train, lora_r=0)
    assert "there is nothing at azureml://train_file_path" in refused({"train_file_path": None})
    assert "there is nothing at azureml://model" in refused(train, weights=None)
    assert "No training data" in refused(None)
    assert "no.jsonl, which has no rows" in refused(empty)
