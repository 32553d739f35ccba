"""Requests to the trainer, as the executor writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import azureml_emulator
from azureml_emulator.processes import Container
from azureml_emulator.training.request import Request, read_request

COMPONENT = "catalogs/components/chat_completion_pipeline.json"
OUTPUTS = {
    "validation": "validation_info",
    "model_import": "output_dir",
    "preprocess": "output_dir",
    "finetune": "pytorch_model_folder",
    "convert": "mlflow_model_folder",
}
UPSTREAM = {
    "preprocess": {"model_selector_output": "model_import"},
    "finetune": {"preprocess_output": "preprocess", "model_selector_output": "model_import"},
    "convert": {"model_path": "finetune"},
}


def declared() -> dict[str, dict[str, Any]]:
    """Return what the pipeline component declares of its inputs."""
    path = Path(azureml_emulator.__file__).parent / COMPONENT
    inputs: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["inputs"]
    return inputs


def parameters(**given: object) -> dict[str, str]:
    """Return every input of the component that has a default, and those given."""
    defaults = {
        name: str(one["default"])
        for name, one in declared().items()
        if one.get("default") is not None
    }
    return defaults | {name: str(value) for name, value in given.items()}


def ask(
    folder: Path,
    step: str,
    files: Mapping[str, Path | None] | None = None,
    *,
    weights: str | None = "tiny",
    model: Path | None = None,
    **given: object,
) -> Path:
    """Write the request for one step of the job in *folder*, and return its path.

    The steps of one folder find each other's outputs. Each of the *files* becomes an input of the
    job, whether or not it is there.
    """
    files = files or {}
    values = parameters(**{name: f"azureml://{name}" for name in files}, **given)
    values.setdefault("mlflow_model_path", "azureml://model")
    place = folder / step
    output = place / OUTPUTS[step]
    for made in (output, place / "work"):
        made.mkdir(parents=True, exist_ok=True)
    document = {
        "step": step,
        "job": "ft-1",
        "run_id": f"ft-1-{step}",
        "parameters": values,
        "declared": {name: declared()[name] for name in values},
        "files": {name: None if path is None else str(path) for name, path in files.items()},
        "upstream": {
            name: str(folder / source / OUTPUTS[source])
            for name, source in UPSTREAM.get(step, {}).items()
        },
        "model": {
            "id": values["mlflow_model_path"],
            "name": "tiny",
            "version": "1",
            "weights": weights,
            "folder": None if model is None else str(model),
            "cache": str(folder / "cache"),
        },
        "outputs": {OUTPUTS[step]: str(output)},
        "work": str(place / "work"),
        "events": str(place / "events"),
        "gpus": 8,
        "nodes": 1,
        "size": "Standard_ND40rs_v2",
    }
    path = place / "request.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def request(folder: Path, step: str, *rest: Any, **given: Any) -> Request:
    """Return what :func:`ask` writes, as the trainer reads it."""
    return read_request(ask(folder, step, *rest, **given))


def events(folder: Path, step: str) -> list[dict[str, Any]]:
    """Return what a step reported."""
    path = folder / step / "events"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def chat(*contents: str) -> dict[str, Any]:
    """Return a row in which user and assistant speak in turn."""
    roles = ("user", "assistant")
    return {
        "messages": [
            {"role": roles[place % 2], "content": content} for place, content in enumerate(contents)
        ]
    }


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Write *rows* as JSON Lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def train(folder: Path, files: Mapping[str, Path | None], **given: object) -> None:
    """Do the five steps of a job on the stand-in, each in a process of its own."""
    for step in OUTPUTS:
        code = run_container(ask(folder, step, files, **given))
        assert 0 == code, (folder / step / "log").read_text(encoding="utf-8")


def run_container(request: Path) -> int:
    """Run the process of a step to its end, and return its exit code."""
    code = start_container(request).wait()
    assert code is not None
    return code


def start_container(request: Path) -> Container:
    """Start the process of a step."""
    place = request.parent
    return Container(
        "azureml_emulator.training",
        [str(request)],
        log=place / "log",
        scratch=place / "scratch",
    )
