"""The first step, *validation*: every parameter and every row, before anything is trained."""

from __future__ import annotations

import json

from ..executors.checks import first_problem
from . import parameters
from .conversations import conversations, split_path
from .request import Events, Request, StepFailed

SPLITS = ("train", "validation", "test")


def run(request: Request, events: Events) -> None:
    """Check the inputs, and leave the number of rows in ``validation_info``.

    Raises:
        StepFailed: A parameter or a row cannot be used.
    """
    print(f"Validating the inputs of job {request.job}")
    _check_parameters(request)
    rows = {}
    for split in SPLITS:
        path = split_path(request, split)
        if path is not None:
            rows[split] = sum(1 for _ in conversations(path))
            print(f"{split}: {rows[split]} conversations in {path.name}")
            if not rows[split]:
                raise StepFailed(f"Input '{split}_file_path' is {path.name}, which has no rows.")
    if "train" not in rows:
        raise StepFailed(
            "No training data: give train_file_path, a file with one conversation a line."
        )
    info = json.dumps({"job": request.job, "rows": rows}, indent=2)
    (request.outputs["validation_info"] / "validation_info.json").write_text(info, encoding="utf-8")
    print("Validation of data and parameters succeeded")


def _check_parameters(request: Request) -> None:
    there = {request.parameters[name] for name, path in request.files.items() if path is not None}
    if request.model.weights is not None or request.model.folder is not None:
        there.add(request.model.id)
    sentence = first_problem(request.as_step(), there.__contains__)
    sentence = sentence or parameters.problem(parameters.read(request.parameters))
    if sentence:
        raise StepFailed(sentence)
