"""What may be different in an answer of Azure's, as changes that can be made to the emulator's.

A change of the whole answer has a name of its own; one of a property is named after its place in
the answer: ``properties.provisioningState removed``. A place is a path of keys, with ``[]`` for
every item of a list and ``*`` for every value of an object whose keys are names.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from .front import Answer, Asked, Change

LATE_SECONDS = 30.0

_REFUSED = {"error": {"code": "AuthorizationFailed", "message": "The client may not do this."}}
_MISSING = {"error": {"code": "NotFound", "message": "It is not there."}}
_NO_SUCH = {"error": {"code": "NotImplemented", "message": "There is no such thing here."}}
_STATES = frozenset(
    {
        "allocationState",
        "authMode",
        "computeType",
        "credentialsType",
        "datastoreType",
        "endpointComputeType",
        "jobType",
        "lifecycle_stage",
        "modelType",
        "nodeState",
        "provisioningState",
        "secretsType",
        "status",
        "type",
        "vmPriority",
    }
)
_LISTS = ("value", "runs", "metrics", "nodes", "experiments")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?")
_PLAIN = re.compile(r"[\w$-]+")
_MANY = 12
_OTHER: dict[type, Any] = {str: 7, int: "text", float: "text", bool: "maybe", dict: [], list: {}}
_REMOVED = object()


def whole(document: Any) -> list[str]:
    """Return the changes that make sense of an answer as a whole, given its JSON or None."""
    names = ["403", "404", "501", "empty", "late"]
    if isinstance(document, dict):
        names += ["{}", "other case", "more properties"]
        names += [name for name in ("empty list", "reversed", "paged") if _list_of(document)]
        if _DATE.search(json.dumps(document)):
            names += ["seven digits", "offset", "no zone"]
    return names


def properties(document: Any) -> list[str]:
    """Return the changes that make sense of its properties."""
    found = []
    for place, value in places(document):
        found += [f"{place} removed", f"{place} null"]
        if type(value) in _OTHER:
            found.append(f"{place} of another type")
        if isinstance(value, str) and place.rpartition(".")[2] in _STATES:
            found.append(f"{place} unknown")
    return found


def places(document: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the place and value of every property, lists and maps once for all their items."""
    if isinstance(document, list):
        for item in document[:1]:
            yield from places(item, f"{place}[]")
    elif isinstance(document, dict):
        is_map = len(document) > _MANY and all(isinstance(v, dict) for v in document.values())
        keys = ["*"] if is_map else [key for key in document if _PLAIN.fullmatch(key)]
        for key in keys:
            value = next(iter(document.values())) if key == "*" else document[key]
            inner = f"{place}.{key}" if place else key
            if key != "*":
                yield inner, value
            yield from places(value, inner)


def change(
    name: str, now: Callable[[], float] = time.monotonic
) -> Callable[[Asked, Answer], Answer]:
    """Return the change of this name, for the answers that it is to be made to.

    Args:
        name: One that :func:`whole` or :func:`properties` returned.
        now: Seconds, by the clock of whoever asks.
    """
    if name == "late":
        return _Late(now)
    if name in _WHOLE:
        return _WHOLE[name]
    place, _, what = name.partition(" ")

    def at(asked: Asked, answer: Answer) -> Answer:
        document = answer.document()
        if document is None:
            return answer
        return answer.saying(_at(document, re.findall(r"\[\]|[^.\[\]]+", place), what))

    return at


