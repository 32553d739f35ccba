"""Where the bytes behind an ``azureml://`` address lie: inputs, outputs and models.

Addresses of files are those of the datastores, in the short form and in the long one that the SDK
makes of it (``azureml://subscriptions/…/datastores/D/paths/P``).
"""

from __future__ import annotations

import re
from pathlib import Path

from ..emulator import Emulator
from ..settings import RESOURCE_GROUP, SUBSCRIPTION_ID, WORKSPACE_ID, WORKSPACE_NAME
from ..store import Document
from . import storage
from .datastores import CONTAINERS, DEFAULT

MODEL = "model"
"""The kind under which the workspace's models are kept, by ARM id."""

_DATASTORE = re.compile(r"azureml://(?:.*/)?datastores/([^/]+)/paths/(.+)", re.IGNORECASE)
_REGISTRY_MODEL = re.compile(r"azureml://registries/[^/]+/models/([^/]+)/versions/([^/]+)")
_WORKSPACE_MODEL = re.compile(
    r"(?:azureml:)?/subscriptions/.*/models/([^/]+)/versions/([^/]+)|azureml:([^/:]+):([^/:]+)",
    re.IGNORECASE,
)


def output_uri(owner: str, output: str) -> str:
    """Return where the run *owner* leaves its *output*, a folder."""
    return f"azureml://datastores/{DEFAULT}/paths/azureml/{owner}/{output}/"


def long_uri(uri: str) -> str:
    """Return the long form of a datastore's address."""
    match = _DATASTORE.fullmatch(uri)
    assert match is not None, uri
    return (
        f"azureml://subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}/workspaces/"
        f"{WORKSPACE_NAME}/datastores/{match[1]}/paths/{match[2]}"
    )


def blob_of(uri: str) -> tuple[str, str] | None:
    """Return container and blob (of a folder, without its last slash) of a datastore address."""
    match = _DATASTORE.fullmatch(uri)
    if match is None or match[1] not in CONTAINERS:
        return None
    return CONTAINERS[match[1]], match[2].rstrip("/")


def exists(emulator: Emulator, uri: str) -> bool:
    """Return whether there is a file, a folder with something in it, or a model at *uri*."""
    if match := _REGISTRY_MODEL.fullmatch(uri):
        wanted = (match[1].lower(), match[2])
        return any(
            (one["name"].lower(), one["version"]) == wanted for one in emulator.catalog.models
        )
    if find_model(emulator, uri) is not None:
        return True
    return locate(emulator, uri) is not None


def find_model(emulator: Emulator, uri: str) -> Document | None:
    """Return the workspace's model whose id is *uri*, or None."""
    match = _WORKSPACE_MODEL.fullmatch(uri)
    if match is None:
        return None
    name, version = match[1] or match[3], match[2] or match[4]
    return emulator.store.get(MODEL, f"{WORKSPACE_ID}/models/{name}/versions/{version}")


def locate(emulator: Emulator, uri: str) -> Path | None:
    """Return the file or folder at a datastore's address, or None if there is nothing."""
    found = blob_of(uri)
    if found is None:
        return None
    container, name = found
    if storage.find_blob(emulator, container, name) or storage.list_blobs(
        emulator, container, f"{name}/"
    ):
        return storage.blob_path(emulator, container, name)
    return None


def model_at(emulator: Emulator, uri: str) -> Document:
    """Return what is known of the model at *uri*, the id of one or the address of a folder.

    Returns:
        ``id``, ``name``, ``version``, ``weights`` (what backs a model of the registry, see
        :mod:`~azureml_emulator.weights`) and ``folder`` (with its files, for any other); None for
        what there is not.
    """
    model: Document = {"id": uri, "name": uri, "version": "", "weights": None, "folder": None}
    folder = uri
    if match := _REGISTRY_MODEL.fullmatch(uri):
        weights = emulator.catalog.weights(match[1], match[2])
        return model | {"name": match[1], "version": match[2], "weights": weights}
    if kept := find_model(emulator, uri):
        name, version = kept["id"].split("/models/")[1].split("/versions/")
        model |= {"name": name, "version": version}
        folder = kept["properties"]["modelUri"]
    found = locate(emulator, folder)
    return model | {"folder": None if found is None else str(found)}


def read(emulator: Emulator, folder: str, path: str) -> bytes | None:
    """Return the bytes of the file *path* in the folder with the address *folder*, or None."""
    found = blob_of(folder)
    return None if found is None else storage.read_blob(emulator, found[0], f"{found[1]}/{path}")


def write(emulator: Emulator, folder: str, path: str, data: bytes) -> None:
    """Keep *data* as the file *path* in the folder with the address *folder*."""
    found = blob_of(folder)
    assert found is not None, folder
    storage.write_blob(emulator, found[0], f"{found[1]}/{path}", data)


def adopt(emulator: Emulator, folder: str, files: Path) -> None:
    """Move the files below *files* to the folder with the address *folder*."""
    found = blob_of(folder)
    assert found is not None, folder
    for file in sorted(path for path in files.rglob("*") if path.is_file()):
        name = f"{found[1]}/{file.relative_to(files).as_posix()}"
        storage.adopt_blob(emulator, found[0], name, file)
