"""The flow, whole: what it makes, and what it leaves, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from cli.main import main
from lifecycle import following
from lifecycle.clients import WorkspaceRef, ml_client

# Nobody waits for it: it stays until a person changes something.
LOCKED = {"status": 409, "error": {"code": "ScopeLocked", "message": "It is locked."}}

JOB = {"method": "PUT", "path": r"/workspaces/emulator/jobs/[^/]+$"}
ENDPOINT = {"method": "PUT", "path": r"/onlineEndpoints/[^/]+$"}
DEPLOYMENT = {"method": "PUT", "path": r"/onlineEndpoints/[^/]+/deployments/[^/]+$"}
SCORE = {"method": "POST", "path": r"^/score/"}
FAILURE = {"code": "InferencingClientCallFailed", "message": "The container did not start."}

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefect_server: str) -> Run:
    """Run ``finetune run`` on the local profile; return its exit code and report."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))

    def finetune(*settings: str) -> tuple[int, dict[str, Any]]:
        path = tmp_path / "report.json"
        words = [word for setting in settings for word in ("--set", setting)]
        code = main(["run", "--config", "profiles/local.yaml", "--report", str(path), *words])
        document = json.loads(path.read_text())
        assert document["state"] in path.with_suffix(".html").read_text()
        return code, document

    return finetune


def watched(run_id: str) -> tuple[str, str, set[str]]:
    """What the run's page in Prefect shows: its report, the training's last word, its tasks."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)]))
    with get_client(sync_client=True) as client:
        shown = {one.key: one for one in client.read_artifacts(flow_run_filter=of_run)}
        tasks = {one.name for one in client.read_task_runs(flow_run_filter=of_run)}
    return str(shown["run-report"].data), str(shown["training"].description), tasks


def test_a_run_makes_a_model_and_leaves_no_meter(emulator: Any, run: Run) -> None:
    """All steps: trained, registered, asked, and the endpoint seen gone; its page shows it."""
    code, report = run()

    assert 0 == code, report["error"]
    assert "Completed" == report["state"]
    assert "Completed" == report["job"]["status"]
    assert "SmolLM2-135M-Instruct-ultrachat-demo" == report["registered_model"]["name"]
    assert report["metrics"]
    assert report["responses"][0]["reply"]
    assert (True, True) == (report["endpoint"]["created"], report["endpoint"]["deleted"])
    assert [] == emulator.open_meters()
    assert {"endpoint", "deployment", "compute"} <= {
        meter["kind"] for meter in emulator.ledger()["meters"]
    }
    assert 5 == len(report["job"]["steps"])
    assert report["metrics"]["loss"] == report["metric_history"]["loss"][-1][1]
    assert report["cost"]["endpoint_usd"] > 0
    assert report["model"]["description"]
    page, bar, tasks = watched(report["flow_run_id"])
    assert "✔ **Nothing is left running.**" in page
    assert 2 == page.count("](data:image/svg+xml;base64,")
    assert bar.startswith("Completed after ")
    assert f"submit {report['job']['name'][:11]}… to gpu-cluster" in tasks


def test_serverless_compute_and_a_baseline_work_too(emulator: Any, run: Run) -> None:
    """No cluster is made, and the foundation model is asked the same as the trained one."""
    code, report = run(
        "compute.name=",
        "evaluation.baseline=true",
        "evaluation.conversations=2",
    )

    assert 0 == code, report["error"]
    assert [2, True] == [report["evaluation"]["n"], report["responses"][0]["before"] is not None]
    assert None not in report["evaluation"].values()
    assert [] == emulator.open_meters()
    assert "compute" not in {meter["kind"] for meter in emulator.ledger()["meters"]}


def test_the_cluster_that_the_run_made_is_deleted_where_it_is_asked_for(
    emulator: Any, workspace: WorkspaceRef, run: Run
) -> None:
    """The first run makes it and deletes it; without being asked to, it stays, without a node."""
    _, report = run("compute.delete_after=true")
    assert [] == [found.name for found in ml_client(workspace).compute.list()]
    assert True is report["compute"]["created"]

    run("evaluation.baseline=false")
    _, report = run("compute.delete_after=true")
    assert ["gpu-cluster"] == [found.name for found in ml_client(workspace).compute.list()]
    assert False is report["compute"]["created"]
    assert [] == emulator.open_meters()


def test_an_endpoint_is_kept_where_it_is_asked_for(
    emulator: Any, run: Run, workspace: WorkspaceRef
) -> None:
    """A kept endpoint stays; the old model beside the new one gets none of its traffic."""
    code, report = run(
        "endpoint.keep=true", "evaluation.baseline=true", "evaluation.conversations=2"
    )

    assert 0 == code, report["error"]
    assert [report["endpoint"]["deleted"], 3] == [False, len(emulator.open_meters())]
    assert ["demo", "baseline"] == [one["name"] for one in report["endpoint"]["deployments"]]
    kept = ml_client(workspace).online_endpoints.get(report["endpoint"]["name"])
    assert {"demo": 100, "baseline": 0} == kept.traffic


@pytest.mark.parametrize(
    ("status", "code"),
    [("Failed", "JobFailed"), ("Canceled", "JobCanceled"), ("NotResponding", "JobNotResponding")],
)
def test_a_job_that_does_not_complete_fails_the_run(
    emulator: Any, run: Run, status: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, the true end of the job, no endpoint, no meter; its page says so."""
    monkeypatch.setattr(following, "UNCLEAR_SECONDS", 0.0)  # The test has no ten minutes.
    emulator.faults({"match": JOB, "effect": {"job": {"status": status}}})

    exit_code, report = run()

    assert (1, "Failed", code) == (exit_code, report["state"], report["error"]["code"])
    assert ("Canceled" if status == "NotResponding" else status) == report["job"]["status"]
    assert report["endpoint"] is None
    assert [] == emulator.open_meters()
    page, bar, _ = watched(report["flow_run_id"])
    assert f"| error | `{code}` |" in page
    assert bar.startswith(f"{code} after ")


