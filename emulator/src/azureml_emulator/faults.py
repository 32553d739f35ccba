"""Faults on purpose: rules that match requests and say what goes wrong.

A rule is JSON, set with ``PUT /_emulator/faults`` as ``{"rules": [...]}``::

    {"match": {"method": "PUT", "path": "/onlineEndpoints/[^/]+$"},
     "nth": [1, 2],
     "effect": {"status": 503, "headers": {"Retry-After": "1"}}}

``match.path`` is a regular expression searched in the path, without case. Of the requests that
match, a rule hits all, or those that it says:

* ``nth``: a list of them, counted from 1;
* ``probability`` and ``seed``: each with that probability, always the same ones for a seed;
* ``seconds``: only those within so many seconds of the first, by the emulator's clock.

The effects are in emulator/README.md, and what each is good for in docs/faults.md. Where they
strike: :mod:`.app` (before and after the handler), :mod:`.delivery` (on the wire),
:mod:`.aftermath` (on the resource, for a while), :mod:`.emulator` (in the operation), the services.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from .errors import BadRequest
from .store import Document, Store, public

JOB_ENDS = ("Failed", "Canceled", "NotResponding", "Paused", "Preempted")

# Seconds, 300 years: an end that every clock and date can hold.
_LONGEST = 10**10
_KIND = "faults"
_MATCH = {"method", "path"}
_WHEN = {"nth", "probability", "seed", "seconds"}
_COUNTED = {"matched", "struck"}


class Faults:
    """The rules, kept in *store*."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def rules(self) -> list[Document]:
        """Return the rules, each with how many requests it has ``matched`` and ``struck``."""
        return [public(rule) for rule in self._rules()]

    def replace(self, rules: list[Any]) -> None:
        """Put *rules* in place of those there were; they count from the beginning.

        Raises:
            BadRequest: A rule makes no sense; the rules there were stay.
        """
        for number, rule in enumerate(rules):
            if problem := _problem(rule):
                raise BadRequest(f"Rule {number} {problem}.", target="rules")
        self._keep([{**rule, "matched": 0, "struck": 0, "_until": None} for rule in rules])

    def effects(self, method: str, path: str, *, now: float) -> dict[str, Any]:
        """Count this request against every rule and return what befalls it, merged.

        Args:
            method: Upper case.
            path: Percent-decoded.
            now: Seconds since the epoch.
        """
        rules = self._rules()
        matching = [rule for rule in rules if _matches(rule["match"], method, path)]
        effects: dict[str, Any] = {}
        for rule in matching:
            rule["matched"] += 1
            if rule["matched"] == 1 and "seconds" in rule:
                rule["_until"] = now + rule["seconds"]
            if _strikes(rule, now):
                rule["struck"] += 1
                effects |= rule["effect"]
        if matching:
            self._keep(rules)
        return effects

    def _rules(self) -> list[Document]:
        document = self._store.get(_KIND, "rules")
        return [] if document is None else list(document["rules"])

    def _keep(self, rules: list[Document]) -> None:
        self._store.put(_KIND, "rules", {"rules": rules})


def _matches(match: Document, method: str, path: str) -> bool:
    if match.get("method", method).upper() != method:
        return False
    return re.search(match.get("path", ""), path, re.IGNORECASE) is not None


def _strikes(rule: Document, now: float) -> bool:
    if rule["_until"] is not None and now >= rule["_until"]:
        return False
    if "nth" in rule:
        return bool(rule["matched"] in rule["nth"])
    if "probability" in rule:
        # Not `random`: the same requests are hit on every Python, and after a restart.
        digest = hashlib.sha256(f"{rule['seed']}/{rule['matched']}".encode()).digest()
        return bool(int.from_bytes(digest[:8], "big") < rule["probability"] * 2**64)
    return True


