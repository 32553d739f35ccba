"""What a container is asked to do, and what it reports: the protocol with the executor.

The request is a JSON file. The reports are JSON lines in the events file: metrics as they come, and
at most one sentence that says why the step failed. What is printed is the step's log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..executors import Step


class StepFailed(Exception):
    """The step cannot be done. The message is one sentence with its remedy, for the job's error."""


@dataclass(frozen=True)
class BaseModel:
    """The model that is to be fine-tuned.

    Args:
        id: Its id as the job gave it.
        name: Its name in the registry or workspace.
        version: Its version.
        weights: What backs a model of the registry, as :mod:`~azureml_emulator.weights` knows it;
            None for a model of the workspace.
        folder: Where a model of the workspace lies; None for one of the registry.
        cache: The folder that keeps weights that were converted once.
    """

    id: str
    name: str
    version: str
    weights: str | None
    folder: Path | None
    cache: Path


@dataclass(frozen=True)
class Request:
    """One step to be carried out.

    Args:
        step: ``validation``, ``model_import``, ``preprocess``, ``finetune`` or ``convert``.
        job: The name of the pipeline job.
        run_id: The step's own run.
        parameters: Every input of the pipeline component, as strings, defaults filled in.
        declared: What the component declares of each: type, enum, min, max.
        files: Where each input that is a file or a model lies; None if there is nothing.
        upstream: The folders of earlier steps, by the name of the step's input.
        model: The base model.
        outputs: An empty folder for each output.
        work: A folder that outlives the process: a step that is begun anew finds it as it was.
        events: The file for reports.
        gpus: GPUs of one emulated node.
        nodes: Emulated nodes.
        size: The emulated VM size.
    """

    step: str
    job: str
    run_id: str
    parameters: Mapping[str, str]
    declared: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Path | None]
    upstream: Mapping[str, Path]
    model: BaseModel
    outputs: Mapping[str, Path]
    work: Path
    events: Path
    gpus: int
    nodes: int
    size: str

    def as_step(self) -> Step:
        """Return what the executors' checks look at."""
        return Step(
            run_id=self.run_id,
            job=self.job,
            key=self.step,
            component=self.step,
            parameters=self.parameters,
            declared=self.declared,
            outputs=tuple(self.outputs),
            size=self.size,
            gpus=self.gpus,
            nodes=self.nodes,
        )


class Events:
    """Writes reports, one line each, readable as soon as it is written.

    Args:
        path: The events file; appended to, for the step may have been begun before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Report the metrics of the training step number *step*."""
        self._append({"metrics": dict(values), "step": step})

    def failed(self, sentence: str) -> None:
        """Report why the step failed."""
        self._append({"failed": sentence})

    def _append(self, event: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


def read_request(path: Path) -> Request:
    """Return the request in the file *path*."""
    document = json.loads(path.read_text(encoding="utf-8"))
    model = document["model"]
    return Request(
        step=document["step"],
        job=document["job"],
        run_id=document["run_id"],
        parameters=document["parameters"],
        declared=document["declared"],
        files={name: _path(value) for name, value in document["files"].items()},
        upstream={name: Path(value) for name, value in document["upstream"].items()},
        model=BaseModel(
            id=model["id"],
            name=model["name"],
            version=model["version"],
            weights=model["weights"],
            folder=_path(model["folder"]),
            cache=Path(model["cache"]),
        ),
        outputs={name: Path(value) for name, value in document["outputs"].items()},
        work=Path(document["work"]),
        events=Path(document["events"]),
        gpus=document["gpus"],
        nodes=document["nodes"],
        size=document["size"],
    )


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)
