"""The shapes of Azure's answers: which fields there are, of which types. Never a value.

A shape is kept by route: the method, the path with ``*`` for every name and id in it, and the
status. Fields are paths such as ``properties.scoringUri`` and ``value[].name``. Where the keys of
an object are somebody's own (tags, inputs, traffic …) they are ``*`` too.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

Recorded = dict[str, dict[str, str]]

# Words of the API's paths. After a collection comes a name or an id, whatever it looks like.
_COLLECTIONS = """
    codes components computeOperationsResults computeOperationsStatus computes data datastores
    deployments environments experiments jobs locations mfeOperationResults mfeOperationsStatus
    models onlineEndpoints registries resourceGroups runs subscriptions versions workspaces
"""
_OTHER_WORDS = """
    api artifacts cancel children content contentinfo details discovery endpoints getLogs history
    listKeys listSecrets managementfrontend metadata mferp Microsoft.MachineLearningServices mlflow
    providers quotas registrymanagement score startPendingUpload token usages v1.0 v2.0 vmSizes
"""
_NAMED = {word.lower() for word in _COLLECTIONS.split()}
_WORDS = {word.lower(): word for word in f"{_COLLECTIONS} {_OTHER_WORDS}".split()}
# Objects whose keys are chosen by people, or name resources of theirs.
_MAPS = {
    "compute",
    "computes",
    "endpoints",
    "environmentvariables",
    "flavors",
    "inputs",
    "jobs",
    "logfiles",
    "metadata",
    "mirrortraffic",
    "outputs",
    "parameters",
    "propertybag",
    "registryfqdns",
    "secrets",
    "services",
    "tags",
    "traffic",
    "userassignedidentities",
}
_FIELD = re.compile(r"[@$_]?[A-Za-z][A-Za-z0-9_]{0,63}")
_HEADERS = ("Azure-AsyncOperation", "Location", "Retry-After", "x-ms-async-operation-timeout")


class Difference(NamedTuple):
    """One field that is not alike: its type there, or ``absent``."""

    route: str
    field: str
    recorded: str
    seen: str


class Shapes:
    """Collects the shapes of the answers that it is shown, from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._seen: dict[str, dict[str, set[str]]] = {}

    def see(self, response: Any) -> None:
        """Take the shape of one answer; what azure-core calls with its ``PipelineResponse``."""
        request, answer = response.http_request, response.http_response
        path = template(request.url)
        if not path.strip("/*"):
            return  # a log's text in storage
        route = f"{request.method} {path} {answer.status_code}"
        fields = dict(_header_fields(answer.headers)) | shape(_body(response), route)
        with self._guard:
            known = self._seen.setdefault(route, {})
            for field, types in fields.items():
                known.setdefault(field, set()).update(types)

    def recorded(self) -> Recorded:
        """Return what was seen so far, sorted; several types of a field as ``null|string``."""
        with self._guard:
            return {
                route: {field: "|".join(sorted(fields[field])) for field in sorted(fields)}
                for route, fields in sorted(self._seen.items())
            }


def template(url: str) -> str:
    """Return the path of *url* with ``*`` in the place of every name and id, and no query."""
    kept: list[str] = []
    for part in unquote(urlsplit(url).path).strip("/").split("/"):
        is_name = bool(kept) and kept[-1].lower() in _NAMED
        kept.append("*" if is_name else _WORDS.get(part.lower(), "*"))
    return "/" + "/".join(kept)


def shape(value: Any, route: str = "") -> dict[str, set[str]]:
    """Return the types of every field in *value*, which is JSON."""
    fields: dict[str, set[str]] = {}
    for field, kind in _fields(value, "", history=" /history/" in route):
        fields.setdefault(field, set()).add(kind)
    return fields


def compare(recorded: Recorded, seen: Recorded) -> list[Difference]:
    """Return what differs, for the routes that are in both.

    A field that is null on one side differs from no type on the other: it may be set some time.
    """
    differences = []
    for route in sorted(set(recorded) & set(seen)):
        before, now = recorded[route], seen[route]
        for field in sorted(set(before) | set(now)):
            one, other = before.get(field, "absent"), now.get(field, "absent")
            if not _alike(one, other):
                differences.append(Difference(route, field, one, other))
    return differences


def _alike(one: str, other: str) -> bool:
    here, there = set(one.split("|")) - {"null"}, set(other.split("|")) - {"null"}
    return not here or not there or bool(here & there)


def _body(response: Any) -> Any:
    """Return the answer's JSON; ``...`` for a body of another kind, None for an empty one."""
    answer = response.http_response
    if "json" not in (answer.headers.get("Content-Type") or ""):
        return ... if _has_body(answer) else None
    if hasattr(answer, "read"):
        answer.read()
        content = answer.content
    else:
        content = answer.body()
    try:
        return json.loads(content) if content else None
    except ValueError:
        return ...


def _has_body(answer: Any) -> bool:
    return answer.headers.get("Content-Length") not in (None, "0")


def _header_fields(headers: Mapping[str, str]) -> Iterator[tuple[str, set[str]]]:
    for name in _HEADERS:
        if name in headers:
            yield f"header {name}", {"string"}


def _fields(value: Any, path: str, *, history: bool) -> Iterator[tuple[str, str]]:
    yield path or "(body)", _type(value)
    if isinstance(value, dict):
        own = _keys_are_own(path, history)
        for key, item in value.items():
            name = "*" if own or not _FIELD.fullmatch(key) else key
            yield from _fields(item, f"{path}.{name}" if path else name, history=history)
    elif isinstance(value, list):
        for item in value:
            yield from _fields(item, f"{path}[]", history=history)


def _keys_are_own(path: str, history: bool) -> bool:
    *above, last = path.lower().replace("[]", "").split(".")
    return last in _MAPS or (last == "properties" and (history or "properties" in above))


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "no JSON"
