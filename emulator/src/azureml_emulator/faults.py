"""Faults on purpose: rules that match requests and say what goes wrong.

A rule is JSON, set with ``PUT /_emulator/faults`` as ``{"rules": [...]}``::

    {"match": {"method": "PUT", "path": "/onlineEndpoints/[^/]+$"},
     "nth": [1, 2],
     "effect": {"status": 503, "headers": {"Retry-After": "1"}}}

``match.path`` is a regular expression searched in the path, without case. ``nth`` lists the
matches, counted from 1, that are hit; without it every match is. Effects:

===================  ==============================================================================
``status``           answer this status instead, before anything is changed
``after``            with ``status``: make the change first, then give that answer
``headers``          with ``status``: headers of the answer
``body``             with ``status``: text of the answer (else Azure's JSON error)
``delay``            wait so many seconds first
``operation_error``  ``{"code", "message"}``: the long-running operation that this request begins
                     ends Failed
``job``              ``{"status", "step"?, "message"?}``: the job that this request submits ends so
``reply``            any JSON or text: what the scoring request answers
===================  ==============================================================================
"""

from __future__ import annotations

import re
from typing import Any

from .errors import BadRequest
from .store import Store

EFFECTS = {"status", "after", "headers", "body", "delay", "operation_error", "job", "reply"}


class Faults:
    """The rules, kept in *store*."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, each with ``matched``: how many requests it has matched so far."""
        document = self._store.get("faults", "rules")
        return [] if document is None else list(document["rules"])

    def replace(self, rules: list[dict[str, Any]]) -> None:
        """Put *rules* in place of those there were.

        Raises:
            BadRequest: A rule has no ``match`` or ``effect``, or an effect that is not known.
        """
        for number, rule in enumerate(rules):
            _check(number, rule)
        self._store.put("faults", "rules", {"rules": [{**rule, "matched": 0} for rule in rules]})

    def effects(self, method: str, path: str) -> dict[str, Any]:
        """Count this request against every rule and return what befalls it, merged."""
        rules = self.rules()
        effects: dict[str, Any] = {}
        changed = False
        for rule in rules:
            match = rule["match"]
            if match.get("method", method).upper() != method:
                continue
            if not re.search(match.get("path", ""), path, re.IGNORECASE):
                continue
            rule["matched"] += 1
            changed = True
            if "nth" not in rule or rule["matched"] in rule["nth"]:
                effects |= rule["effect"]
        if changed:
            self._store.put("faults", "rules", {"rules": rules})
        return effects


def _check(number: int, rule: Any) -> None:
    if not isinstance(rule, dict) or not {"match", "effect"} <= set(rule):
        raise _refused(number, "needs a match and an effect")
    match, effect = rule["match"], rule["effect"]
    if unknown := sorted(set(rule) - {"match", "effect", "nth", "matched"}):
        raise _refused(number, f"has unknown fields {unknown}")
    if unknown := sorted(set(match) - {"method", "path"}):
        raise _refused(number, f"has unknown match {unknown}; known: method, path")
    if unknown := sorted(set(effect) - EFFECTS):
        raise _refused(number, f"has unknown effects {unknown}; known: {sorted(EFFECTS)}")
    try:
        re.compile(match.get("path", ""))
    except re.error as error:
        raise _refused(number, f"has a path that is no regular expression: {error}") from error
    nth = rule.get("nth", [1])
    if not isinstance(nth, list) or not all(isinstance(count, int) for count in nth):
        raise _refused(number, "has an nth that is no list of whole numbers")
    status, delay = effect.get("status", 200), effect.get("delay", 0)
    if not isinstance(status, int) or not 100 <= status <= 599:
        raise _refused(number, "has a status that is no HTTP status")
    if not isinstance(delay, int | float) or delay < 0:
        raise _refused(number, "has a delay that is no number of seconds")
    ended = effect.get("operation_error")
    if ended is not None and set(ended) != {"code", "message"}:
        raise _refused(number, "has an operation_error without just code and message")


def _refused(number: int, said: str) -> BadRequest:
    return BadRequest(f"Rule {number} {said}.", target="rules")
