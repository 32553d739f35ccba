"""Rows that were parsed from JSON as Arrow batches, with those that do not fit told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


class NotUnicode(ValueError):
    """A text has bytes that are not UTF-8, or half of a pair of surrogates."""


class Problem(NamedTuple):
    """What is wrong with a row: of which kind, and in words that follow its number."""

    kind: str
    text: str


def loads(text: bytes) -> Any:
    """Parse JSON; bytes that are not UTF-8 are let through for :func:`fit` to find in their place.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text.decode("utf-8", "surrogateescape"))


def from_objects(rows: Sequence[Any], schema: pa.Schema) -> tuple[Any, dict[int, Problem]]:
    """Turn parsed JSON into a batch.

    Returns:
        The batch, with nulls for rows that do not fit *schema*, and why those do not, by place.
    """
    fitting: list[dict[str, Any] | None] = []
    broken = {}
    whole = pa.struct(list(schema))
    for place, row in enumerate(rows):
        try:
            if not isinstance(row, dict):
                raise ValueError(f"it is {_kind(row)}, not an object")
            fitting.append(fit(row, whole, ""))
        except NotUnicode as error:
            broken[place] = Problem("encoding", str(error))
            fitting.append(dict.fromkeys(schema.names))
        except ValueError as error:
            broken[place] = Problem("unreadable", str(error))
            fitting.append(dict.fromkeys(schema.names))
    return pa.RecordBatch.from_pylist(fitting, schema), broken


def fit(value: Any, kind: pa.DataType, where: str) -> Any:
    """Return what is of *kind* in a JSON value; text where a list is wanted is read as JSON.

    Raises:
        NotUnicode: A text in it is not UTF-8.
        ValueError: It is of another kind.
    """
    if value is None:
        return None
    if pa.types.is_list(kind):
        if isinstance(value, str):
            _check_unicode(value, where)
            try:
                value = orjson.loads(value)
            except ValueError as error:
                raise ValueError(f"{where} is text that is not JSON ({error})") from None
        if isinstance(value, list):
            return [fit(one, kind.value_type, f"{where}[{n}]") for n, one in enumerate(value)]
    elif pa.types.is_struct(kind):
        if isinstance(value, dict):
            prefix = f"{where}." if where else ""
            return {
                field.name: fit(value.get(field.name), field.type, f"{prefix}{field.name}")
                for field in kind
            }
    elif isinstance(value, str):
        _check_unicode(value, where)
        return value
    wanted = {"list": "a list", "struct": "an object"}.get(str(kind).partition("<")[0], "text")
    raise ValueError(f"{where} is {_kind(value)}, not {wanted}")


def put_back(table: Any, skipped: list[Any], start: int) -> tuple[Any, dict[int, Problem]]:
    """Give the rows that pyarrow skipped their place again, empty."""
    if not skipped:
        return table, {}
    # Counted from 1, with the line of names.
    places = {row.number - 2 - start: row for row in skipped}
    order = iter(range(table.num_rows))
    total = table.num_rows + len(skipped)
    taken = pa.array([None if n in places else next(order) for n in range(total)], pa.int64())
    broken = {
        place: Problem(
            "unreadable", f"it has {row.actual_columns} columns, not {row.expected_columns}"
        )
        for place, row in places.items()
    }
    return table.take(taken), broken


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotUnicode(f"{where} is not UTF-8") from error


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")
