"""The blob service's REST: what azure-storage-blob asks for, answered from :mod:`.storage`.

Errors are XML with ``x-ms-error-code``, as the service's are. Source: learn.microsoft.com/rest/api/
storageservices, "Blob service REST API".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import wraps
from pathlib import Path
from xml.etree import ElementTree

from ..emulator import Applier, Emulator
from ..errors import BadRequest, Conflict, NotEmulated, NotFound, WireError
from ..routing import Call, Handler, Reply, Route
from ..store import Document
from . import storage

_LISTED_BLOCK = re.compile(rb"<(?:Latest|Uncommitted)>([^<]+)</")
_PAGE_SIZE = 5000
_SHOWN_IN_LIST = ("Creation-Time", "Last-Modified", "Etag", "Content-Length", "Content-Type")


class PreconditionFailed(WireError):
    """Raised when the blob is not, or no longer, the one that the request is about."""

    status = 412
    code = "ConditionNotMet"


class RangeNotSatisfiable(WireError):
    """Raised when a range begins at or after the blob's end."""

    status = 416
    code = "InvalidRange"


def _in_xml(handler: Handler) -> Handler:
    @wraps(handler)
    def answer(emulator: Emulator, call: Call) -> Reply:
        try:
            return handler(emulator, call)
        except NotEmulated:
            raise
        except WireError as error:
            body = ElementTree.Element("Error")
            ElementTree.SubElement(body, "Code").text = error.code
            ElementTree.SubElement(body, "Message").text = error.message
            headers = {"x-ms-error-code": error.code, **_common_headers(call), **error.headers}
            # An answer to HEAD has no body, so no length of one either.
            if call.method == "HEAD":
                return Reply(b"", error.status, headers)
            return Reply(_xml(body), error.status, {"Content-Type": "application/xml", **headers})

    return answer


@_in_xml
def head_blob(emulator: Emulator, call: Call) -> Reply:
    """Answer with the blob's properties and metadata as headers."""
    storage.authorize(emulator, call, needs="r")
    blob = _blob(emulator, call)
    length = {"Content-Length": str(blob["size"])}
    return Reply(b"", 200, {**_headers(blob), **length, **_common_headers(call)})


@_in_xml
def get_blob(emulator: Emulator, call: Call) -> Reply:
    """Answer with the bytes, or with the range that ``Range`` asks for.

    Raises:
        RangeNotSatisfiable: The range begins at or after the end.
    """
    storage.authorize(emulator, call, needs="r")
    if call.query.get("comp") not in (None, "metadata"):
        raise NotEmulated(f"GET of a blob with comp={call.query['comp']} is not emulated.")
    blob = _blob(emulator, call)
    headers = {**_headers(blob), **_common_headers(call)}
    if call.headers.get("if-none-match") in (blob["etag"], "*"):
        return Reply(b"", 304, headers)
    if call.query.get("comp") == "metadata":
        return Reply(b"", 200, headers)
    asked = call.headers.get("x-ms-range", call.headers.get("range"))
    if asked is None:
        return Reply(storage.read_range(emulator, blob, 0, blob["size"]), 200, headers)
    start, end = _range(asked, blob["size"])
    headers["Content-Range"] = f"bytes {start}-{end}/{blob['size']}"
    return Reply(storage.read_range(emulator, blob, start, end - start + 1), 206, headers)


@_in_xml
def put_blob(emulator: Emulator, call: Call) -> Reply:
    """Write a blob, a block, a list of blocks, metadata, or add to an append blob."""
    comp = call.query.get("comp", "")
    if comp not in _PUTS:
        raise NotEmulated(f"PUT of a blob with comp={comp} is not emulated.")
    needs, put = _PUTS[comp]
    storage.authorize(emulator, call, needs=needs)
    status, blob = put(emulator, call)
    written = (
        {} if blob is None else {"ETag": blob["etag"], "Last-Modified": _date(blob["modified"])}
    )
    return Reply(
        b"", status, {**written, "x-ms-request-server-encrypted": "true", **_common_headers(call)}
    )


