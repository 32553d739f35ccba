"""The storage account, as far as the data plane of Azure ML goes: block and append blobs.

Whoever has a SAS may do what it permits; whoever has a token of the workspace's identity, all.

A blob's bytes are a file under ``settings.blobs``, at the path that its name spells; what else is
known of it is a document in the store. Other services write and read blobs with the functions here.
A name that is a folder of another blob's name is refused, which the live service would take.

A file moves to its place, or goes, only when the record of it has been committed: a kill in between
leaves a record that says where its bytes are (``_file``), never one with the bytes of another.

The account is addressed in path style (``https://localhost:PORT/emulator.blob.localhost``), since
the SDK makes the host out of the datastore's account name and no name but localhost resolves.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from ..emulator import Emulator
from ..errors import BadRequest, Conflict, Forbidden
from ..routing import Call
from ..store import Document
from ..tokens import STORAGE_AUDIENCE

ACCOUNT = "emulator"
KIND = "blob"
SAS_SECONDS = 8 * 3600

_SAS_VERSION = "2021-08-06"
_LONGEST_SEGMENT = 255


def account_url(base_url: str) -> str:
    """Return the address of the storage account."""
    return f"{base_url}/{ACCOUNT}.blob.localhost"


def blob_url(base_url: str, container: str, name: str) -> str:
    """Return the address of a blob, without a SAS."""
    return f"{account_url(base_url)}/{container}/{quote(name)}"


def sas_url(emulator: Emulator, base_url: str, container: str, name: str) -> str:
    """Return an address from which the blob can be read for :data:`SAS_SECONDS`."""
    token = sas_token(emulator, container, name, permissions="r")
    return f"{blob_url(base_url, container, name)}?{token}"


def sas_token(
    emulator: Emulator, container: str, name: str | None = None, *, permissions: str
) -> str:
    """Return a SAS for one blob, or for all of *container*.

    Args:
        emulator: Whose secret signs it.
        container: The container.
        name: The blob; None for the whole container.
        permissions: Letters of ``racwdl``.
    """
    expiry = datetime.fromtimestamp(emulator.now() + SAS_SECONDS, UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    resource = "c" if name is None else "b"
    fields = {"sv": _SAS_VERSION, "se": expiry, "sr": resource, "sp": permissions}
    return urlencode({**fields, "sig": _signature(emulator, container, name, fields)})


def authorize(emulator: Emulator, call: Call, *, needs: str) -> None:
    """Check the token of *call*, or the SAS in its query where it bears no token.

    Args:
        emulator: Whose secret signed it.
        call: With the parameter ``container`` and perhaps ``blob``.
        needs: Letters of which the SAS must permit at least one.

    Raises:
        Unauthorized: The token is not ours, over, or for another audience.
        Forbidden: There is no SAS, or it is not ours, not for this blob, over, or permits too
            little.
    """
    if "authorization" in call.headers:
        emulator.tokens.check(call.headers, audiences={STORAGE_AUDIENCE}, now=emulator.now())
        return
    fields = {name: call.query.get(name, "") for name in ("sv", "se", "sr", "sp")}
    name = call.params.get("blob") if fields["sr"] == "b" else None
    wanted = _signature(emulator, call.params["container"], name, fields)
    if not hmac.compare_digest(wanted.encode(), call.query.get("sig", "").encode()):
        raise _unauthenticated("Signature did not match.")
    if datetime.fromisoformat(fields["se"]).timestamp() <= emulator.now():
        raise _unauthenticated(f"Signature not valid: it expired at {fields['se']}.")
    if not set(needs) & set(fields["sp"]):
        raise Forbidden(
            "This request is not authorized to perform this operation using this permission.",
            code="AuthorizationPermissionMismatch",
        )


def find_blob(emulator: Emulator, container: str, name: str) -> Document | None:
    """Return what is known of a blob: ``size``, ``etag``, ``modified``, ``metadata`` …, or None."""
    return emulator.store.get(KIND, _key(container, name))


def list_blobs(emulator: Emulator, container: str, prefix: str = "") -> list[Document]:
    """Return the blobs whose names begin with *prefix*, by name."""
    blobs = emulator.store.list(KIND, parent=container)
    return sorted(
        (one for one in blobs if one["name"].startswith(prefix)), key=lambda one: str(one["name"])
    )


def read_blob(emulator: Emulator, container: str, name: str) -> bytes | None:
    """Return a blob's bytes, or None if there is no such blob."""
    with emulator.store.transaction():
        found = find_blob(emulator, container, name)
        return None if found is None else read_range(emulator, found, 0, found["size"])


def read_range(emulator: Emulator, blob: Document, start: int, length: int) -> bytes:
    """Return *length* bytes of *blob* from the offset *start*."""
    with _file(emulator, blob).open("rb") as file:
        file.seek(start)
        return file.read(length)


def write_blob(
    emulator: Emulator,
    container: str,
    name: str,
    data: bytes,
    *,
    content_type: str = "application/octet-stream",
    metadata: Mapping[str, str] | None = None,
    kind: str = "BlockBlob",
) -> Document:
    """Keep *data* as a blob, in place of what was there.

    Raises:
        BadRequest: The name is not one that can be kept.
        Conflict: The name is a folder of another blob, or goes through one.
    """
    # Beside the containers, none of whose names begins with a dot.
    part = emulator.settings.blobs / f".{uuid.uuid4().hex}.part"
    with emulator.store.transaction():
        blob = _new_blob(emulator, container, name, size=len(data))
        blob |= {"type": kind, "content_type": content_type, "metadata": dict(metadata or {})}
        part.write_bytes(data)
        return _save_with(emulator, blob, part)


