"""Requests, answers, and the table that brings one to the other.

Paths compare without case, as Azure's do: the SDK writes ``resourceGroups`` here and
``resourcegroups`` there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import BadRequest
from .settings import PROVIDER

if TYPE_CHECKING:
    from .emulator import Emulator

Auth = Literal["arm", "ml", "none", "own"]

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/{{group}}"
WORKSPACE = f"{GROUP}{PROVIDER}/workspaces/{{workspace}}"
REGISTRY = f"{GROUP}{PROVIDER}/registries/{{registry}}"
LOCATION = f"{SUBSCRIPTION}{PROVIDER}/locations/{{location}}"


@dataclass(frozen=True)
class Call:
    """One request, read whole.

    Args:
        method: Upper case.
        path: As it came, percent-decoded.
        params: What the route's ``{names}`` matched.
        query: The query string, by name; the last of several.
        headers: By lower-case name.
        body: The bytes of the body.
        base_url: ``https://localhost:PORT``, for links in answers.
        effects: What a fault rule asks the handler to do (``operation_error``, ``job`` …).
    """

    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base_url: str
    effects: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            BadRequest: The body is no JSON object.
        """
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise BadRequest(
                f"The request body is not JSON: {error}", code="InvalidRequestContent"
            ) from error
        if not isinstance(value, dict):
            raise BadRequest("The request body is not a JSON object.", code="InvalidRequestContent")
        return value

    def number(self, name: str, default: int, *, least: int = 0) -> int:
        """Return the query's *name* as a whole number, or *default* where it is not given.

        Raises:
            BadRequest: It is no whole number of *least* or more.
        """
        text = self.query.get(name, str(default))
        # 18 digits: what SQLite and a list's length can hold.
        if not text.isdecimal() or len(text) > 18 or int(text) < least:
            raise BadRequest(
                f"The query parameter {name} is {text!r}, not a whole number of {least} or more.",
                code="InvalidQueryParameterValue",
                target=name,
            )
        return int(text)


@dataclass(frozen=True)
class Reply:
    """One answer.

    Args:
        body: A JSON value, bytes, or None for an empty body.
        status: HTTP status.
        headers: Further headers.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[["Emulator", Call], Reply]


@dataclass(frozen=True)
class Route:
    """One method and path, and who answers it.

    Args:
        method: Upper case.
        path: A template; ``{name}`` matches one segment, ``{name:path}`` any rest.
        handler: Called with the emulator and the call.
        auth: ``arm``: a bearer token for Azure Resource Manager; ``ml``: one for Azure ML or
            ARM; ``own``: the handler checks (keys, SAS, the identity header); ``none``.
        exclusive: Whether the handler holds the store alone, as one transaction. A handler that
            waits for anything must not.
    """

    method: str
    path: str
    handler: Handler
    auth: Auth = "arm"
    exclusive: bool = True


class Router:
    """Finds the route for a method and path."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = [(route, _pattern(route.path)) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the first route that matches, with what its names matched, or None."""
        for route, pattern in self._routes:
            if route.method == method and (match := pattern.fullmatch(path)):
                return route, match.groupdict()
        return None


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(:path)?\}", template)
    pattern = re.escape(parts[0])
    for name, rest, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{'.*' if rest else '[^/]+'}){re.escape(literal)}"
    return re.compile(pattern + "/?", re.IGNORECASE)
