"""Run history: logs that grow, children in pages, and the SDK's own stream."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from azureml_emulator import settings as names

from tests.conftest import RunningEmulator
from tests.emulator.submitting import NODE, STEPS, Jobs, body, jobs_catalog

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@pytest.fixture
def jobs(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """Jobs that end at once."""
    return Jobs(start_emulator(catalog=jobs_catalog(tmp_path)))


@pytest.fixture
def slow(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """Jobs that go on when the test says so."""
    return Jobs(start_emulator(catalog=jobs_catalog(tmp_path), latency="manual"))


def sdk() -> MLClient:
    """Return the SDK's own client, by the environment alone."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(
        DefaultAzureCredential(),
        names.SUBSCRIPTION_ID,
        names.RESOURCE_GROUP,
        names.WORKSPACE_NAME,
        enable_telemetry=False,
    )


def test_a_childs_log_grows_between_polls(slow: Jobs) -> None:
    """What was there stays, byte for byte; more is added behind it."""
    slow.submit("ft-1")
    logs = [""]
    while slow.status("ft-1") != "Completed":
        slow.emulator.advance(1)
        if training := slow.steps("ft-1").get("chat_completion_finetune"):
            logs.append(slow.log(training["runId"]))

    assert len(set(logs)) > 8
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(logs))
    assert '"loss":' in logs[-1]


def test_the_parents_log_is_an_outline(jobs: Jobs) -> None:
    """It names the runs that were begun, and has none of their lines."""
    jobs.submit("ft-1")

    outline = jobs.log("ft-1", "logs/azureml/executionlogs.txt")
    node = jobs.children("ft-1")[NODE]["runId"]
    assert f"Submitting 1 runs, first five are: {NODE}:{node}" in outline
    assert "nothing to schedule" in outline
    steps = jobs.log(node, "logs/azureml/executionlogs.txt")
    assert all(f"{key}:" in steps for key in STEPS)


def test_a_log_needs_its_signature(jobs: Jobs) -> None:
    """The URL alone, without its query, is refused."""
    jobs.submit("ft-1")
    url = jobs.details("ft-1")["logFiles"]["logs/azureml/executionlogs.txt"]

    assert (
        403 == jobs.wire("GET", url.partition("?")[0], headers={"Authorization": None}).status_code
    )


def test_children_come_in_pages(jobs: Jobs) -> None:
    """``$top`` and the continuation token lead through all of them, each once."""
    jobs.submit("ft-1")
    node = jobs.children("ft-1")[NODE]["runId"]
    first = jobs.history(f"runs/{node}/children?$top=2")
    token = first["continuationToken"]
    second = jobs.history(f"runs/{node}/children?$top=2&$continuationtoken={token}")
    third = jobs.wire("GET", second["nextLink"]).json()

    seen = [run["displayName"] for page in (first, second, third) for run in page["value"]]
    assert (STEPS, None) == (seen, third["continuationToken"])


def test_a_child_knows_its_tree(jobs: Jobs) -> None:
    """Parent, root, experiment and times are there."""
    jobs.submit("ft-1")
    node, step = jobs.children("ft-1")[NODE], jobs.steps("ft-1")[STEPS[3]]

    assert (node["runId"], "ft-1") == (step["parentRunId"], step["rootRunId"])
    assert "chat_completion_finetune" == step["name"]
    assert node["experimentId"] == step["experimentId"]
    assert step["createdUtc"] <= step["startTimeUtc"] <= step["endTimeUtc"]
    assert "Standard_ND40rs_v2" == step["compute"]["vmSize"]


def test_unknown_runs_are_404(jobs: Jobs) -> None:
    """Details and children alike."""
    for path in ("details", "children"):
        url = f"/history/v1.0{names.WORKSPACE_ID}/runs/none/{path}"
        assert 404 == jobs.wire("GET", url).status_code


def test_history_takes_tokens_for_the_ml_audience(jobs: Jobs) -> None:
    """And none for another."""
    emulator = jobs.emulator.server.emulator
    jobs.submit("ft-1")
    statuses = []
    for audience in ("https://ml.azure.localhost", "https://graph.localhost"):
        token = emulator.tokens.issue(audience, now=emulator.clock.now())
        url = f"/history/v1.0{names.WORKSPACE_ID}/runs/ft-1/details"
        headers: dict[str, str | None] = {"Authorization": f"Bearer {token}"}
        statuses.append(jobs.wire("GET", url, headers=headers).status_code)

    assert [200, 401] == statuses


def test_the_sdk_streams_a_job_to_its_end(slow: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    """``jobs.stream`` prints the outline while the job runs and returns when it is Completed."""
    client = sdk()
    slow.submit("ft-1")
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            if any(row["path"].endswith("/details") for row in slow.emulator.requests()):
                slow.emulator.advance(5)

    clock = threading.Thread(target=go_on)
    clock.start()
    try:
        client.jobs.stream("ft-1")
    finally:
        over.set()
        clock.join()

    printed = capsys.readouterr().out
    assert f"Submitting 1 runs, first five are: {NODE}" in printed
    assert "Execution Summary" in printed


def test_the_sdk_raises_for_a_failed_job(jobs: Jobs) -> None:
    """With the service's error, which names the step."""
    from azure.ai.ml.exceptions import JobException

    client = sdk()
    jobs.submit("ft-1", body({"apply_lora": "maybe"}))

    with pytest.raises(JobException, match="ft_nlp_common_validation"):
        client.jobs.stream("ft-1")


def test_the_sdk_lists_and_gets_children(jobs: Jobs) -> None:
    """``jobs.list(parent_job_name=)`` walks the tree; a child can be got by name."""
    client = sdk()
    jobs.submit("ft-1")
    node = next(iter(client.jobs.list(parent_job_name="ft-1")))
    steps = list(client.jobs.list(parent_job_name=node.name))

    assert STEPS == [step.display_name for step in steps]
    assert "Completed" == client.jobs.get(steps[0].name).status


def test_the_sdk_downloads_outputs_and_logs(jobs: Jobs, tmp_path: Path) -> None:
    """The model folder and the outline come to disk."""
    client = sdk()
    jobs.submit("ft-1")
    client.jobs.download("ft-1", download_path=tmp_path, output_name="trained_model")
    client.jobs.download("ft-1", download_path=tmp_path)

    assert (tmp_path / "named-outputs/trained_model/MLmodel").is_file()
    assert (tmp_path / "artifacts/logs/azureml/executionlogs.txt").is_file()


def test_the_sdk_changes_tags_and_archives(jobs: Jobs) -> None:
    """A job that was fetched may be renamed, tagged and archived."""
    client = sdk()
    jobs.submit("ft-1")
    job = client.jobs.get("ft-1")
    job.tags = {**job.tags, "more": "yes"}
    client.jobs.create_or_update(job)
    client.jobs.archive("ft-1")

    assert "yes" == client.jobs.get("ft-1").tags["more"]
    assert [] == list(client.jobs.list())
