"""What Prefect's server remembers for setup: variables that stand in for options not given.

``finetune_workspace`` names the workspace, ``finetune_notify`` the blocks to tell: with them on the
server, ``python -m deployments.setup`` from any machine sets up the same. An option or the
environment wins. Neither holds a secret: variables are shown to whoever sees the server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prefect import get_client

from lifecycle.auth import VARIABLES
from lifecycle.errors import ConfigurationError

WORKSPACE = "finetune_workspace"
"""A JSON object: subscription_id, resource_group, name."""

NOTIFY = "finetune_notify"
"""A JSON list of notification blocks, each as ``slack-webhook/team``."""


def with_workspace(
    values: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return a configuration's values, with the server's workspace where nothing names one.

    Args:
        values: The sections of a configuration, not checked yet.
        environ: Where the three ``AZUREML_ARM_…`` variables are looked up.

    Raises:
        ConfigurationError: The variable does not hold the three names.
    """
    section = values.get("workspace", {})
    # What is no section is refused by who checks the values.
    is_named = not isinstance(section, dict) or bool({*VARIABLES, "config_path"} & set(section))
    if is_named or any(environ.get(name) for name in VARIABLES.values()):
        return dict(values)
    stored = _read(WORKSPACE)
    if stored is None:
        return dict(values)
    if not (
        isinstance(stored, dict)
        and set(stored) == set(VARIABLES)
        and all(isinstance(one, str) and one for one in stored.values())
    ):
        raise ConfigurationError(
            f"a JSON object of {', '.join(VARIABLES)} is asked for.", where=_where(WORKSPACE)
        )
    return {**values, "workspace": {**section, **stored}}


def notified() -> list[str]:
    """Return the blocks that the server says are to be told; none where it says nothing.

    Raises:
        ConfigurationError: The variable is no list of names.
    """
    stored = _read(NOTIFY)
    if stored is None:
        return []
    if not isinstance(stored, list) or not all(isinstance(one, str) for one in stored):
        raise ConfigurationError(
            'a JSON list of blocks is asked for, for example ["slack-webhook/team"].',
            where=_where(NOTIFY),
        )
    return [str(one) for one in stored]


def _read(name: str) -> Any:
    with get_client(sync_client=True) as client:
        found = client.read_variable_by_name(name)
    return None if found is None else found.value


def _where(name: str) -> str:
    return f"Prefect's variable {name}"
