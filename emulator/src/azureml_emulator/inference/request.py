"""What a deployment's container is told: the protocol with the scorer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """The model that is to be served, and where to say that it is.

    Args:
        id: The model's id as the deployment gives it.
        name: Its name in the registry or workspace.
        version: Its version.
        weights: What backs a model of the registry, as :mod:`~azureml_emulator.weights` knows it;
            None for a model of the workspace.
        folder: Where a model of the workspace lies; None for one of the registry.
        cache: The folder that keeps weights that were converted once.
        port: The file for the port, on 127.0.0.1, that the container listens on once it is ready.
        packaged: Where a model of the registry is made into an MLflow model; not there yet.
    """

    id: str
    name: str
    version: str
    weights: str | None
    folder: Path | None
    cache: Path
    port: Path
    packaged: Path


def read_request(path: Path) -> Request:
    """Return the request in the file *path*."""
    document = json.loads(path.read_text(encoding="utf-8"))
    folder = document["folder"]
    return Request(
        id=document["id"],
        name=document["name"],
        version=document["version"],
        weights=document["weights"],
        folder=None if folder is None else Path(folder),
        cache=Path(document["cache"]),
        port=Path(document["port"]),
        packaged=Path(document["packaged"]),
    )
