"""What a hook says where it cannot put away what a cancelled run left."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Running

from flows.finetune import finetune_chat_model
from flows.hooks import put_away_cancelled
from lifecycle.errors import FinetuneError

# Nobody waits for it: it stays until a person changes something.
DENIED = {"status": 403, "error": {"code": "DenyAssignmentAuthorizationFailed", "message": "No."}}

ENDPOINTS = {"match": {"method": "GET", "path": "/onlineEndpoints$"}, "effect": DENIED}
JOBS = {"match": {"method": "GET", "path": "/jobs/ft-[^/]+$"}, "effect": DENIED}


@pytest.fixture
def run(emulator: Any, workspace: Any, prefect_server: str) -> FlowRun:
    """A run that was cancelled, of which nothing is known but its tags."""
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(finetune_chat_model, state=Running())
        client.set_flow_run_state(made.id, Cancelled(), force=True)
        return client.read_flow_run(made.id)


def test_each_trouble_is_told(emulator: Any, run: FlowRun) -> None:
    """Neither endpoints nor jobs may be read: both reasons are given, not the last one alone."""
    emulator.faults(ENDPOINTS, JOBS)

    with pytest.raises(ExceptionGroup) as caught:
        put_away_cancelled(finetune_chat_model, run, Cancelled())

    endpoints, job = caught.value.exceptions
    assert isinstance(endpoints, FinetuneError)
    assert isinstance(job, FinetuneError)
    told = _told(run.id)
    assert endpoints.message in told
    assert job.message in told


def test_the_job_is_seen_to_where_endpoints_cannot_be(emulator: Any, run: FlowRun) -> None:
    """A right that is missing on one resource must not let the other bill."""
    emulator.faults(ENDPOINTS)

    with pytest.raises(FinetuneError, match="listing the endpoints"):
        put_away_cancelled(finetune_chat_model, run, Cancelled())

    assert [1] == [1 for row in emulator.requests() if "/jobs/ft-" in row["path"]][:1]


def _told(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        )
    return "\n".join(str(artifact.data) for artifact in found)
