"""Rows that were parsed from JSON as Arrow batches, with those that do not fit told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


def from_objects(rows: Sequence[Any], schema: pa.Schema) -> tuple[Any, dict[int, str]]:
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
        except ValueError as error:
            broken[place] = str(error)
            fitting.append(dict.fromkeys(schema.names))
    return pa.RecordBatch.from_pylist(fitting, schema), broken


def fit(value: Any, kind: pa.DataType, where: str) -> Any:
    """Return what is of *kind* in a JSON value; text where a list is wanted is read as JSON.

    Raises:
        ValueError: It is of another kind.
    """
    if value is None:
        return None
    if pa.types.is_list(kind):
        if isinstance(value, str):
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
        return value
    wanted = {"list": "a list", "struct": "an object"}.get(str(kind).partition("<")[0], "text")
    raise ValueError(f"{where} is {_kind(value)}, not {wanted}")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")