def test_a_run_history_that_is_refused_costs_a_warning(emulator: Any, run: Run) -> None:
    """The job is judged by itself: its model is registered, tried, and nothing is left."""
    emulator.faults({"match": {"path": "/history/"}, "effect": {"status": 403}})

    exit_code, report = run()

    assert (0, "Completed", "Completed") == (exit_code, report["state"], report["job"]["status"])
    assert report["registered_model"]["name"]
    assert True is report["endpoint"]["deleted"]
    assert [] == emulator.open_meters()
    history = [warning for warning in report["warnings"] if "run history" in warning]
    assert 1 == len(history)
    page, _, _ = watched(report["flow_run_id"])
    assert "goes on by the job" in page


@pytest.mark.parametrize("place", [ENDPOINT, DEPLOYMENT], ids=["endpoint", "deployment"])
def test_an_endpoint_that_does_not_come_up_is_deleted(
    emulator: Any, run: Run, place: dict[str, str]
) -> None:
    """A failed deployment bills until it is deleted: it is."""
    emulator.faults({"match": place, "nth": [1], "effect": {"operation_error": FAILURE}})

    exit_code, report = run()

    assert (1, "EndpointError") == (exit_code, report["error"]["code"])
    assert True is report["endpoint"]["deleted"]
    assert [] == emulator.open_meters()


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 400, "body": '{"detail": "no"}'},
        {"status": 424, "body": "no"},
        {"status": 500, "body": "no"},
        {"status": 200, "body": "<html>not JSON</html>"},
    ],
    ids=["400", "424", "500", "no-json"],
)
def test_an_endpoint_that_answers_wrongly_fails_the_run(
    emulator: Any, run: Run, answer: dict[str, Any]
) -> None:
    """Exit 1 with what the endpoint said, and the endpoint is gone."""
    emulator.faults({"match": SCORE, "effect": answer})

    exit_code, report = run()

    assert (1, "ScoringError") == (exit_code, report["error"]["code"])
    assert True is report["endpoint"]["deleted"]
    assert [] == emulator.open_meters()


def test_data_that_nobody_answered_is_refused_before_anything_is_spent(
    emulator: Any, run: Run, tmp_path: Path
) -> None:
    """The rows that the endpoint will be asked are looked at before the training, not after."""
    folder = tmp_path / "unanswered"
    shutil.copytree("demo/ultrachat", folder)
    turns = [{"role": "user", "content": "And then?"}]
    (folder / "test_gen.jsonl").write_text(json.dumps({"messages": turns}) + "\n")

    exit_code, report = run(f"dataset.path={folder}")

    assert (2, "DatasetError") == (exit_code, report["error"]["code"])
    assert [] == emulator.ledger()["meters"]


def test_an_endpoint_that_would_expire_in_use_is_refused(emulator: Any, run: Run) -> None:
    """A sweep must not delete what a long evaluation is still asking."""
    exit_code, report = run("endpoint.expires_after_minutes=90")

    assert 2 == exit_code
    assert "endpoint.expires_after_minutes" == report["error"]["where"]
    assert [] == emulator.ledger()["meters"]


@pytest.mark.parametrize("effect", ["hidden", pytest.param("settling", marks=pytest.mark.long)])
def test_what_azure_shows_late_is_waited_for(emulator: Any, run: Run, effect: str) -> None:
    """A job, an endpoint and a deployment are not found, or still Updating, for a moment."""
    emulator.faults(
        *(
            {
                "match": {"method": "PUT", "path": f"/{made}[^/]+$"},
                "nth": [1],
                "effect": {effect: 2},
            }
            for made in ("jobs/ft-", "onlineEndpoints/", "deployments/")
        )
    )

    exit_code, report = run()

    assert (0, None) == (exit_code, report["error"])
    assert [] == emulator.open_meters()


def test_what_cannot_be_deleted_is_named_and_is_exit_3(emulator: Any, run: Run) -> None:
    """A refused deletion is never reported as done, and does not take the run's result away."""
    emulator.faults({"match": {"method": "DELETE"}, "effect": LOCKED})

    exit_code, report = run()

    assert (3, "StillBilling") == (exit_code, report["error"]["code"])
    assert "Completed" == report["state"]
    assert [f"onlineEndpoints/{report['endpoint']['name']}"] == report["still_billing"]
    assert False is report["endpoint"]["deleted"]


def test_a_failed_cleanup_does_not_hide_why_the_run_failed(emulator: Any, run: Run) -> None:
    """The outcome is the run's own, with the cleanup's trouble as a note; the exit code is 3."""
    emulator.faults(
        {"match": SCORE, "effect": {"status": 400}},
        {"match": {"method": "DELETE"}, "effect": LOCKED},
    )

    exit_code, report = run()

    assert (3, "ScoringError") == (exit_code, report["error"]["code"])
    assert any("may still be billed" in note for note in report["error"]["notes"])