@_in_xml
def delete_blob(emulator: Emulator, call: Call) -> Reply:
    """Delete the blob."""
    storage.authorize(emulator, call, needs="d")
    blob = _blob(emulator, call)
    storage.delete_blob(emulator, blob["container"], blob["name"])
    return Reply(b"", 202, _common_headers(call))


@_in_xml
def get_container(emulator: Emulator, call: Call) -> Reply:
    """List a container's blobs, a page at a time."""
    if call.query.get("comp") != "list":
        raise NotEmulated("Of containers only the list of blobs is emulated.")
    storage.authorize(emulator, call, needs="l")
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter")
    entries: dict[str, Document | None] = {}
    for blob in storage.list_blobs(emulator, call.params["container"], prefix):
        rest = blob["name"][len(prefix) :]
        if delimiter and delimiter in rest:
            entries[prefix + rest.partition(delimiter)[0] + delimiter] = None
        else:
            entries[blob["name"]] = blob
    size = min(call.number("maxresults", _PAGE_SIZE), _PAGE_SIZE)
    names = [name for name in entries if name >= call.query.get("marker", "")]
    page, following = names[:size], names[size : size + 1]
    body = ElementTree.Element(
        "EnumerationResults",
        ServiceEndpoint=f"{storage.account_url(call.base_url)}/",
        ContainerName=call.params["container"],
    )
    ElementTree.SubElement(body, "Prefix").text = prefix
    blobs = ElementTree.SubElement(body, "Blobs")
    for name in page:
        _list_entry(blobs, name, entries[name])
    ElementTree.SubElement(body, "NextMarker").text = following[0] if following else ""
    return Reply(_xml(body), 200, {"Content-Type": "application/xml", **_common_headers(call)})


def _put_whole(emulator: Emulator, call: Call) -> tuple[int, Document]:
    kind = call.headers.get("x-ms-blob-type", "")
    if kind not in ("BlockBlob", "AppendBlob"):
        raise NotEmulated(f"Blobs of type {kind or '(none)'} are not emulated.")
    _check_conditions(emulator, call)
    return 201, _write(emulator, call, call.body, kind)


def _put_block(emulator: Emulator, call: Call) -> tuple[int, None]:
    folder = _staging(emulator, call)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _block_file(call.query.get("blockid", ""))).write_bytes(call.body)
    return 201, None


def _put_block_list(emulator: Emulator, call: Call) -> tuple[int, Document]:
    _check_conditions(emulator, call)
    listed = [block.decode() for block in _LISTED_BLOCK.findall(call.body)]
    folder = _staging(emulator, call)
    files = [folder / _block_file(block) for block in listed]
    if not all(file.exists() for file in files):
        raise BadRequest("The specified block list is invalid.", code="InvalidBlockList")
    blob = _write(emulator, call, b"".join(file.read_bytes() for file in files), "BlockBlob")
    shutil.rmtree(folder, ignore_errors=True)
    return 201, blob


def _put_metadata(emulator: Emulator, call: Call) -> tuple[int, Document]:
    _check_conditions(emulator, call)
    return 200, storage.save_blob(emulator, {**_blob(emulator, call), "metadata": _metadata(call)})


def _append_block(emulator: Emulator, call: Call) -> tuple[int, Document]:
    blob = _blob(emulator, call)
    if blob["type"] != "AppendBlob":
        raise Conflict("The blob type is invalid for this operation.", code="InvalidBlobType")
    return 201, storage.append_blob(emulator, blob["container"], blob["name"], call.body)


_Put = Callable[[Emulator, Call], tuple[int, Document | None]]

_PUTS: dict[str, tuple[str, _Put]] = {
    "": ("cw", _put_whole),
    "block": ("cw", _put_block),
    "blocklist": ("cw", _put_block_list),
    "metadata": ("w", _put_metadata),
    "appendblock": ("aw", _append_block),
}


def _blob(emulator: Emulator, call: Call) -> Document:
    blob = storage.find_blob(emulator, call.params["container"], call.params["blob"])
    if blob is None:
        raise NotFound("The specified blob does not exist.", code="BlobNotFound")
    return blob