def _problem(rule: Any) -> str | None:
    """Return what makes *rule* senseless, as the end of a sentence, or None."""
    if not isinstance(rule, dict) or not {"match", "effect"} <= set(rule):
        return "needs a match and an effect"
    if unknown := sorted(set(rule) - {"match", "effect"} - _WHEN - _COUNTED):
        return f"has unknown fields {unknown}"
    return _match_problem(rule["match"]) or _when_problem(rule) or _effect_problem(rule["effect"])


def _match_problem(match: Any) -> str | None:
    if not isinstance(match, dict) or not all(isinstance(text, str) for text in match.values()):
        return "has a match that is no text by name"
    if unknown := sorted(set(match) - _MATCH):
        return f"has unknown match {unknown}; known: {sorted(_MATCH)}"
    try:
        re.compile(match.get("path", ""))
    except (re.error, OverflowError, RecursionError) as error:
        return f"has a path that is no regular expression: {error}"
    return None


def _when_problem(rule: Document) -> str | None:
    nth = rule.get("nth", [])
    if not isinstance(nth, list) or not all(_is_whole(count) and count > 0 for count in nth):
        return "has an nth that is no list of whole numbers, 1 or more"
    if "nth" in rule and "probability" in rule:
        return "has both nth and probability"
    if ("probability" in rule) != ("seed" in rule):
        return "needs both probability and seed, or neither"
    chance = rule.get("probability", 0)
    if not _is_number(chance) or chance > 1:
        return "has a probability that is not from 0 to 1"
    if not _is_whole(rule.get("seed", 0)):
        return "has a seed that is no whole number"
    if not _is_number(rule.get("seconds", 0)):
        return "has seconds that are no number, 0 or more"
    return None


def _effect_problem(effect: Any) -> str | None:
    if not isinstance(effect, dict):
        return "has an effect that is no object"
    if unknown := sorted(set(effect) - EFFECTS):
        return f"has unknown effects {unknown}; known: {sorted(EFFECTS)}"
    for name, value in effect.items():
        said, accepts = _CHECKS[name]
        if not accepts(value):
            return f"has the {name} {value!r}, which is not {said}"
    endings = [name for name in ("status", "hang", "reset") if name in effect]
    if len(endings) > 1:
        return f"has more than one of status, hang and reset: {endings}"
    if not endings and "after" in effect:
        return "has an after without status, hang or reset"
    for name in ("headers", "body", "error"):
        if name in effect and "status" not in effect:
            return f"has {name} without a status"
    if "body" in effect and "error" in effect:
        return "has both a body and an error"
    if "truncate" in effect and endings not in ([], ["status"]):
        return f"has truncate and {endings[0]}, which leaves nothing to truncate"
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_headers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name)
        and isinstance(text, str)
        and re.fullmatch(r"[\x20-\x7e]*", text)
        for name, text in value.items()
    )


def _is_error(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"code", "message"}
        and all(isinstance(text, str) for text in value.values())
    )


def _is_job_end(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"status"} <= set(value) <= {"status", "step", "message"}
        and value["status"] in JOB_ENDS
        and all(isinstance(text, str) for text in value.values())
    )


_SECONDS = ("a number of seconds, 0 or more", _is_number)
_FLAG = ("true", lambda value: value is True)
_ERROR = ("an object of just code and message", _is_error)

_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "status": (
        "an HTTP status of an answer",
        lambda value: _is_whole(value) and 200 <= value < 600,
    ),
    "after": _FLAG,
    "headers": ("printable text by name", _are_headers),
    "body": ("text", _is_text),
    "error": _ERROR,
    "delay": _SECONDS,
    "hang": _FLAG,
    "reset": _FLAG,
    "truncate": ("a number of bytes", lambda value: _is_whole(value) and value >= 0),
    "operation_error": _ERROR,
    "job": (
        f"an object with a status of {', '.join(JOB_ENDS)} and perhaps step and message",
        _is_job_end,
    ),
    "token_lifetime": _SECONDS,
    "hidden": _SECONDS,
    "settling": _SECONDS,
    "reply": ("JSON", lambda value: True),
}
EFFECTS = frozenset(_CHECKS)
