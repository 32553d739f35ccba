"""Which workspace a verb that needs no whole configuration works in."""

from __future__ import annotations

import argparse

from lifecycle.auth import WorkspaceSpec
from lifecycle.config import check_workspace, read_values


def workspace_of(chosen: argparse.Namespace) -> WorkspaceSpec:
    """Return the ``workspace`` section of ``--config`` and ``--set``, or an empty one.

    Raises:
        ConfigurationError: The section is not right, or a section is unknown.
    """
    source = None if chosen.config is None else str(chosen.config)
    return check_workspace(read_values(chosen.config, chosen.set), source=source)
