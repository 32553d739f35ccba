"""What :mod:`.endpoints`, :mod:`.deployments` and :mod:`.scoring` share. It answers nothing itself.

The shapes of answers were read in recorded traffic of the live service (Azure/azure-sdk-assets,
Azure/azure-powershell): a PUT answers 201 and its ``Location`` is the resource, a PATCH and
``regenerateKeys`` answer 202 with the body ``null`` and a ``Location`` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from ..clock import iso
from ..emulator import Emulator
from ..errors import BadRequest, Conflict, NotFound
from ..routing import Call, Reply
from ..settings import WORKSPACE_ID
from ..store import Document

ENDPOINT = "onlineEndpoint"
DEPLOYMENT = "onlineDeployment"

_IN_TRANSITION = frozenset({"Creating", "Updating", "Deleting"})
_NAME = re.compile(r"[A-Za-z](-?[A-Za-z0-9])*")
_PAGE_SIZE = 30


def endpoint_id(name: str) -> str:
    """Return the ARM id of the endpoint *name*."""
    return f"{WORKSPACE_ID}/onlineEndpoints/{name}"


def get_endpoint(emulator: Emulator, name: str) -> Document:
    """Return the endpoint.

    Raises:
        NotFound: There is none of that name.
    """
    found = emulator.store.get(ENDPOINT, endpoint_id(name))
    if found is None:
        raise NotFound(f"The online endpoint {name} was not found in {WORKSPACE_ID}.")
    return found


def save(emulator: Emulator, kind: str, document: Document) -> None:
    """Keep the endpoint or deployment under the resource that it belongs to."""
    document["systemData"]["lastModifiedAt"] = iso(emulator.now())
    parent = document["id"].rsplit("/", 2)[0]
    emulator.store.put(kind, document["id"], document, parent=parent)


def state(document: Document) -> str:
    """Return the provisioning state."""
    return str(document["properties"]["provisioningState"])


def refuse_if_busy(document: Document) -> None:
    """Refuse a change while another goes on.

    Raises:
        Conflict: An operation is in progress.
    """
    if state(document) in _IN_TRANSITION:
        raise Conflict(
            f"Another operation is in progress on {document['name']}, which is in the state "
            f"{state(document)}: wait until it is done."
        )


def check_name(name: str, what: str) -> None:
    """Refuse a name that Azure refuses: 3 to 32 letters, digits and single dashes, a letter first.

    Raises:
        BadRequest: It is refused; *what* names the kind of resource in the message.
    """
    if not (3 <= len(name) <= 32 and _NAME.fullmatch(name)):
        raise BadRequest(
            f"The {what} name {name!r} is not valid: it must have 3 to 32 characters, begin with "
            "a letter, end with a letter or digit, and hold letters, digits and single dashes.",
            target="name",
        )


def check_tags(body: Document) -> Document:
    """Return the request's tags.

    Raises:
        BadRequest: They are not text by name.
    """
    tags = body.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(text, str) for text in tags.values()):
        raise BadRequest("Tags must be text by name.", target="tags")
    return tags


def system_data(emulator: Emulator) -> Document:
    """Return the ``systemData`` of something created now."""
    return {"createdAt": iso(emulator.now()), "createdBy": "emulator", "createdByType": "User"}


def page(call: Call, items: list[Document], *, size_parameter: str) -> Reply:
    """Answer with one page of *items* and the link to the next.

    Args:
        call: The request; ``$skip`` and *size_parameter* of its query choose the page.
        items: All there are.
        size_parameter: ``count`` for endpoints, ``$top`` for deployments.

    Raises:
        BadRequest: Either is no whole number, or out of bounds.
    """
    start, size = call.number("$skip", 0), call.number(size_parameter, _PAGE_SIZE, least=1)
    following, link = start + size, None
    if following < len(items):
        query = urlencode({**call.query, "$skip": str(following)}, safe="$")
        link = f"{call.base_url}{call.path}?{query}"
    return Reply({"value": items[start:following], "nextLink": link})


def at_resource(call: Call, document: Document, headers: Mapping[str, str]) -> dict[str, str]:
    """Return an operation's *headers* as a PUT has them: the Location is the resource."""
    version = call.query.get("api-version", "")
    return {**headers, "Location": f"{call.base_url}{document['id']}?api-version={version}"}


def only_location(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an operation's *headers* without ``Azure-AsyncOperation``."""
    return {name: text for name, text in headers.items() if name != "Azure-AsyncOperation"}


def refused(code: str, field: str, said: str) -> BadRequest:
    """Return the 400 of the inferencing service, which sits behind the front end.

    Source: the errors that MicrosoftLearning/mslearn-azure-ml#30 and azureml-examples#1931 quote.

    Args:
        code: ``InferencingClientCreateDeploymentFailed`` or the like.
        field: What is refused, by the service's own name for it.
        said: Why.
    """
    detail: dict[str, Any] = {
        "errors": {field: [said]},
        "type": "https://tools.ietf.org/html/rfc7231#section-6.5.1",
        "title": "One or more validation errors occurred.",
        "status": 400,
    }
    message = f"InferencingClient HttpRequest error, error detail: {json.dumps(detail)}"
    details = [{"code": code, "message": message, "details": [], "additionalInfo": []}]
    return BadRequest("The request is invalid.", code="BadRequest", details=details)
