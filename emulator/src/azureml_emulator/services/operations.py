"""Long-running operations: where a client polls until a change is made."""

from __future__ import annotations

from ..emulator import OPERATION, Applier, Emulator
from ..errors import NotFound
from ..routing import LOCATION, Call, Reply, Route
from ..store import Document, public


def get_status(emulator: Emulator, call: Call) -> Reply:
    """Answer HTTP 200 with ``status`` InProgress, Succeeded or Failed, as Azure does for all.

    ``Retry-After`` asks to be polled every second where only a container is awaited: the SDK would
    look every 5 s.
    """
    document = _operation(emulator, call)
    soon = document["status"] == "InProgress" and document.get("_ends_soon")
    headers = {"Retry-After": "1"} if soon else {}
    return Reply({"id": call.path, **public(document)}, headers=headers)


def get_result(emulator: Emulator, call: Call) -> Reply:
    """Answer 202 while the operation goes on, then 200 or its error."""
    document = _operation(emulator, call)
    if document["status"] == "InProgress":
        return Reply(None, 202, {"Location": f"{call.base_url}{call.path}"})
    if document["status"] == "Failed":
        return Reply({"error": document["error"]}, 400)
    return Reply(None, 200)


def _operation(emulator: Emulator, call: Call) -> Document:
    document = emulator.store.get(OPERATION, call.params["name"])
    if document is None:
        raise NotFound(f"There is no operation {call.params['name']}.")
    return document


ROUTES = [
    Route("GET", f"{LOCATION}/mfeOperationsStatus/{{name}}", get_status),
    Route("GET", f"{LOCATION}/mfeOperationResults/{{name}}", get_result),
    Route("GET", f"{LOCATION}/computeOperationsStatus/{{name}}", get_status),
    Route("GET", f"{LOCATION}/computeOperationsResults/{{name}}", get_result),
]
EVENTS: dict[str, Applier] = {}
