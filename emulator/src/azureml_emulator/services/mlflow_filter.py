"""MLflow's search filters: ``tags.mlflow.rootRunId = 'x' AND metrics.loss < 1``.

Grammar: https://mlflow.org/docs/latest/ml/search/search-runs. Joined by AND only, as there.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Subject = Mapping[str, Mapping[str, Any]]
"""What is searched: ``tags``, ``params``, ``metrics`` and ``attributes``, each by name."""

_ENTITIES = {
    "tag": "tags",
    "tags": "tags",
    "param": "params",
    "params": "params",
    "parameter": "params",
    "parameters": "params",
    "metric": "metrics",
    "metrics": "metrics",
    "attribute": "attributes",
    "attributes": "attributes",
    "attr": "attributes",
    "run": "attributes",
}
_QUOTED = r"'[^']*'|\"[^\"]*\""
_CLAUSE = re.compile(
    rf"\s*(?P<key>(?:\w+\.)?(?:`[^`]+`|\"[^\"]+\"|[\w.\-/]+))\s*"
    rf"(?:(?P<null>IS\s+(?:NOT\s+)?NULL)"
    rf"|(?P<among>(?:NOT\s+)?IN)\s*\((?P<values>[^)]*)\)"
    rf"|(?P<comparator>!=|>=|<=|=|>|<|ILIKE\b|LIKE\b)\s*(?P<value>{_QUOTED}|[\w.+\-]+))\s*",
    re.IGNORECASE,
)
_AND = re.compile(r"AND\b", re.IGNORECASE)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def compile_filter(text: str) -> Callable[[Subject], bool]:
    """Return a function that says whether a run or experiment matches the filter *text*.

    Raises:
        ValueError: *text* is no filter.
    """
    clauses: list[Callable[[Subject], bool]] = []
    position = 0
    while position < len(text.rstrip()):
        if clauses:
            joint = _AND.match(text, position)
            if joint is None:
                raise _invalid(text)
            position = joint.end()
        clause = _CLAUSE.match(text, position)
        if clause is None:
            raise _invalid(text)
        clauses.append(_test(clause, text))
        position = clause.end()
    return lambda subject: all(holds(subject) for holds in clauses)


def _test(clause: re.Match[str], text: str) -> Callable[[Subject], bool]:
    entity, name = _key(clause["key"], text)
    if clause["null"]:
        wanted = "NOT" not in clause["null"].upper()
        return lambda subject: (name not in subject[entity]) == wanted
    if clause["among"]:
        values = [_unquoted(value.strip()) for value in clause["values"].split(",")]
        inside = not clause["among"].upper().startswith("NOT")
        return lambda subject: (
            name in subject[entity] and ((str(subject[entity][name]) in values) == inside)
        )
    comparator, value = clause["comparator"].upper(), _unquoted(clause["value"])
    if entity == "metrics":
        float(value)
    return lambda subject: (
        name in subject[entity] and _compare(subject[entity][name], comparator, value)
    )


def _compare(found: Any, comparator: str, value: str) -> bool:
    if comparator in ("LIKE", "ILIKE"):
        pattern = re.escape(value).replace("%", ".*").replace("_", ".")
        flags = re.IGNORECASE if comparator == "ILIKE" else 0
        return re.fullmatch(pattern, str(found), flags) is not None
    if isinstance(found, int | float):
        return bool(_COMPARE[comparator](found, float(value)))
    return bool(_COMPARE[comparator](str(found), value))


def _key(text: str, whole: str) -> tuple[str, str]:
    first, dot, rest = text.partition(".")
    if not dot:
        return "attributes", _unquoted(text)
    if first.lower() not in _ENTITIES:
        raise _invalid(whole)
    return _ENTITIES[first.lower()], _unquoted(rest)


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\"`"
    return text[1:-1] if quoted else text


def _invalid(text: str) -> ValueError:
    return ValueError(f"Invalid filter: {text}")
