"""The model import step: the base model is put in place without copying or changing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from azureml_emulator.training import model_import
from azureml_emulator.training.model_import import link_files
from azureml_emulator.training.request import Events, Request, StepFailed

from tests.emulator.training.asking import request


def run(asked: Request) -> Path:
    """Run the step and return its output."""
    model_import.run(asked, Events(asked.events))
    return asked.outputs["output_dir"]


def model_folder(folder: Path) -> Path:
    """Make what looks like a Hugging Face folder."""
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "LICENSE", "model.onnx", "SHA256SUMS"):
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def test_the_files_of_a_folder_are_linked_and_not_those_of_other_frameworks(
    tmp_path: Path,
) -> None:
    """Gigabytes take no time and no disk; checksums of the original are left out."""
    source = model_folder(tmp_path / "source")

    output = run(request(tmp_path, "model_import", weights=None, model=source))

    names = {path.name for path in output.iterdir()}
    assert {"config.json", "model.safetensors", "LICENSE"} == names
    assert (output / "model.safetensors").samefile(source / "model.safetensors")


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """In the Hugging Face cache every file is a relative link to a blob."""
    source = model_folder(tmp_path / "blobs")
    snapshot, target = tmp_path / "snapshot", tmp_path / "target"
    snapshot.mkdir()
    target.mkdir()
    (snapshot / "config.json").symlink_to(Path("../blobs/config.json"))

    assert ["config.json"] == link_files(snapshot, target)
    assert not (target / "config.json").is_symlink()
    assert (target / "config.json").samefile(source / "config.json")


def test_a_model_of_the_workspace_can_be_tuned_again(tmp_path: Path) -> None:
    """The Hugging Face folder is found in the MLflow model around it."""
    model_folder(tmp_path / "mlflow" / "artifacts" / "weights")
    (tmp_path / "mlflow" / "MLmodel").write_text("flavors: {}", encoding="utf-8")

    output = run(request(tmp_path, "model_import", weights=None, model=tmp_path / "mlflow"))

    assert (output / "config.json").is_file()


def test_a_model_that_cannot_be_had_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """A folder without weights, the hub, and no model at all."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(StepFailed, match=r"save_pretrained\(\)"):
        run(request(tmp_path, "model_import", weights=None, model=tmp_path / "empty"))
    with pytest.raises(StepFailed, match="--weights NAME=FOLDER"):
        run(request(tmp_path, "model_import", weights=None, huggingface_id="org/model"))
    with pytest.raises(StepFailed, match="give mlflow_model_path"):
        run(request(tmp_path, "model_import", weights=None))
