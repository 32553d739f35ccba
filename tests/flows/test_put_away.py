"""Runs that are cancelled or killed under ``serve``: what they leave in Azure is put away."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from prefect.states import Cancelling

DEPLOYMENT = r"/onlineEndpoints/[^/]+/deployments/[^/]+$"
REFUSED_FOR_A_WHILE = {
    "match": {"method": "DELETE", "path": "/onlineEndpoints/[^/]+$"},
    "seconds": 45,
    "effect": {"status": 409, "error": {"code": "Conflict", "message": "Another operation runs."}},
}


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
def test_ctrl_c_ends_a_deployed_run_for_good(served: Any) -> None:
    """Who serves the flow at a terminal presses it: that is a cancel, not a crash."""
    run = served.start_run()
    served.await_line(run, "[chat_completion_finetune] step")
    [flow] = served.pids()

    os.kill(flow, signal.SIGINT)

    assert "cancelled" == served.await_state(run, "cancelled", "crashed", "completed")
    assert [("a1", "Canceled")] == served.jobs(run)
    served.await_no_meter()


@pytest.mark.long
@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_second_sigterm_does_not_cut_the_cleanup_off(served: Any, pause: float) -> None:
    """An impatient supervisor, in mid-deployment."""
    before = served.requests()
    run = served.start_run()
    served.await_request("PUT", DEPLOYMENT, since=before)
    [flow] = served.pids()

    os.kill(flow, signal.SIGTERM)
    time.sleep(pause)
    os.kill(flow, signal.SIGTERM)

    assert "crashed" == served.await_state(run, "cancelled", "crashed", "completed")
    assert [("a1", "Completed")] == served.jobs(run)
    served.await_no_meter(30)


@pytest.mark.long
def test_a_cancelled_run_leaves_no_endpoint(served: Any) -> None:
    """Cancel in the UI, in mid-deployment: the endpoint is gone, and the run's report says so."""
    before = served.requests()
    run = served.start_run()
    served.await_request("PUT", DEPLOYMENT, since=before)

    served.change_state(run, Cancelling())

    assert "cancelled" == served.await_state(run, "cancelled", "crashed", "completed")
    assert [("a1", "Completed")] == served.jobs(run)
    served.await_no_meter()
    assert "**Interrupted** in" in served.await_report(run)


@pytest.mark.long
def test_a_deletion_that_outlasts_the_grace_is_seen_through(served: Any) -> None:
    """Prefect kills a cancelled run after 30 s; its parent goes on asking."""
    before = served.requests()
    run = served.start_run()
    served.await_request("PUT", DEPLOYMENT, since=before)
    [flow] = served.pids()
    served.faults(REFUSED_FOR_A_WHILE)

    served.change_state(run, Cancelling())

    try:
        assert "cancelled" == served.await_state(run, "cancelled", "crashed", "completed")
        served.await_no_meter(120)
        assert flow not in served.pids()
    finally:
        served.faults()


def test_a_killed_run_leaves_no_endpoint(served: Any) -> None:
    """SIGKILL in mid-deployment, when nothing of the run's own can act: its parent does it all."""
    before = served.requests()
    run = served.start_run()
    served.await_request("PUT", DEPLOYMENT, since=before)

    [flow] = served.pids()
    os.kill(flow, signal.SIGKILL)

    assert "crashed" == served.await_state(run, "crashed", "completed")
    served.await_no_meter(60)
    assert "**No endpoint is left.**" in served.await_report(run)
