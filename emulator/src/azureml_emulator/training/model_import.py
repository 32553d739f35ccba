"""The second step, *model import*: the base model's Hugging Face folder, for the steps that follow.

Files are linked, not copied: weights can be many gigabytes, and nothing writes into a step's
output again.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from .request import Events, Request, StepFailed

CONFIG = "config.json"
ADAPTER = "adapter"
"""The folder of an adapter that was not merged, within the folder of its base model."""

# Weights for other frameworks, and checksums, which are of the original alone.
_LEFT_OUT = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", "SHA256SUMS")


def run(request: Request, events: Events) -> None:
    """Leave the base model in ``output_dir``.

    Raises:
        StepFailed: There is no model whose weights could be had.
    """
    folder = _source(request)
    print(f"Importing {request.model.name or request.model.id}")
    names = link_files(folder, request.outputs["output_dir"])
    print(f"Model, tokenizer and configuration linked: {', '.join(names)}")


def link_files(source: Path, target: Path, *, leave: tuple[str, ...] = ()) -> list[str]:
    """Give the files of the folder *source* a second name in the folder *target*.

    Args:
        source: A Hugging Face folder; weights for other frameworks are left out.
        target: An existing folder, also on another disk: then the files are copied.
        leave: Endings of names that are not wanted.

    Returns:
        The names, sorted.
    """
    names = []
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name.endswith((*_LEFT_OUT, *leave)):
            continue
        if (target / path.name).exists():
            continue
        try:
            # Resolved: the Hugging Face cache is made of links, and one to a link can dangle.
            os.link(path.resolve(), target / path.name)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(path, target / path.name)
        names.append(path.name)
    return names


def _source(request: Request) -> Path:
    model = request.model
    given = request.files.get("pytorch_model_path") or model.folder
    if given is not None:
        return _huggingface_folder(given)
    if model.weights is not None:
        # The module that makes weights is imported where there is something to make.
        from .. import weights

        try:
            print(weights.describe(model.weights))
            return weights.materialize(model.weights, model.cache)
        except weights.WeightsError as error:
            raise StepFailed(str(error)) from error
    if hub_id := request.parameters.get("huggingface_id"):
        raise StepFailed(
            f"Input 'huggingface_id' is {hub_id}, and the emulator downloads nothing: start it "
            f"with --weights NAME=FOLDER and give that model as mlflow_model_path."
        )
    raise StepFailed("No base model: give mlflow_model_path, the id of a model.")


def _huggingface_folder(folder: Path) -> Path:
    """Return the folder of weights in *folder*, which may be an MLflow model around it."""
    found = sorted(folder.rglob(CONFIG), key=lambda path: len(path.parts))
    for path in found:
        if any(path.parent.glob("*.safetensors")) or any(path.parent.glob("pytorch_model*.bin")):
            return path.parent
    raise StepFailed(
        f"The base model in {folder.name} has no folder with {CONFIG} and *.safetensors: give a "
        f"model in Hugging Face's format, as save_pretrained() writes it."
    )
