"""A run that comes back meets its own job again: one job, one model, every line once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from prefect.states import AwaitingRetry

from flows.finetune import finetune_chat_model
from lifecycle.config import FinetuneConfig, load_config

pytestmark = pytest.mark.long

SCORE = {"method": "POST", "path": r"^/score/"}
DETAILS = {"method": "GET", "path": r"/history/.*/runs/ft-[^/]+/details$"}
JOB = {"method": "PUT", "path": r"/jobs/ft-[^/]+$"}


@pytest.mark.long
def test_a_killed_run_comes_back_to_its_job(served: Any) -> None:
    """SIGKILL while it streams, then Retry in the UI: the job goes on, and its log is whole."""
    run, step = served.start_run(), "[chat_completion_finetune] "
    served.await_line(run, f"{step}step")
    [flow] = served.pids()
    os.kill(flow, signal.SIGKILL)
    assert "crashed" == served.await_state(run, "crashed", "completed")
    assert "Canceled" not in str(served.jobs(run))

    served.change_state(run, AwaitingRetry())

    assert "completed" == served.await_state(run, "completed", "failed", "crashed"), served.said()
    assert [("a1", "Completed")] == served.jobs(run)
    served.await_no_meter()
    lines = [line for line in served.lines(run) if line.startswith(step)]
    there = [f"{step}{line}" for line in served.step_log(run, "finetune")]
    assert sorted(there) == sorted(line for line in lines if f"{step}Status: " not in line)
    assert len(lines) == len(set(lines))


def test_a_flow_with_retries_leaves_its_job_to_the_next_try(
    emulator: Any, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that fails while the job goes on does not cost the training."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    config = load_config(Path("profiles/local.yaml"))
    sections = {name: getattr(config, name) for name in FinetuneConfig.model_fields}
    emulator.faults({"match": DETAILS, "nth": [1], "effect": {"status": 403}})

    report: Any = finetune_chat_model.with_options(retries=1)(**sections)

    assert ("Completed", 1) == (report["state"], report["job"]["attempts"])
    jobs = [
        row for row in emulator.requests() if row["method"] == "PUT" and "/jobs/" in row["path"]
    ]
    assert 1 == len(jobs)
    assert report["endpoint"]["name"].endswith("-a2")
    assert [] == emulator.open_meters()


@pytest.mark.long
def test_a_retry_after_a_failed_invoke_trains_nothing_anew(served: Any) -> None:
    """The job is complete and the model registered; both attempts' endpoints are deleted."""
    served.faults({"match": SCORE, "effect": {"status": 400}})
    before = served.requests()
    run = served.start_run()
    assert "failed" == served.await_state(run, "completed", "failed", "crashed"), served.said()
    served.faults()

    served.change_state(run, AwaitingRetry())

    assert "completed" == served.await_state(run, "completed", "crashed"), served.said()
    assert [("a1", "Completed")] == served.jobs(run)
    assert ["a1", "a2"] == served.endpoints(since=before)
    served.await_no_meter()


@pytest.mark.long
def test_a_retry_after_a_failed_job_trains_anew(served: Any) -> None:
    """A job that failed is no use to anybody: the next attempt has a job of its own."""
    served.faults({"match": JOB, "nth": [1], "effect": {"job": {"status": "Failed"}}})
    run = served.start_run()
    assert "failed" == served.await_state(run, "completed", "failed", "crashed"), served.said()

    served.change_state(run, AwaitingRetry())

    assert "completed" == served.await_state(run, "completed", "crashed"), served.said()
    assert [("a1", "Failed"), ("a2", "Completed")] == served.jobs(run)
    served.await_no_meter()
