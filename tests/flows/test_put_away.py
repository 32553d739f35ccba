"""Runs that are cancelled or killed under ``serve``: what they leave in Azure is put away."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from prefect.states import Cancelling

DEPLOYMENT = r"/onlineEndpoints/[^/]+/deployments/[^/]+$"


@pytest.mark.long
def test_a_cancelled_run_cancels_its_job(served: Any) -> None:
    """Cancel in the UI reaches the training job, and the run says Cancelled when it has ended."""
    run = served.start_run()
    served.await_request("GET", r"/history/.*/runs/ft-[^/]+/children")

    served.change_state(run, Cancelling())

    assert "cancelled" == served.await_state(run, "cancelled", "crashed", "completed")
    assert [("a1", "Canceled")] == served.jobs(run)
    served.await_no_meter()


@pytest.mark.long
def test_a_cancelled_run_leaves_no_endpoint(served: Any) -> None:
    """Cancel in the UI, in mid-deployment: the endpoint is gone."""
    before = served.requests()
    run = served.start_run()
    served.await_request("PUT", DEPLOYMENT, since=before)

    served.change_state(run, Cancelling())

    assert "cancelled" == served.await_state(run, "cancelled", "crashed", "completed")
    assert [("a1", "Completed")] == served.jobs(run)
    served.await_no_meter()


def test_a_killed_run_leaves_no_endpoint(served: Any) -> None:
    """SIGKILL in mid-deployment, when nothing of the run's own can act: its parent does."""
    before = served.requests()
    run = served.start_run()
    served.await_request("PUT", DEPLOYMENT, since=before)

    [flow] = served.pids()
    os.kill(flow, signal.SIGKILL)

    assert "crashed" == served.await_state(run, "crashed", "completed")
    served.await_no_meter(60)
