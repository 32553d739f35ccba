"""Data in Azure: assets and datastores of the workspace, read with the datastore's credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lifecycle.clients import WorkspaceRef, credential, ml_client
from lifecycle.conversations.blobs import BlobFileSystem
from lifecycle.dataset import DatasetResult, DatasetSpec, download_data
from lifecycle.errors import DatasetError

from .conftest import rows_of, turns


@pytest.fixture
def asset(workspace: WorkspaceRef, tmp_path: Path) -> Any:
    """A data asset with 1,000 conversations in Parquet, put there by the SDK."""
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Data

    folder = tmp_path / "chats"
    folder.mkdir()
    rows = [{"messages": turns(n)} for n in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet", row_group_size=100)
    return ml_client(workspace).data.create_or_update(
        Data(name="chats", version="3", type=AssetTypes.URI_FOLDER, path=str(folder))
    )


def prepare(path: str, out: Path, workspace: WorkspaceRef | None, **values: Any) -> DatasetResult:
    """Prepare the split ``train`` of it."""
    chosen = {"train_split": "train", "test_split": "train", "generation_split": None}
    return download_data(DatasetSpec(path=path, **chosen, **values), out, workspace=workspace)


@pytest.mark.parametrize("name", ["azureml:chats:3", "azureml:chats@latest"])
def test_a_data_asset_is_read(
    name: str, asset: Any, workspace: WorkspaceRef, tmp_path: Path
) -> None:
    """By version or label; the version is what the report names."""
    result = prepare(name, tmp_path / "out", workspace, percentage=10)

    assert "3" == result.revision
    assert [turns(n) for n in range(100)] == rows_of(result)
    assert result == prepare(name, tmp_path / "out", workspace, percentage=10)


def test_a_folder_of_a_datastore_is_read(
    asset: Any, workspace: WorkspaceRef, tmp_path: Path
) -> None:
    """By the SDK's own address for it, with or without a name for each split."""
    address = str(asset.path).rstrip("/")
    short = "azureml://datastores/" + address.partition("/datastores/")[2]

    for path in (address, short, f"{short}/{{split}}.parquet"):
        assert 50 == prepare(path, tmp_path / "out", workspace).file("train").rows


def test_an_address_of_azure_storage_is_opened_by_who_is_signed_in(
    asset: Any, workspace: WorkspaceRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any datastore, by a token. The emulator has one account, under another address."""
    store = ml_client(workspace).datastores.get("workspaceblobstore")
    account = f"https://{store.account_name}.blob.{store.endpoint}"
    opened: list[tuple[str, Any]] = []

    def open_account(url: str, opener: Any) -> BlobFileSystem:
        opened.append((url, opener))
        return BlobFileSystem(account, opener)

    monkeypatch.setattr("lifecycle.conversations.blobs.BlobFileSystem", open_account)
    folder = str(asset.path).partition("/paths/")[2].rstrip("/")
    address = f"{store.container_name}@chats.dfs.core.windows.net/{folder}"

    for path in (f"abfs://{address}", f"abfss://{address}/{{split}}.parquet"):
        assert 50 == prepare(path, tmp_path / "out", workspace).file("train").rows
    assert [("https://chats.blob.core.windows.net", credential(workspace))] * 2 == opened


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("azureml:chats:4", "reading the data asset chats"),
        ("azureml:nope@latest", "reading the data asset nope"),
        ("azureml:chats", "is no address of data in Azure"),
        ("azureml://datastores/nope/paths/x", "reading the datastore nope"),
        ("azureml://datastores/workspaceblobstore/paths/nope", "holds no file named for a split"),
        ("abfs://container/folder", "is no address of data in Azure"),
    ],
)
def test_what_is_not_there_is_refused(
    path: str, said: str, asset: Any, workspace: WorkspaceRef, tmp_path: Path
) -> None:
    """Each with what was being looked for."""
    with pytest.raises(DatasetError, match=said):
        prepare(path, tmp_path / "out", workspace)


def test_data_in_azure_needs_a_workspace(tmp_path: Path) -> None:
    """Said before anything is asked of Azure."""
    with pytest.raises(DatasetError, match="read with an Azure ML workspace"):
        prepare("azureml:chats:3", tmp_path, None)


def test_an_unknown_kind_of_address_is_refused(tmp_path: Path) -> None:
    """With what fsspec says is missing."""
    with pytest.raises(DatasetError, match="cannot be opened"):
        prepare("nosuch://bucket/{split}.parquet", tmp_path, None)


def test_a_file_system_that_all_of_fsspec_can_use(
    asset: Any, workspace: WorkspaceRef, tmp_path: Path
) -> None:
    """Folders, sizes, ranges and patterns are those of the container."""
    store = ml_client(workspace).datastores.get("workspaceblobstore", include_secrets=True)
    account = f"https://{store.account_name}.blob.{store.endpoint}"
    blobs = BlobFileSystem(account, store.credentials.sas_token)
    folder = store.container_name + "/" + str(asset.path).partition("/paths/")[2].rstrip("/")
    local = (tmp_path / "chats" / "train.parquet").read_bytes()

    assert blobs.isdir(folder)
    assert [f"{folder}/train.parquet"] == blobs.glob(f"{folder}/*.parquet")
    assert len(local) == blobs.size(f"{folder}/train.parquet")
    assert local[100:200] == blobs.cat_file(f"{folder}/train.parquet", 100, 200)
    assert not blobs.exists(f"{folder}/test.parquet")


def test_a_secret_is_no_part_of_an_error(workspace: WorkspaceRef, tmp_path: Path) -> None:
    """What the storage says is told without the signature that was sent to it."""
    store = ml_client(workspace).datastores.get("workspaceblobstore", include_secrets=True)
    account = f"https://{store.account_name}.blob.{store.endpoint}"
    wrong = store.credentials.sas_token.replace("sig=", "sig=A")
    from lifecycle.conversations.source import of_files, readable
    from lifecycle.errors import ServiceError

    spec = DatasetSpec(path="azureml:chats:3")
    with pytest.raises(ServiceError) as refused, readable(spec):
        of_files(spec, BlobFileSystem(account, wrong), f"{store.container_name}/x")

    assert "sig=" not in str(refused.value).replace("sig=***", "")
    assert wrong.partition("sig=")[2] not in repr(refused.value.__cause__)
