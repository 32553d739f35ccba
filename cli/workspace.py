"""Which workspace a verb that needs no whole configuration works in."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from lifecycle.auth import WorkspaceSpec
from lifecycle.config import read_values
from lifecycle.errors import ConfigurationError


def workspace_of(chosen: argparse.Namespace) -> WorkspaceSpec:
    """Return the ``workspace`` section of ``--config`` and ``--set``, or an empty one.

    Raises:
        ConfigurationError: The section is not right.
    """
    values = read_values(chosen.config, chosen.set).get("workspace") or {}
    try:
        return WorkspaceSpec.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(["workspace", *(str(part) for part in problem["loc"])])
        raise ConfigurationError(f"{problem['msg']}.", where=where) from None