class _Late:
    """Shows what the service answers only after a while: until then what it answered before."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[str, list[tuple[float, Answer]]] = {}

    def __call__(self, asked: Asked, answer: Answer) -> Answer:
        if asked.method != "GET":
            return answer
        now = self._now()
        with self._lock:
            kept = self._kept.setdefault(asked.path, [])
            kept.append((now, answer))
            old = [one for moment, one in kept if now - moment >= LATE_SECONDS]
            return old[-1] if old else kept[0][1]


def _at(document: Any, path: list[str], what: str) -> Any:
    """Return the document with what is at *path* changed."""
    if not path:
        return _changed(document, what)
    key, *rest = path
    if key == "[]" and isinstance(document, list):
        return [_at(item, rest, what) for item in document]
    if not isinstance(document, dict):
        return document
    keys = list(document) if key == "*" else [key]
    made = {
        name: _at(value, rest, what) if name in keys else value for name, value in document.items()
    }
    return {name: value for name, value in made.items() if value is not _REMOVED}


def _changed(value: Any, what: str) -> Any:
    match what:
        case "removed":
            return _REMOVED
        case "null":
            return None
        case "unknown":
            return "Flummoxed"
        case _:
            return _OTHER.get(type(value), value)


def _refusal(status: int, document: Any) -> Change:
    def refuse(asked: Asked, answer: Answer) -> Answer:
        headers = {"content-type": "application/json"}
        return Answer(status, headers, json.dumps(document).encode())

    return refuse


def _document(changed: Callable[[Any], Any]) -> Change:
    def made(asked: Asked, answer: Answer) -> Answer:
        document = answer.document()
        return answer if document is None else answer.saying(changed(document))

    return made


def _empty(asked: Asked, answer: Answer) -> Answer:
    return answer._replace(body=b"")


def _dates(written: Callable[[str], str]) -> Change:
    def made(asked: Asked, answer: Answer) -> Answer:
        if answer.document() is None:
            return answer
        text = _DATE.sub(lambda found: written(found[0][:19]), answer.body.decode())
        return answer._replace(body=text.encode())

    return made


def _in_another_case(document: Any) -> Any:
    if isinstance(document, list):
        return [_in_another_case(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {key[:1].upper() + key[1:]: _in_another_case(value) for key, value in document.items()}


def _with_more(document: Any) -> Any:
    if isinstance(document, list):
        return [_with_more(item) for item in document]
    if not isinstance(document, dict):
        return document
    more = {"xmsNew": {"a": [1, None]}, "zz": None}
    return {key: _with_more(value) for key, value in document.items()} | more


def _list_of(document: Any) -> str | None:
    """Return the name of the list that the answer is of, if it is one of a list."""
    return next((name for name in _LISTS if isinstance(document.get(name), list)), None)


def _of_list(changed: Callable[[list[Any]], list[Any]]) -> Change:
    def made(document: Any) -> Any:
        name = _list_of(document) if isinstance(document, dict) else None
        return document if name is None else {**document, name: changed(document[name])}

    return _document(made)


def _paged(asked: Asked, answer: Answer) -> Answer:
    """Give a list one by one: by nextLink, and by continuationToken in the run history."""
    document = answer.document()
    name = _list_of(document) if isinstance(document, dict) else None
    if name is None:
        return answer
    given = parse_qs(asked.query)
    text = (given.get("skewPage") or given.get("$continuationtoken") or ["0"])[0]
    page, items = int(text) if text.isdigit() else 0, document[name]
    made = {**document, name: items[page : page + 1]}
    if page + 1 < len(items):
        host = answer.headers.get("x-skew-host", "")
        made["nextLink"] = f"https://{host}{asked.path}?{asked.query}&skewPage={page + 1}"
        if asked.path.startswith("/history/"):
            made["continuationToken"] = str(page + 1)
            del made["nextLink"]
        elif name != "value":
            return answer  # MLflow has a token of its own, which the emulator pages by.
    return answer.saying(made)


_WHOLE: dict[str, Change] = {
    "403": _refusal(403, _REFUSED),
    "404": _refusal(404, _MISSING),
    "501": _refusal(501, _NO_SUCH),
    "empty": _empty,
    "{}": _document(lambda document: {}),
    "other case": _document(_in_another_case),
    "more properties": _document(_with_more),
    "empty list": _of_list(lambda items: []),
    "reversed": _of_list(lambda items: items[::-1]),
    "paged": _paged,
    "seven digits": _dates(lambda moment: f"{moment}.1234567Z"),
    "offset": _dates(lambda moment: f"{moment}+02:00"),
    "no zone": _dates(lambda moment: moment),
}
