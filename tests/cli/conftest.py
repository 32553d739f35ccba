"""What several tests of the command line use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle.clients import WorkspaceRef
from lifecycle.endpoint import EndpointRef, EndpointSpec, create_endpoint


@pytest.fixture
def expired(workspace: WorkspaceRef) -> str:
    """An endpoint of ours, past its date."""
    return make_expired(workspace, "left-behind-a1")


def make_expired(workspace: WorkspaceRef, name: str) -> str:
    """Create an endpoint of ours that has expired, and return its name."""
    moment = datetime.now(UTC) - timedelta(hours=3)
    endpoint = EndpointRef(
        name=name,
        owner="00000000-0000-4000-8000-000000000042",
        attempt=1,
        created_at=moment,
        expires_at=moment + timedelta(minutes=90),
    )
    spec = EndpointSpec(instance_type="Standard_NC24ads_A100_v4")
    return create_endpoint(workspace, spec, endpoint).name