def adopt_blob(emulator: Emulator, container: str, name: str, file: Path) -> Document:
    """Make *file* a blob, in place of what was there: it is moved, and not read.

    Args:
        emulator: Where the blob is kept.
        container: The container.
        name: The blob.
        file: A file in the state folder.

    Raises:
        BadRequest, Conflict: As :func:`write_blob` does.
    """
    with emulator.store.transaction():
        blob = _new_blob(emulator, container, name, size=file.stat().st_size)
        return _save_with(emulator, blob, file)


def append_blob(emulator: Emulator, container: str, name: str, data: bytes) -> Document:
    """Add *data* to the end of a blob, which is made if there is none."""
    with emulator.store.transaction():
        found = find_blob(emulator, container, name)
        if found is None:
            kind, text = "AppendBlob", "text/plain; charset=utf-8"
            return write_blob(emulator, container, name, data, content_type=text, kind=kind)
        # To the size that is on record: what lies beyond it was never acknowledged.
        with _file(emulator, found).open("r+b") as file:
            file.truncate(found["size"])
            file.seek(found["size"])
            file.write(data)
        return save_blob(emulator, {**found, "size": found["size"] + len(data)})


def save_blob(emulator: Emulator, blob: Document) -> Document:
    """Keep *blob* as changed now, and return it."""
    etag = f'"0x8D{uuid.uuid4().hex[:12].upper()}"'
    changed = {**blob, "etag": etag, "modified": emulator.now()}
    key = _key(blob["container"], blob["name"])
    emulator.store.put(KIND, key, changed, parent=blob["container"])
    return changed


def delete_blob(emulator: Emulator, container: str, name: str) -> bool:
    """Forget a blob and remove its file; return whether there was one."""
    with emulator.store.transaction():
        there = emulator.store.delete(KIND, _key(container, name))
        if there:
            path = blob_path(emulator, container, name)
            emulator.store.after_commit(lambda: path.unlink(missing_ok=True))
        return there


def recover(emulator: Emulator) -> None:
    """Finish what a kill has cut off between the commit of a record and the move of its file."""
    for blob in emulator.store.list(KIND):
        _move(emulator, blob)
    for part in emulator.settings.blobs.glob(".*.part"):
        part.unlink()


def blob_path(emulator: Emulator, container: str, name: str) -> Path:
    """Return the file of a blob, whether or not it is there.

    Raises:
        BadRequest: The name is not one that can be kept.
    """
    if not re.fullmatch(r"[a-z0-9](-?[a-z0-9]){2,62}", container):
        raise BadRequest(
            f"The specified container name '{container}' is invalid.", code="InvalidResourceName"
        )
    segments = name.split("/")
    for segment in segments:
        too_long = len(segment.encode()) > _LONGEST_SEGMENT
        if segment in ("", ".", "..") or "\0" in segment or too_long:
            raise BadRequest(
                f"The specified blob name '{name}' is invalid.", code="InvalidResourceName"
            )
    return emulator.settings.blobs.joinpath(container, *segments)


def _new_blob(emulator: Emulator, container: str, name: str, *, size: int) -> Document:
    found, path = find_blob(emulator, container, name), blob_path(emulator, container, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clash = path.is_dir()
    except (FileExistsError, NotADirectoryError):
        clash = True
    if clash:
        raise Conflict(
            f"The blob {name} would be a folder and a file at once.", code="PathConflict"
        )
    return {
        "container": container,
        "name": name,
        "type": "BlockBlob",
        "created": found["created"] if found else emulator.now(),
        "content_type": "application/octet-stream",
        "metadata": {},
        "size": size,
    }


def _save_with(emulator: Emulator, blob: Document, file: Path) -> Document:
    given = str(file.relative_to(emulator.settings.state))
    saved = save_blob(emulator, {**blob, "_file": given})
    emulator.store.after_commit(lambda: _move(emulator, saved))
    return saved


def _file(emulator: Emulator, blob: Document) -> Path:
    given = emulator.settings.state / blob["_file"]
    return given if given.exists() else blob_path(emulator, blob["container"], blob["name"])


def _move(emulator: Emulator, blob: Document) -> None:
    file, path = _file(emulator, blob), blob_path(emulator, blob["container"], blob["name"])
    if file != path:
        os.replace(file, path)


def _signature(
    emulator: Emulator, container: str, name: str | None, fields: Mapping[str, str]
) -> str:
    resource = f"/blob/{ACCOUNT}/{container}" + ("" if name is None else f"/{name}")
    lines = [fields["sp"], fields["se"], resource, fields["sv"], fields["sr"]]
    return emulator.tokens.signature("\n".join(lines))


def _unauthenticated(detail: str) -> Forbidden:
    return Forbidden(
        "Server failed to authenticate the request. Make sure the value of Authorization header is "
        f"formed correctly including the signature. {detail}",
        code="AuthenticationFailed",
    )


def _key(container: str, name: str) -> str:
    # The store's keys compare without case; the names of blobs do not.
    return hashlib.sha256(f"{container}/{name}".encode()).hexdigest()
