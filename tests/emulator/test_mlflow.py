"""MLflow: a job's metrics through the plain client and through the plugin, and logging to a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names
from azureml_emulator.services.mlflow_filter import compile_filter

from tests.conftest import RunningEmulator
from tests.emulator.submitting import NODE, Jobs, jobs_catalog

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI = f"/mlflow/v1.0{names.WORKSPACE_ID}"


@pytest.fixture
def jobs(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """One completed job."""
    jobs = Jobs(start_emulator(catalog=jobs_catalog(tmp_path)))
    jobs.submit("ft-1")
    return jobs


@pytest.fixture
def client(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The plain client with a token of ours."""
    from mlflow import MlflowClient

    emulator = jobs.emulator.server.emulator
    token = emulator.tokens.issue(jobs.emulator.url, now=emulator.clock.now())
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    return MlflowClient(f"{jobs.emulator.url}{URI}")


def test_the_whole_tree_is_found_by_its_root(jobs: Jobs, client: MlflowClient) -> None:
    """As the foundation-model notebooks look for the training child."""
    experiment = client.get_experiment_by_name("chat")
    found = client.search_runs([experiment.experiment_id], "tags.mlflow.rootRunId = 'ft-1'")

    assert 7 == len(found)
    trained = [run for run in found if "epoch" in run.data.metrics]
    training = jobs.steps("ft-1")["chat_completion_finetune"]["runId"]
    assert [training] == [run.info.run_id for run in trained]
    assert {"loss", "eval_loss", "learning_rate", "train_loss"} < set(trained[0].data.metrics)


def test_children_name_their_parent(jobs: Jobs, client: MlflowClient) -> None:
    """The tag ``mlflow.parentRunId`` leads one step up."""
    node = jobs.children("ft-1")[NODE]["runId"]
    experiment = client.get_experiment_by_name("chat")
    found = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{node}'")

    assert 5 == len(found)
    assert {"FINISHED"} == {run.info.status for run in found}


def test_history_has_every_value_in_order(jobs: Jobs, client: MlflowClient) -> None:
    """One value for each logged step, and the run shows the last."""
    training = jobs.steps("ft-1")["chat_completion_finetune"]["runId"]
    history = client.get_metric_history(training, "loss")

    assert 10 == len(history)
    assert sorted(point.step for point in history) == [point.step for point in history]
    assert history[-1].value == client.get_run(training).data.metrics["loss"]


def test_the_plugin_reads_the_same_run(jobs: Jobs) -> None:
    """``azureml://`` goes through azureml-mlflow and the managed identity."""
    from mlflow import MlflowClient

    client = MlflowClient(f"azureml://{jobs.emulator.url.removeprefix('https://')}{URI}")
    run = client.get_run("ft-1")

    assert ("FINISHED", "tuned") == (run.info.status, run.info.run_name)


def test_a_child_may_log_to_its_run(jobs: Jobs, client: MlflowClient) -> None:
    """Metrics, params and tags come back as they went, NaN and infinity too."""
    from mlflow.entities import Metric, Param, RunTag

    training = jobs.steps("ft-1")["chat_completion_finetune"]["runId"]
    client.log_metric(training, "broken", math.nan, step=1)
    client.log_metric(training, "broken", math.inf, step=2)
    client.log_batch(
        training, [Metric("speed", 7.5, 1000, 3)], [Param("rank", "8")], [RunTag("kind", "lora")]
    )
    client.log_param(training, "alpha", 16)
    client.set_tag(training, "note", "x")
    run = client.get_run(training)

    broken = [point.value for point in client.get_metric_history(training, "broken")]
    assert (True, math.inf) == (math.isnan(broken[0]), broken[1])
    assert 7.5 == run.data.metrics["speed"]
    assert {"rank": "8", "alpha": "16"} == run.data.params
    assert ("lora", "x") == (run.data.tags["kind"], run.data.tags["note"])


def test_a_param_cannot_be_changed(jobs: Jobs, client: MlflowClient) -> None:
    """As in MLflow itself."""
    from mlflow.exceptions import MlflowException

    client.log_param("ft-1", "alpha", 16)
    with pytest.raises(MlflowException, match="cannot be changed"):
        client.log_param("ft-1", "alpha", 17)


def test_a_run_of_ones_own(client: MlflowClient) -> None:
    """An experiment and a run in it may be made without a job."""
    experiment = client.create_experiment("mine")
    run = client.create_run(experiment, run_name="by hand")
    client.set_terminated(run.info.run_id)

    found = client.search_runs([experiment])
    assert [("by hand", "FINISHED")] == [(one.info.run_name, one.info.status) for one in found]
    assert "mine" in [one.name for one in client.search_experiments()]


def test_ending_a_run_over_mlflow_does_not_end_the_job(
    start_emulator: Callable[..., RunningEmulator], tmp_path: Path
) -> None:
    """A child that says FINISHED is still the jobs service's to end."""
    slow = Jobs(start_emulator(catalog=jobs_catalog(tmp_path), latency="manual"))
    slow.submit("ft-1")
    path = f"{URI}/api/2.0/mlflow/runs/update"
    slow.wire("POST", path, {"run_id": "ft-1", "status": "FINISHED"})

    assert "Preparing" == slow.status("ft-1")


def test_what_is_not_there_is_said_so(client: MlflowClient) -> None:
    """In MLflow's own codes: the client makes None of a missing experiment."""
    from mlflow.exceptions import MlflowException

    assert None is client.get_experiment_by_name("none")
    with pytest.raises(MlflowException) as caught:
        client.get_run("none")
    assert "RESOURCE_DOES_NOT_EXIST" == caught.value.error_code


def test_search_comes_in_order_and_in_pages(client: MlflowClient) -> None:
    """``order_by`` sorts, and the token leads on."""
    experiment = client.create_experiment("many")
    for number in range(3):
        run = client.create_run(experiment, run_name=f"run {number}")
        client.log_metric(run.info.run_id, "loss", number)
    first = client.search_runs([experiment], order_by=["metrics.loss DESC"], max_results=2)
    second = client.search_runs(
        [experiment], order_by=["metrics.loss DESC"], max_results=2, page_token=first.token
    )

    assert ["run 2", "run 1"] == [run.info.run_name for run in first]
    assert ["run 0"] == [run.info.run_name for run in second]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("tags.a.b = 'x'", True),
        ('tags.`a.b` != "x"', False),
        ("metrics.loss < 0.5 AND params.rank = '8'", True),
        ("metrics.loss >= 0.5", False),
        ("metrics.missing < 1", False),
        ("attributes.status = 'FINISHED'", True),
        ("run_name LIKE 'tun%'", True),
        ("run_name ILIKE 'TUN%'", True),
        ("attributes.status IN ('FAILED', 'KILLED')", False),
        ("tags.none IS NULL", True),
        ("tags.none IS NOT NULL", False),
    ],
)
def test_filters(text: str, expected: bool) -> None:
    """What MLflow's grammar means."""
    subject: dict[str, dict[str, Any]] = {
        "tags": {"a.b": "x"},
        "params": {"rank": "8"},
        "metrics": {"loss": 0.25},
        "attributes": {"status": "FINISHED", "run_name": "tuned"},
    }

    assert expected == compile_filter(text)(subject)


@pytest.mark.parametrize("text", ["tags.a", "tags.a = ", "a = 'b' OR c = 'd'", "metrics.loss < x"])
def test_what_is_no_filter(text: str) -> None:
    """Refused whole, not ignored in part."""
    with pytest.raises(ValueError, match=r"filter|float"):
        compile_filter(text)
