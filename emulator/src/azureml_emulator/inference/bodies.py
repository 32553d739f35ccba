"""The bodies of scoring requests and answers, in the shapes that Azure ML's MLflow models have.

A request is ``{"input_data": {COLUMN: rows, "parameters": {…}}, "params": {…}}``, as the tutorial
on fine-tuning sends it, or ``{"input_data": {"columns": […], "data": [[…]]}, "params": {…}}``. A
column of the model that holds lists, such as a conversation's messages, takes one such list for
one row.

Source: azureml-examples, sdk/python/foundation-models/system/finetune/chat-completion;
https://learn.microsoft.com/azure/machine-learning/how-to-deploy-mlflow-models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class BadBodyError(ValueError):
    """The request cannot be understood, or asks for what the model does not have."""


@dataclass(frozen=True)
class Question:
    """A request, read.

    Args:
        rows: What the model is asked.
        params: How it is to answer; None if the model takes no parameters.
        single: Whether one row was given by itself, so that one answer is wanted and no list.
    """

    rows: pd.DataFrame
    params: dict[str, Any] | None
    single: bool


def read_question(body: bytes, metadata: Any) -> Question:
    """Read a request.

    Args:
        body: JSON.
        metadata: The model's ``mlflow.models.Model``.

    Raises:
        BadBodyError: It is not acceptable; the message says why.
    """
    import pandas as pd

    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadBodyError(f"the request is not JSON: {error}") from error
    data = request.get("input_data") if isinstance(request, dict) else None
    if not isinstance(data, dict):
        raise BadBodyError("the request has no object input_data")
    data = dict(data)
    params = _params(request.get("params"), data.pop("parameters", None), metadata)
    split = data.keys() >= {"columns", "data"}
    columns = {} if split else _columns(data, metadata)
    try:
        if split:
            rows = pd.DataFrame(data["data"], columns=data["columns"])
            return Question(rows, params, single=False)
        rows = pd.DataFrame(columns)
    except (ValueError, TypeError, AssertionError) as error:
        raise BadBodyError(f"input_data is no table: {error}") from error
    if rows.empty:
        raise BadBodyError("input_data has no rows")
    return Question(rows, params, single=len(rows) == 1)


def write_answer(prediction: Any, *, single: bool) -> bytes:
    """Return what the model said as JSON; of a table, one object for each row.

    Args:
        prediction: What a pyfunc model returns.
        single: Whether the first row alone is wanted.
    """
    if hasattr(prediction, "to_dict"):
        table = hasattr(prediction, "columns")
        prediction = prediction.to_dict("records") if table else prediction.tolist()
        if single and table:
            prediction = prediction[0]
    return json.dumps(prediction, default=_plain).encode()


def _params(general: Any, of_chat: Any, metadata: Any) -> dict[str, Any] | None:
    given: dict[str, Any] = {}
    for place, part in (("params", general), ("input_data.parameters", of_chat)):
        if part is not None and not isinstance(part, dict):
            raise BadBodyError(f"{place} is not an object")
        given |= part or {}
    schema = metadata.get_params_schema()
    known = [] if schema is None else [param.name for param in schema.params]
    if unknown := sorted(set(given) - set(known)):
        those = ", ".join(known) or "none"
        raise BadBodyError(f"the model has no parameter {' nor '.join(unknown)}; it has {those}")
    return given if known else None


def _columns(data: dict[str, Any], metadata: Any) -> dict[str, Any]:
    from mlflow.types.schema import Array

    schema = metadata.get_input_schema()
    declared = schema.input_dict() if schema is not None and schema.has_input_names() else None
    if declared is not None and (unknown := sorted(set(data) - set(declared))):
        raise BadBodyError(
            f"the model has no input {' nor '.join(unknown)}; it has {', '.join(declared)}"
        )
    columns = {}
    for name, value in data.items():
        of_lists = declared is not None and isinstance(declared[name].type, Array)
        several = isinstance(value, list) and (
            not of_lists or not value or all(isinstance(item, list) for item in value)
        )
        columns[name] = value if several else [value]
    return columns


def _plain(value: Any) -> Any:
    # numpy's arrays and numbers.
    return value.tolist()
