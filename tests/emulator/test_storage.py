"""Datastores and blobs: what the SDK uploads is kept, read back, and closed to strangers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.credentials import AccessToken
from azureml_emulator import settings as names
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import BadRequest, Conflict
from azureml_emulator.services import storage
from azureml_emulator.services.datastores import CONTAINERS, DEFAULT
from azureml_emulator.tokens import ML_AUDIENCE, STORAGE_AUDIENCE

from tests.conftest import RunningEmulator

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.storage.blob import ContainerClient

CONTAINER = CONTAINERS[DEFAULT]


@pytest.fixture
def client(emulator: RunningEmulator) -> MLClient:
    """The SDK's client of the workspace."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(
        DefaultAzureCredential(), names.SUBSCRIPTION_ID, names.RESOURCE_GROUP, names.WORKSPACE_NAME
    )


@pytest.fixture
def kept(emulator: RunningEmulator) -> Emulator:
    """The emulator itself, as another service sees it."""
    return emulator.server.emulator


@pytest.fixture
def container(emulator: RunningEmulator) -> ContainerClient:
    """azure-storage-blob's client of the default datastore's container, with a SAS to all of it."""
    return _container(emulator, "racwdl")


def _container(emulator: RunningEmulator, permissions: str) -> ContainerClient:
    from azure.storage.blob import ContainerClient

    token = storage.sas_token(emulator.server.emulator, CONTAINER, permissions=permissions)
    account = storage.account_url(emulator.url)
    client: ContainerClient = ContainerClient.from_container_url(f"{account}/{CONTAINER}?{token}")
    return client


