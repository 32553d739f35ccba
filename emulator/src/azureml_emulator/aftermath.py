"""What a fault leaves behind on a resource for a while: hidden, or not settled yet.

* Hidden: it has been made, and nobody finds it. ``GET`` is 404, ``DELETE`` 204, as for what is not
  there; lists leave it out, and what is below it cannot be reached. Only a ``PUT`` gets through.
* Settling: the operation on it has Succeeded, and yet it is shown as Updating, and changes to it
  are refused with 409.

Source: users' reports, Azure/azure-dev#4037 and #4043 (404 after creation), Azure/
azure-sdk-for-net#36961 (Updating after Succeeded).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .errors import Conflict, NotFound
from .routing import Reply
from .store import Store

_KIND = "faults"
_CHANGES = ("PUT", "PATCH", "DELETE")


class Aftermath:
    """What is hidden or settling until when, by the paths of resources, kept in *store*."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def hide(self, path: str, seconds: float, *, now: float) -> None:
        """Hide the resource *path* for so many seconds."""
        self._add("hidden", path, seconds, now)

    def unsettle(self, path: str, seconds: float, *, now: float) -> None:
        """Let the resource *path* be settling for so many seconds."""
        self._add("settling", path, seconds, now)

    def clear(self) -> None:
        """Let every resource be as it is."""
        self._store.delete(_KIND, "aftermath")

    def answer(self, method: str, path: str, *, now: float) -> Reply | None:
        """Return the answer to a request that cannot get through, or None if it can.

        Raises:
            NotFound: The resource, or one that it belongs to, is hidden.
            Conflict: It is settling, and this would change it.
        """
        asked = _normal(path)
        hidden, settling = self._at(now)
        for resource in hidden:
            if _is_at_or_below(asked, resource) and not (method == "PUT" and asked == resource):
                if method == "DELETE":
                    return Reply(None, 204)
                raise NotFound(f"The Resource '{path}' was not found.")
        for resource in settling:
            if _is_at_or_below(asked, resource) and method in _CHANGES:
                name = resource.rpartition("/")[2]
                raise Conflict(
                    f"Another operation is in progress on {name}, which is in the state Updating: "
                    "wait until it is done."
                )
        return None

    def shown(self, reply: Reply, *, now: float) -> Reply:
        """Return the answer to a ``GET`` without what is hidden, and with what is settling."""
        hidden, settling = self._at(now)
        if not (hidden or settling) or not isinstance(reply.body, dict):
            return reply
        body = reply.body
        if isinstance(listed := body.get("value"), list):
            kept = [one for one in listed if _id(one) not in hidden]
            body = {**body, "value": [_unsettled(one, settling) for one in kept]}
        return Reply(_unsettled(body, settling), reply.status, reply.headers)

    def _add(self, what: str, path: str, seconds: float, now: float) -> None:
        hidden, settling = self._at(now)
        kept = {"hidden": hidden, "settling": settling}
        kept[what][_normal(path)] = now + seconds
        self._store.put(_KIND, "aftermath", kept)

    def _at(self, now: float) -> tuple[dict[str, float], dict[str, float]]:
        kept = self._store.get(_KIND, "aftermath") or {"hidden": {}, "settling": {}}
        hidden, settling = (
            {path: until for path, until in kept[what].items() if now < until}
            for what in ("hidden", "settling")
        )
        return hidden, settling


def _normal(path: str) -> str:
    return path.rstrip("/").lower()


def _is_at_or_below(path: str, resource: str) -> bool:
    return path == resource or path.startswith(f"{resource}/")


def _id(document: Any) -> str | None:
    return _normal(str(document["id"])) if isinstance(document, dict) and "id" in document else None


def _unsettled(document: Any, settling: Collection[str]) -> Any:
    if _id(document) not in settling:
        return document
    properties = document["properties"]
    if properties.get("provisioningState") != "Succeeded":
        return document
    return {**document, "properties": {**properties, "provisioningState": "Updating"}}
