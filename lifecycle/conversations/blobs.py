"""Azure storage as a file system of fsspec, through ``azure-storage-blob``.

That package is here with ``azure-ai-ml`` and takes the credential that everything else uses.
``adlfs`` takes only asynchronous ones, and ``pyarrow.fs.AzureFileSystem`` only its own.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobServiceClient

_READ_SECONDS = 60
_CONNECT_SECONDS = 10


class BlobFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Reads the containers of one storage account; a path is ``container/name/of/blob``.

    Args:
        account_url: ``https://account.blob.core.windows.net``.
        credential: A SAS, an account key, or what gives tokens.
    """

    protocol: ClassVar[str] = "azure-blob"
    # One instance a source: what it was made with may be a secret, and is not to be kept.
    cachable = False

    def __init__(self, account_url: str, credential: str | TokenCredential) -> None:
        super().__init__()
        self._account_url = account_url
        self._credential = credential

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a folder."""
        container, _, folder = self._strip_protocol(path).partition("/")
        prefix = f"{folder}/" if folder else ""
        client = self.service.get_container_client(container)
        entries = []
        for blob in client.walk_blobs(prefix, include=["metadata"], delimiter="/"):
            name = f"{container}/{blob.name.rstrip('/')}"
            # With a hierarchical namespace a folder is listed as an empty blob as well.
            is_folder = blob.name.endswith("/") or "hdi_isfolder" in (
                getattr(blob, "metadata", None) or {}
            )
            entries.append(self._entry(name, None if is_folder else blob))
        if not entries:
            raise FileNotFoundError(path)
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Describe a blob or a folder."""
        from azure.core.exceptions import ResourceNotFoundError

        path = self._strip_protocol(path)
        container, _, name = path.partition("/")
        try:
            return self._entry(
                path, self.service.get_blob_client(container, name).get_blob_properties()
            )
        except ResourceNotFoundError:
            self.ls(path)
            return self._entry(path, None)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Read the bytes from *start* up to *end*."""
        container, _, name = path.partition("/")
        client = self.service.get_blob_client(container, name)
        return client.download_blob(offset=start, length=end - start).readall()

    @cached_property
    def service(self) -> BlobServiceClient:
        """The storage account's client."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient(
            self._account_url,
            self._credential,
            connection_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
        )

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> BlobFile:
        kwargs.pop("autocommit", None)
        return BlobFile(self, path, mode, **kwargs)

    @staticmethod
    def _entry(name: str, blob: Any) -> dict[str, Any]:
        if blob is None:
            return {"name": name, "type": "directory", "size": 0}
        return {"name": name, "type": "file", "size": blob.size, "etag": blob.etag}


class BlobFile(AbstractBufferedFile):  # type: ignore[misc]
    """A blob, read in ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.read_range(self.path, start, end)
        return data