def _get(emulator: RunningEmulator, url: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        bundle = str(emulator.server.emulator.certificates.bundle)
        return session.get(url, headers=headers, verify=bundle)


def _code(error: Any) -> str:
    return str(error.error_code)


class _Holds:
    """A credential with one token, whatever is asked for."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


def test_the_sdk_finds_the_datastores(client: MLClient) -> None:
    """The default datastore and that of the artifacts are there; a wrong name is a 404."""
    from azure.core.exceptions import ResourceNotFoundError

    default = client.datastores.get_default()

    assert (DEFAULT, CONTAINER) == (default.name, default.container_name)
    assert list(CONTAINERS) == [one.name for one in client.datastores.list()]
    with pytest.raises(ResourceNotFoundError, match="nobodys"):
        client.datastores.get("nobodys")


def test_the_datastores_sas_opens_its_container(
    emulator: RunningEmulator, client: MLClient
) -> None:
    """The account, container and SAS that the SDK is given are enough to write and read."""
    from azure.storage.blob import BlobServiceClient

    found = client.datastores.get_default(include_secrets=True)
    service = BlobServiceClient(
        f"https://{found.account_name}.blob.localhost", credential=found.credentials.sas_token
    )
    blob = service.get_blob_client(found.container_name, "a folder/train.jsonl")
    blob.upload_blob(b'{"messages": []}\n')

    assert b'{"messages": []}\n' == blob.download_blob().readall()
    assert b'{"messages": []}\n' == storage.read_blob(
        emulator.server.emulator, CONTAINER, "a folder/train.jsonl"
    )


def test_an_upload_in_blocks_is_put_together(
    container: ContainerClient, kept: Emulator, tmp_path: Path
) -> None:
    """A large file goes up in blocks and comes down in ranges, byte for byte the same."""
    sent = bytes(range(256)) * 50_000
    blob = container.get_blob_client("large.bin")
    blob._config.max_single_put_size = blob._config.max_block_size = 4 * 2**20
    blob._config.max_single_get_size = blob._config.max_chunk_get_size = 4 * 2**20
    blob.upload_blob(sent, max_concurrency=2)

    assert len(sent) == blob.get_blob_properties().size
    assert sent == blob.download_blob(max_concurrency=2).readall()
    assert [] == list((kept.settings.blobs / ".blocks").iterdir())


def test_metadata_is_echoed(container: ContainerClient) -> None:
    """The SDK marks a finished upload with metadata, and skips the next upload by it."""
    blob = container.upload_blob("LocalUpload/hash/train.jsonl", b"x")
    blob.set_blob_metadata({"name": "n", "upload_status": "completed"})

    assert {"name": "n", "upload_status": "completed"} == blob.get_blob_properties().metadata


def test_a_missing_blob_is_not_found(container: ContainerClient) -> None:
    """HEAD and GET of what is not there are a 404 with the service's code."""
    from azure.core.exceptions import ResourceNotFoundError

    blob = container.get_blob_client("nothing")

    assert not blob.exists()
    with pytest.raises(ResourceNotFoundError) as raised:
        blob.download_blob()
    assert "BlobNotFound" == _code(raised.value)


def test_an_upload_does_not_overwrite_unasked(container: ContainerClient) -> None:
    """The second of two uploads fails with the service's code unless it says overwrite."""
    from azure.core.exceptions import ResourceExistsError

    container.upload_blob("once", b"first")
    with pytest.raises(ResourceExistsError) as raised:
        container.upload_blob("once", b"second")
    container.upload_blob("once", b"third", overwrite=True)

    assert "BlobAlreadyExists" == _code(raised.value)
    assert b"third" == container.download_blob("once").readall()


def test_a_stale_etag_is_refused(container: ContainerClient) -> None:
    """A write that is meant for the blob as it was does not hit the blob as it is."""
    from azure.core import MatchConditions
    from azure.core.exceptions import ResourceModifiedError

    blob = container.upload_blob("shared", b"first")
    etag = blob.get_blob_properties().etag
    blob.upload_blob(b"second", overwrite=True)

    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(
            b"mine", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified
        )
    assert b"second" == blob.download_blob().readall()


def test_names_are_listed_by_prefix_and_page(container: ContainerClient) -> None:
    """Names come in order, across pages, those of a prefix only, and folders by a delimiter."""
    for name in ("b/2", "a", "b/1", "b/c/3"):
        container.upload_blob(name, name.encode(), metadata={"mark": "m"})
    pages = container.list_blobs(name_starts_with="b/", results_per_page=2).by_page()
    first = next(container.list_blobs(include=["metadata"]))

    assert [["b/1", "b/2"], ["b/c/3"]] == [[one.name for one in page] for page in pages]
    assert {"b/1", "b/2", "b/c/"} == {one.name for one in container.walk_blobs("b/")}
    assert ("a", 1, {"mark": "m"}) == (first.name, first.size, first.metadata)


def test_names_differ_by_case(container: ContainerClient, kept: Emulator) -> None:
    """Unlike ARM ids, the names of blobs are told apart by case."""
    container.upload_blob("Log.txt", b"upper")

    assert storage.find_blob(kept, CONTAINER, "Log.txt") is not None
    assert storage.find_blob(kept, CONTAINER, "log.txt") is None


def test_a_deleted_blob_is_gone(container: ContainerClient, kept: Emulator) -> None:
    """Deleting takes the document and the file."""
    container.upload_blob("gone", b"x")
    container.delete_blob("gone")

    assert not container.get_blob_client("gone").exists()
    assert not storage.blob_path(kept, CONTAINER, "gone").exists()


def test_a_log_can_be_followed_by_its_offset(emulator: RunningEmulator, kept: Emulator) -> None:
    """A reader asks for what is new: 206 with it, 416 when there is none, 304 when unchanged."""
    storage.append_blob(kept, "azureml", "run/std_log.txt", b"one\n")
    url = storage.sas_url(kept, emulator.url, "azureml", "run/std_log.txt")
    whole = _get(emulator, url)
    nothing = _get(emulator, url, Range="bytes=4-")
    same = _get(emulator, url, **{"If-None-Match": whole.headers["ETag"]})
    storage.append_blob(kept, "azureml", "run/std_log.txt", b"two\n")
    new = _get(emulator, url, Range="bytes=4-")

    assert (200, b"one\n") == (whole.status_code, whole.content)
    assert (416, "bytes */4") == (nothing.status_code, nothing.headers["Content-Range"])
    assert (304, b"") == (same.status_code, same.content)
    assert (206, b"two\n") == (new.status_code, new.content)
    assert "bytes 4-7/8" == new.headers["Content-Range"]


def test_an_append_blob_grows(container: ContainerClient) -> None:
    """The SDK can make an append blob and add to it; a block blob cannot be added to."""
    from azure.core.exceptions import ResourceExistsError

    blob = container.get_blob_client("log")
    blob.create_append_blob()
    blob.append_block(b"one")
    blob.append_block(b"two")
    container.upload_blob("block", b"x")

    assert b"onetwo" == blob.download_blob().readall()
    with pytest.raises(ResourceExistsError) as raised:
        container.get_blob_client("block").append_block(b"y")
    assert "InvalidBlobType" == _code(raised.value)


def test_no_one_reads_without_a_sas(emulator: RunningEmulator, kept: Emulator) -> None:
    """No SAS, a changed one, or one for another blob or container is a 403 that says why."""
    storage.write_blob(kept, CONTAINER, "mine", b"secret")
    url = storage.blob_url(emulator.url, CONTAINER, "mine")
    good = storage.sas_token(kept, CONTAINER, "mine", permissions="r")
    bad = [
        "",
        good.replace("sp=r", "sp=rw"),
        storage.sas_token(kept, CONTAINER, "other", permissions="r"),
        storage.sas_token(kept, "azureml", permissions="r"),
    ]
    answers = [_get(emulator, f"{url}?{token}") for token in bad]

    assert b"secret" == _get(emulator, f"{url}?{good}").content
    assert {403} == {answer.status_code for answer in answers}
    assert {"AuthenticationFailed"} == {answer.headers["x-ms-error-code"] for answer in answers}
    assert all(b"<Code>AuthenticationFailed</Code>" in answer.content for answer in answers)


def test_who_is_signed_in_needs_no_sas(emulator: RunningEmulator) -> None:
    """A token for the storage opens it; one for Azure ML, or one that is over, does not."""
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import ContainerClient

    account = storage.account_url(emulator.url)
    tokens = emulator.server.emulator.tokens
    wrong = tokens.issue(ML_AUDIENCE, now=time.time())
    over = tokens.issue(STORAGE_AUDIENCE, now=time.time() - 7200)

    with DefaultAzureCredential() as opener:
        mine = ContainerClient(account, CONTAINER, credential=opener)
        mine.upload_blob("mine", b"secret")
        assert ["mine"] == [blob.name for blob in mine.list_blobs()]
        assert b"secret" == mine.download_blob("mine").readall()
    for token in (wrong, over):
        stranger = ContainerClient(account, CONTAINER, credential=_Holds(token))
        with pytest.raises(ClientAuthenticationError):
            stranger.download_blob("mine")


def test_a_sas_permits_what_it_says(emulator: RunningEmulator) -> None:
    """A SAS for reading does not write, list or delete."""
    from azure.core.exceptions import HttpResponseError

    reading = _container(emulator, "r")
    actions: list[Callable[[], object]] = [
        lambda: reading.upload_blob("x", b""),
        lambda: list(reading.list_blobs()),
        lambda: reading.delete_blob("x"),
    ]
    for action in actions:
        with pytest.raises(HttpResponseError) as raised:
            action()
        assert "AuthorizationPermissionMismatch" == _code(raised.value)


def test_a_sas_expires(start_emulator: Callable[..., RunningEmulator]) -> None:
    """Eight hours later the same address is closed."""
    emulator = start_emulator(latency="manual")
    kept = emulator.server.emulator
    storage.write_blob(kept, CONTAINER, "mine", b"secret")
    url = storage.sas_url(kept, emulator.url, CONTAINER, "mine")

    assert 200 == _get(emulator, url).status_code
    emulator.advance(storage.SAS_SECONDS)
    assert 403 == _get(emulator, url).status_code


def test_a_sas_is_in_no_log(emulator: RunningEmulator, kept: Emulator) -> None:
    """The request log keeps no signature."""
    storage.write_blob(kept, CONTAINER, "mine", b"secret")
    _get(emulator, storage.sas_url(kept, emulator.url, CONTAINER, "mine"))
    (logged,) = [row for row in emulator.requests() if "/mine" in row["path"]]

    assert "sig=…" in logged["query"]


@pytest.mark.parametrize(
    "name", ["", "../outside", "a/../../outside", "a//b", "./a", "nul\0byte", "long" * 100]
)
def test_a_name_that_leaves_the_folder_is_refused(kept: Emulator, name: str) -> None:
    """No name reaches a file outside the container's folder."""
    with pytest.raises(BadRequest):
        storage.write_blob(kept, CONTAINER, name, b"x")


def test_a_name_cannot_be_file_and_folder(kept: Emulator) -> None:
    """Blobs are files, so one blob's name cannot go through another's; nothing is left of it."""
    storage.write_blob(kept, CONTAINER, "model", b"x")
    with pytest.raises(Conflict):
        storage.write_blob(kept, CONTAINER, "model/weights", b"y")

    assert ["model"] == [one["name"] for one in storage.list_blobs(kept, CONTAINER)]
    assert ["model"] == [file.name for file in (kept.settings.blobs / CONTAINER).iterdir()]


def test_blobs_survive_a_restart(start_emulator: Callable[..., RunningEmulator]) -> None:
    """What was acknowledged is there after the server stopped and started again, with its SAS."""
    first = start_emulator()
    kept = first.server.emulator
    storage.append_blob(kept, CONTAINER, "log", b"one")
    url = storage.sas_url(kept, first.url, CONTAINER, "log")
    first.server.stop()
    second = start_emulator()
    storage.append_blob(second.server.emulator, CONTAINER, "log", b"two")

    assert b"onetwo" == _get(second, url).content


def _fail() -> None:
    raise RuntimeError


@pytest.mark.parametrize("written", [b"short", b"much longer than before"])
def test_a_change_that_was_not_kept_leaves_the_old_bytes(kept: Emulator, written: bytes) -> None:
    """A kill before the commit, or a handler that fails: the blob is as it was acknowledged."""
    storage.write_blob(kept, CONTAINER, "model", b"the old bytes")

    def fail_half_way() -> None:
        with kept.store.transaction():
            storage.write_blob(kept, CONTAINER, "model", written)
            storage.append_blob(kept, CONTAINER, "model", b"more")
            storage.delete_blob(kept, CONTAINER, "model")
            _fail()

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert b"the old bytes" == storage.read_blob(kept, CONTAINER, "model")
    storage.recover(kept)
    assert b"the old bytes" == storage.read_blob(kept, CONTAINER, "model")
    assert [] == list(kept.settings.blobs.glob(".*.part"))


def test_a_kill_right_after_the_commit_loses_no_bytes(kept: Emulator) -> None:
    """The record says where they are until they are in place, which the next start sees to."""
    storage.write_blob(kept, CONTAINER, "model", b"the old bytes")

    def be_killed() -> None:
        with kept.store.transaction():
            kept.store.after_commit(_fail)
            storage.write_blob(kept, CONTAINER, "model", b"new")

    with pytest.raises(RuntimeError):
        be_killed()
    before = storage.read_blob(kept, CONTAINER, "model")
    storage.recover(kept)
    path = storage.blob_path(kept, CONTAINER, "model")

    assert (b"new", b"new", []) == (
        before,
        path.read_bytes(),
        list(kept.settings.blobs.glob(".*.part")),
    )


def test_what_was_not_acknowledged_is_overwritten(kept: Emulator) -> None:
    """Bytes beyond the recorded size, as a crash leaves them, are not read and not kept."""
    storage.append_blob(kept, CONTAINER, "log", b"one")
    with storage.blob_path(kept, CONTAINER, "log").open("ab") as file:
        file.write(b"torn")

    assert b"one" == storage.read_blob(kept, CONTAINER, "log")
    storage.append_blob(kept, CONTAINER, "log", b"two")
    assert b"onetwo" == storage.read_blob(kept, CONTAINER, "log")
