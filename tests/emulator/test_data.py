"""Data assets: what the SDK puts is what it gets, by version and by label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client


@pytest.fixture
def assets(workspace: WorkspaceRef) -> Any:
    """The SDK's operations on data assets."""
    return ml_client(workspace).data


def asset(folder: Path, version: str, **values: Any) -> Any:
    """A folder as a data asset."""
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Data

    folder.mkdir(exist_ok=True)
    (folder / "train.jsonl").write_text(f"{version}\n")
    return Data(
        name="chats", version=version, type=AssetTypes.URI_FOLDER, path=str(folder), **values
    )


def test_a_folder_is_uploaded_and_found_again(assets: Any, tmp_path: Path) -> None:
    """With its place in the datastore, its tags and its description."""
    made = assets.create_or_update(
        asset(tmp_path / "a", "3", tags={"team": "nlp"}, description="Chats.")
    )

    found = assets.get("chats", version="3")

    assert (made.path, "uri_folder", "3") == (found.path, found.type, found.version)
    assert ({"team": "nlp"}, "Chats.") == (found.tags, found.description)
    assert "/datastores/workspaceblobstore/paths/" in found.path


def test_latest_is_the_version_put_last(assets: Any, tmp_path: Path) -> None:
    """As in Azure: by time, not by number."""
    for version in ("3", "1"):
        assets.create_or_update(asset(tmp_path / version, version))

    assert "1" == assets.get("chats", label="latest").version


def test_a_version_cannot_be_moved(assets: Any, tmp_path: Path) -> None:
    """What a run was trained on stays what it was."""
    from azure.core.exceptions import HttpResponseError

    assets.create_or_update(asset(tmp_path / "a", "3"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "more.jsonl").write_text("more\n")

    with pytest.raises(HttpResponseError, match="already exists"):
        assets.create_or_update(asset(tmp_path / "b", "3"))


def test_what_is_not_there_is_not_found(assets: Any) -> None:
    """404, so that a client can tell it from a failure."""
    from azure.core.exceptions import ResourceNotFoundError

    with pytest.raises(ResourceNotFoundError):
        assets.get("chats", version="9")
