"""The product's deployments on the session's Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def deployed(prefect_server: str) -> Iterator[Any]:
    """prefect.yaml's deployments with the parameters of the local profile, run by nobody."""
    from prefect import get_client

    from deployments.served import local_deployments
    from lifecycle.config import load_config

    config = load_config(Path("profiles/tiny.yaml")).model_dump(mode="json", exclude_unset=True)
    ids = [one.apply() for one in local_deployments(config)]
    with get_client(sync_client=True) as client:
        yield client
        for one in ids:
            client.delete_deployment(one)
        for automation in client.read_automations():
            if automation.name.startswith("finetune: "):
                client.delete_automation(automation.id)