def _write(emulator: Emulator, call: Call, data: bytes, kind: str) -> Document:
    return storage.write_blob(
        emulator,
        call.params["container"],
        call.params["blob"],
        data,
        content_type=call.headers.get("x-ms-blob-content-type", "application/octet-stream"),
        metadata=_metadata(call),
        kind=kind,
    )


def _check_conditions(emulator: Emulator, call: Call) -> None:
    blob = storage.find_blob(emulator, call.params["container"], call.params["blob"])
    if blob is not None and call.headers.get("if-none-match") == "*":
        raise Conflict("The specified blob already exists.", code="BlobAlreadyExists")
    if_match = call.headers.get("if-match", "*")
    if if_match != "*" and (blob is None or blob["etag"] != if_match):
        raise PreconditionFailed(
            "The condition specified using HTTP conditional header(s) is not met."
        )


def _metadata(call: Call) -> dict[str, str]:
    prefix = "x-ms-meta-"
    return {
        name.removeprefix(prefix): value
        for name, value in call.headers.items()
        if name.startswith(prefix)
    }


def _staging(emulator: Emulator, call: Call) -> Path:
    name = f"{call.params['container']}/{call.params['blob']}"
    # No container's name begins with a dot.
    return emulator.settings.blobs / ".blocks" / hashlib.sha256(name.encode()).hexdigest()


def _block_file(block: str) -> str:
    try:
        return base64.b64decode(block, validate=True).hex()
    except binascii.Error as error:
        raise BadRequest(
            f"The block id '{block}' is not base64.", code="InvalidQueryParameterValue"
        ) from error


def _range(asked: str, size: int) -> tuple[int, int]:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.strip())
    if match is None:
        raise BadRequest(f"The range '{asked}' is not understood.", code="InvalidHeaderValue")
    start, end = int(match[1]), int(match[2] or size - 1)
    if start >= size or end < start:
        raise RangeNotSatisfiable(
            "The range specified is invalid for the current size of the resource.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, min(end, size - 1)


def _headers(blob: Document) -> dict[str, str]:
    return {
        "ETag": blob["etag"],
        "Last-Modified": _date(blob["modified"]),
        "Content-Type": blob["content_type"],
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": blob["type"],
        "x-ms-creation-time": _date(blob["created"]),
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
        "x-ms-server-encrypted": "true",
        **{f"x-ms-meta-{name}": value for name, value in blob["metadata"].items()},
    }


def _common_headers(call: Call) -> Mapping[str, str]:
    return {"x-ms-version": call.headers.get("x-ms-version", "2021-08-06")}


def _list_entry(parent: ElementTree.Element, name: str, blob: Document | None) -> None:
    entry = ElementTree.SubElement(parent, "BlobPrefix" if blob is None else "Blob")
    ElementTree.SubElement(entry, "Name").text = name
    if blob is None:
        return
    properties = ElementTree.SubElement(entry, "Properties")
    values = (
        _date(blob["created"]),
        _date(blob["modified"]),
        blob["etag"],
        str(blob["size"]),
        blob["content_type"],
    )
    for field, value in zip(_SHOWN_IN_LIST, values, strict=True):
        ElementTree.SubElement(properties, field).text = value
    ElementTree.SubElement(properties, "BlobType").text = blob["type"]
    metadata = ElementTree.SubElement(entry, "Metadata")
    for field, value in blob["metadata"].items():
        ElementTree.SubElement(metadata, field).text = value


def _xml(element: ElementTree.Element) -> bytes:
    text: bytes = ElementTree.tostring(element, encoding="utf-8", xml_declaration=True)
    return text


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


_CONTAINER = f"/{storage.ACCOUNT}.blob.localhost/{{container}}"
_BLOB = f"{_CONTAINER}/{{blob:path}}"

ROUTES = [
    Route("GET", _CONTAINER, get_container, auth="own"),
    Route("HEAD", _BLOB, head_blob, auth="own"),
    Route("GET", _BLOB, get_blob, auth="own"),
    Route("PUT", _BLOB, put_blob, auth="own"),
    Route("DELETE", _BLOB, delete_blob, auth="own"),
]
EVENTS: dict[str, Applier] = {}
