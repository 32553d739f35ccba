"""Data that is elsewhere: addresses that fsspec opens, Azure storage, data assets of the workspace.

Storage that a datastore of the workspace describes is read with the datastore's credentials, other
Azure storage with the ones that the run signs in with. An address never holds a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec

from lifecycle.conversations.source import SPLIT, Source, of_files
from lifecycle.errors import DatasetError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from lifecycle.clients import WorkspaceRef
    from lifecycle.dataset import DatasetSpec

_AZURE_STORAGE = ("abfs", "abfss", "wasbs")
_ASSET = re.compile(r"azureml:(?P<name>[^:@/]+)(?::(?P<version>[^:@/]+)|@(?P<label>[^:@/]+))")
_IN_DATASTORE = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resource[gG]roups/[^/]+"
    r"(?:/providers/Microsoft.MachineLearningServices)?/workspaces/(?P<workspace>[^/]+)/)?"
    r"datastores/(?P<datastore>[^/]+)/paths/(?P<path>.+)"
)


def find_remote(spec: DatasetSpec, workspace: WorkspaceRef | None) -> Source:
    """Find the files behind an address or a data asset.

    Raises:
        DatasetError: There are none, the asset or datastore is not there or of a kind that is not
            read, or what is needed to open it is missing.
    """
    if spec.is_in_azure:
        if workspace is None:
            raise DatasetError(
                f"{spec.path} is read with an Azure ML workspace, and none is given.",
                where="workspace",
            )
        return _in_azure(spec, spec.path, workspace)
    scheme = urlsplit(spec.path).scheme
    if scheme in ("http", "https"):
        if SPLIT not in spec.path:
            raise DatasetError(
                f"{spec.path} names one file, and a run uses several splits.",
                where="dataset.path",
                remedy=f"Put {SPLIT} in place of the split's name.",
            )
        # As everything else does here: by the proxy and the certificates of the environment.
        filesystem = fsspec.filesystem(scheme, client_kwargs={"trust_env": True})
        return of_files(spec, filesystem, spec.path)
    try:
        filesystem, root = fsspec.core.url_to_fs(spec.path)
    except (ImportError, ValueError) as error:
        raise DatasetError(
            f"{spec.path} cannot be opened: {error}",
            where="dataset.path",
            remedy="Install fsspec's package for such addresses, or name another place.",
        ) from error
    return of_files(spec, filesystem, root)


def _in_azure(
    spec: DatasetSpec, address: str, workspace: WorkspaceRef, revision: str | None = None
) -> Source:
    in_datastore = _IN_DATASTORE.fullmatch(address)
    if in_datastore:
        return _in_datastore(spec, in_datastore, workspace, revision)
    asset = _ASSET.fullmatch(address)
    if asset and revision is None:
        return _data_asset(spec, asset, workspace)
    parts = urlsplit(address)
    if parts.scheme not in _AZURE_STORAGE or not parts.username:
        raise DatasetError(
            f"{address} is no address of data in Azure.",
            where="dataset.path",
            remedy="Write abfs://container@account.dfs.core.windows.net/folder, "
            "azureml:name:version or azureml://datastores/name/paths/folder.",
        )
    from lifecycle.clients import credential
    from lifecycle.conversations.blobs import BlobFileSystem

    host = parts.netloc.partition("@")[2].replace(".dfs.", ".blob.")
    filesystem = BlobFileSystem(f"https://{host}", credential(workspace))
    return of_files(spec, filesystem, f"{parts.username}{parts.path.rstrip('/')}", revision)


def _data_asset(spec: DatasetSpec, asset: re.Match[str], workspace: WorkspaceRef) -> Source:
    from lifecycle.azure import translated
    from lifecycle.clients import ml_client

    name = asset["name"]
    with translated(f"reading the data asset {name}", where="dataset.path", not_found=DatasetError):
        found = ml_client(workspace).data.get(name, asset["version"], asset["label"])
    if found.type not in ("uri_folder", "uri_file"):
        raise DatasetError(
            f"The data asset {name} is of type {found.type}.",
            where="dataset.path",
            remedy="Name one of type uri_folder, with a file for each split.",
        )
    return _in_azure(spec, str(found.path), workspace, revision=str(found.version))


def _in_datastore(
    spec: DatasetSpec, place: re.Match[str], workspace: WorkspaceRef, revision: str | None
) -> Source:
    from lifecycle.azure import translated
    from lifecycle.clients import ml_client
    from lifecycle.conversations.blobs import BlobFileSystem

    if place["workspace"] not in (None, workspace.name):
        raise DatasetError(
            f"{place[0]} is in another workspace, {place['workspace']}.", where="dataset.path"
        )
    name = place["datastore"]
    with translated(f"reading the datastore {name}", where="dataset.path", not_found=DatasetError):
        store = ml_client(workspace).datastores.get(name, include_secrets=True)
    container = getattr(store, "container_name", None) or getattr(store, "filesystem", None)
    if container is None:
        raise DatasetError(
            f"The datastore {name} is of type {store.type}.",
            where="dataset.path",
            remedy="Only blob containers and Data Lake Storage Gen2 are read.",
        )
    account = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}"
    filesystem = BlobFileSystem(account, _credential(store.credentials, workspace))
    return of_files(spec, filesystem, f"{container}/{place['path'].rstrip('/')}", revision)


def _credential(held: Any, workspace: WorkspaceRef) -> str | TokenCredential:
    """Return what the datastore is opened with; where it holds nothing, who is signed in."""
    from lifecycle.clients import credential

    secret = getattr(held, "sas_token", None) or getattr(held, "account_key", None)
    if secret:
        return str(secret)
    if getattr(held, "client_secret", None):
        from azure.identity import ClientSecretCredential

        return ClientSecretCredential(held.tenant_id, held.client_id, held.client_secret)
    return credential(workspace)
