"""Metrics come from the workspace's MLflow with a token of ours, and never by way of a browser."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from lifecycle.auth import WorkspaceResult, WorkspaceSpec, authenticate
from lifecycle.clients import WorkspaceRef, cloud, credential
from lifecycle.job import JobResult
from lifecycle.metrics import CHART_POINTS, MetricsResult, review_metrics
from lifecycle.report import RunReport, recording

STEP = "chat_completion_finetune"
LONG = "a_long_history"


@pytest.fixture
def facts(workspace: WorkspaceRef) -> WorkspaceResult:
    """What authentication found."""
    return authenticate(
        WorkspaceSpec(
            subscription_id=workspace.subscription_id,
            resource_group=workspace.resource_group,
            name=workspace.name,
        )
    )


def log_metrics(ref: WorkspaceRef, facts: WorkspaceResult, job: str, values: Any) -> None:
    """Log to the job's own run, as a training script would: with MLflow's own client."""
    from mlflow.entities import Metric
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import MlflowHostCreds

    token = credential(ref).get_token(cloud().arm_scope).token
    host = facts.mlflow_tracking_uri.replace("azureml://", "https://")
    store = RestStore(lambda: MlflowHostCreds(host, token=token))
    metrics = [Metric(name, value, 0, step) for name, value, step in values]
    store.log_batch(job, metrics=metrics, params=[], tags=[])


def test_metrics_of_the_job_and_its_steps_are_read(
    workspace: WorkspaceRef, facts: WorkspaceResult, completed_job: JobResult
) -> None:
    """Training and evaluation, their last values and their histories, under their step."""
    found = review_metrics(workspace, facts, completed_job.name)

    assert {"train_loss", "eval_loss"} <= set(found.values)
    assert found.values["train_loss"] == found.by_run[STEP]["train_loss"]
    history = found.history["loss"]
    assert len(history) > 1
    assert [step for step, _ in history] == sorted(step for step, _ in history)
    assert found.values["loss"] == history[-1][1]


def test_a_metric_of_several_runs_is_that_of_the_youngest(
    workspace: WorkspaceRef, facts: WorkspaceResult, completed_job: JobResult
) -> None:
    """What the step says goes before what the job says; by_run has both."""
    log_metrics(workspace, facts, completed_job.name, [("train_loss", 99.0, 0)])
    found = review_metrics(workspace, facts, completed_job.name)

    assert found.by_run[STEP]["train_loss"] == found.values["train_loss"] != 99.0
    assert 99.0 == found.by_run[completed_job.display_name]["train_loss"]


def test_a_long_history_is_thinned_and_keeps_its_ends(
    workspace: WorkspaceRef, facts: WorkspaceResult, completed_job: JobResult
) -> None:
    """A chart has a bounded number of points, the first and the last among them."""
    log_metrics(workspace, facts, completed_job.name, [(LONG, n / 7, n) for n in range(900)])
    found = review_metrics(workspace, facts, completed_job.name)

    history = found.history[LONG]
    assert CHART_POINTS == len(history)
    assert ((0, 0.0), (899, 899 / 7)) == (history[0], history[-1])


def test_a_loss_that_became_nan_survives_json() -> None:
    """The one number that a person must see is not lost on the way into the report."""
    found = MetricsResult(values={"loss": float("nan")}, history={}, by_run={})

    again = MetricsResult.model_validate_json(found.model_dump_json())
    assert str(again.values["loss"]) == "nan"


def reviewed(
    ref: WorkspaceRef, facts: WorkspaceResult, job: str, clock: Any
) -> tuple[MetricsResult, list[str]]:
    """What a run gets to know, and the warnings of it."""
    report = RunReport()
    with recording(report):
        found = review_metrics(ref, facts, job, clock=clock)
    return found, report.warnings


def test_an_unknown_job_has_no_metrics(
    workspace: WorkspaceRef, facts: WorkspaceResult, clock: Any
) -> None:
    """MLflow's own words are in the warning, and it is not asked again."""
    found, [warning] = reviewed(workspace, facts, "ft-nothing-a1", clock)

    assert ({}, {}) == (found.values, found.history)
    assert "ft-nothing-a1" in warning
    assert [] == clock.slept


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 403, "error": {"code": "AuthorizationFailed", "message": "You may not."}},
        {"status": 200, "body": "<html>"},
        {"status": 200, "body": '{"run": 7, "runs": {}, "metrics": null}'},
        *(
            pytest.param(effect, marks=pytest.mark.long)
            for effect in (
                {"status": 404},
                {"status": 500},
                {"status": 429, "headers": {"Retry-After": "soon"}},
                {"status": 200, "body": ""},
                {"status": 200, "body": "{}"},
                {"status": 200, "body": "[]"},
                {"status": 200, "body": '{"run": {"data": {"metrics": [{"key": 1}]}}}'},
                {"reset": True},
            )
        ),
    ],
    ids=str,
)
def test_metrics_that_cannot_be_read_are_one_warning(
    emulator: Any,
    workspace: WorkspaceRef,
    facts: WorkspaceResult,
    completed_job: JobResult,
    clock: Any,
    effect: dict[str, Any],
) -> None:
    """A completed job is not failed for its metrics, and nobody waits long for them."""
    emulator.faults({"match": {"path": "/mlflow/"}, "effect": effect})

    found, warnings = reviewed(workspace, facts, completed_job.name, clock)

    assert ({}, {}, {}) == (found.values, found.history, found.by_run)
    assert 1 == len(warnings)
    assert warnings[0].endswith("The report shows none but what the log gave.")
    assert sum(clock.slept) <= 7


def test_trouble_that_passes_costs_no_metrics(
    emulator: Any,
    workspace: WorkspaceRef,
    facts: WorkspaceResult,
    completed_job: JobResult,
    clock: Any,
) -> None:
    """A moment's outage right after the job is waited out."""
    emulator.faults({"match": {"path": "/mlflow/"}, "nth": [1, 2], "effect": {"status": 503}})

    found, warnings = reviewed(workspace, facts, completed_job.name, clock)

    assert found.values
    assert [] == warnings


def test_the_token_is_in_no_variable(
    workspace: WorkspaceRef, facts: WorkspaceResult, completed_job: JobResult
) -> None:
    """Child processes and other threads find nothing; what a user set for MLflow stays."""
    review_metrics(workspace, facts, completed_job.name)

    token = credential(workspace).get_token(cloud().arm_scope).token
    assert token not in os.environ.values()
    assert not {"MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH"} & set(os.environ)


def test_a_failing_credential_reaches_no_browser_and_no_device_code(
    facts: WorkspaceResult, completed_job: JobResult, tmp_path: Path
) -> None:
    """The chain of the azureml-mlflow plugin, which is installed here, would open both."""
    tripwire = tmp_path / "browser"
    tripwire.write_text(f"#!/bin/sh\ntouch {tmp_path}/opened\n")
    tripwire.chmod(0o755)
    program = f"""
        from lifecycle.auth import WorkspaceResult
        from lifecycle.metrics import review_metrics
        facts = WorkspaceResult.model_validate_json({facts.model_dump_json()!r})
        review_metrics(facts.ref, facts, {completed_job.name!r})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={
            **os.environ,
            "BROWSER": str(tripwire),
            "IDENTITY_HEADER": "wrong",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert "No token could be had while getting a token for MLflow" in done.stderr
    assert not (tmp_path / "opened").exists()
    assert "devicelogin" not in (done.stdout + done.stderr).lower()
