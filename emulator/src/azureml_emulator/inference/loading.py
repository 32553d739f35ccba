"""From a request to a model that answers: found, or made of weights, and loaded by mlflow."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from ..training.resources import GIB, MIB, RUNTIME_BYTES, available_memory
from .request import Request

SEED = 0
"""Sampled replies are the same from one start of a container to the next."""

_SMALL_BYTES = 64 * MIB

logger = logging.getLogger("azmlinfsrv")


class LoadError(Exception):
    """The model cannot be served. The message is one sentence with its remedy."""


def load(request: Request) -> Any:
    """Return the model that *request* names, as ``mlflow.pyfunc.load_model`` gives it.

    Raises:
        LoadError: There is no MLflow model, no weights for it, or too little memory.
    """
    folder = request.folder or _packaged(request)
    if not (folder / "MLmodel").is_file():
        raise LoadError(
            f"{request.name}:{request.version} is no MLflow model, since it has no file MLmodel, "
            "and the emulator serves no other: register the output of a job, or a folder that "
            "mlflow has saved, as mlflow_model"
        )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _check_memory(request, size)
    if size < _SMALL_BYTES:
        # So small a model loses more by sharing the work than it gains. Read when torch is
        # imported.
        os.environ["OMP_NUM_THREADS"] = "1"
    from mlflow import pyfunc

    model = pyfunc.load_model(str(folder))
    if torch := sys.modules.get("torch"):
        torch.manual_seed(SEED)
    return model


def _packaged(request: Request) -> Path:
    if request.weights is None:
        raise LoadError(f"There is nothing where the model {request.id} was: register it again")
    from .. import weights
    from ..packaging import package

    logger.info("%s", weights.describe(request.weights))
    try:
        found = weights.materialize(request.weights, request.cache)
    except weights.WeightsError as error:
        raise LoadError(str(error)) from error
    request.packaged.mkdir(parents=True)
    package(found, request.packaged, base_model=request.id)
    return request.packaged


def _check_memory(request: Request, size: int) -> None:
    needed, available = RUNTIME_BYTES + size, available_memory()
    if needed > available:
        raise LoadError(
            f"Serving {request.name}:{request.version} needs about {needed / GIB:.1f} GiB of "
            f"memory and {available / GIB:.1f} GiB are available: close other programs, delete "
            "other deployments, or deploy a smaller model"
        )
