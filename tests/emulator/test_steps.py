"""Nodes for steps: clusters with a queue, serverless with a meter, and what neither can give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from azureml_emulator.executors import Step
from azureml_emulator.services import runs
from azureml_emulator.services.steps import JobsHost, step_of

from tests.conftest import RunningEmulator
from tests.emulator.submitting import STEPS, Jobs, body, jobs_catalog


@pytest.fixture
def jobs(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """Jobs that end at once."""
    return Jobs(start_emulator(catalog=jobs_catalog(tmp_path)))


@pytest.fixture
def slow(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """Jobs that go on when the test says so."""
    return Jobs(start_emulator(catalog=jobs_catalog(tmp_path), latency="manual"))


def cluster(jobs: Jobs, name: str = "big", *, most: int) -> dict[str, str]:
    """Make or change the cluster *name* of at most *most* nodes; return the inputs that name it."""
    scale = {"minNodeCount": 0, "maxNodeCount": most, "nodeIdleTimeBeforeScaleDown": "PT120S"}
    sized = {
        "vmSize": "Standard_ND40rs_v2",
        "vmPriority": "Dedicated",
        "scaleSettings": scale,
    }
    content = {
        "location": "eastus2",
        "properties": {"computeType": "AmlCompute", "properties": sized},
    }
    answer = jobs.wire("PUT", f"computes/{name}", content)
    assert answer.status_code < 300, answer.text
    jobs.emulator.server.emulator.settle()
    kinds = ("model_import", "preprocess", "finetune", "model_evaluation")
    return {f"compute_{kind}": name for kind in kinds}


def test_serverless_steps_are_billed_while_they_have_nodes(slow: Jobs) -> None:
    """One meter a step at the price of its size, closed with the step."""
    slow.submit("ft-1", body({"num_nodes_finetune": "2"}))
    slow.advance_until("ft-1", "Completed")

    meters = slow.emulator.ledger()["meters"]
    assert len(STEPS) == len(meters)
    training = meters[3]
    assert ("job", "Standard_ND40rs_v2", 2, 22.032) == (
        training["kind"],
        training["sku"],
        training["quantity"],
        training["usd_per_hour"],
    )
    assert training["usd"] > 0
    assert [] == slow.emulator.open_meters()


def test_a_size_that_serverless_lacks_fails_the_step(jobs: Jobs) -> None:
    """The component's own default size is retired."""
    jobs.submit("ft-1", body({"instance_type_finetune": None}))

    message = jobs.steps("ft-1")["chat_completion_finetune"]["error"]["error"]["message"]
    assert "'Standard_nc24rs_v3' is not available" in message


def test_a_step_beyond_the_serverless_quota_fails(jobs: Jobs) -> None:
    """Eight nodes of 40 cores do not fit into 200."""
    jobs.submit("ft-1", body({"num_nodes_finetune": "8"}))

    message = jobs.steps("ft-1")["chat_completion_finetune"]["error"]["error"]["message"]
    assert "quota of 200" in message


def test_a_cluster_lends_its_nodes(slow: Jobs) -> None:
    """The cluster is billed, not the job, and no more once its nodes have been idle."""
    inputs = cluster(slow, most=2)
    slow.emulator.advance(60)
    slow.submit("ft-1", body(inputs))
    slow.emulator.advance(20)
    kinds = {meter["kind"] for meter in slow.emulator.ledger()["meters"]}
    open_now = len(slow.emulator.open_meters())
    slow.advance_until("ft-1", "Completed")
    slow.emulator.advance(120)

    assert ({"compute"}, 1, []) == (kinds, open_now, slow.emulator.open_meters())


def test_a_full_cluster_keeps_the_next_job_queued(slow: Jobs) -> None:
    """It is Running with its first step Queued, and goes on when a node is free."""
    inputs = cluster(slow, most=1)
    slow.emulator.advance(60)
    slow.submit("ft-1", body(inputs))
    slow.emulator.advance(5)
    slow.submit("ft-2", body(inputs))
    slow.emulator.advance(15)
    waiting = slow.steps("ft-2")[STEPS[0]]["status"]
    running = slow.steps("ft-1")[STEPS[0]]["status"]
    slow.advance_until("ft-2", "Completed")

    assert ("Running", "Queued") == (running, waiting)
    assert "Completed" == slow.advance_until("ft-1", "Completed")[-1]


def test_a_preempted_step_waits_for_another_node(slow: Jobs) -> None:
    """It is queued again, for a node that has to come up; its log tells of both attempts."""
    inputs = cluster(slow, most=1)
    slow.emulator.advance(60)
    fault = {"status": "Preempted", "step": "finetune"}
    rule = {"match": {"method": "PUT", "path": "/jobs/"}, "nth": [1], "effect": {"job": fault}}
    slow.emulator.faults(rule)
    slow.submit("ft-1", body(inputs))
    emulator, run_id = slow.emulator.server.emulator, runs.child_id("ft-1", STEPS[3])
    seen = ["NotStarted"]
    for _ in range(1000):
        if seen[-1] == "Completed":
            break
        slow.emulator.advance(0.5)
        run = runs.get_run(emulator, run_id) or {"status": "NotStarted"}
        if run["status"] != seen[-1]:
            seen.append(run["status"])

    once = ["Preparing", "Running"]
    assert ["NotStarted", *once, "Queued", *once, "Finalizing", "Completed"] == seen
    log = slow.log(run_id)
    assert (2, 1) == (log.count("Running training"), log.count("The node was preempted."))


def test_what_an_earlier_attempt_still_says_is_dropped(slow: Jobs) -> None:
    """A process that was told to stop can neither write into the new attempt's log nor end it."""
    slow.submit("ft-1", body())
    first = _running_step(slow)
    host = JobsHost(slow.emulator.server.emulator)
    host.preempt(first)
    second = _running_step(slow)
    host.log(first, "too late")
    host.end(first, "Failed", message="too late")

    assert (1, 2) == (first.attempt, second.attempt)
    step = slow.steps("ft-1")[STEPS[0]]
    assert ("Running", False) == (step["status"], "too late" in slow.log(step["runId"]))


def _running_step(slow: Jobs) -> Step:
    """Let time pass until the first step runs, and return it."""
    emulator, run_id = slow.emulator.server.emulator, runs.child_id("ft-1", STEPS[0])
    for _ in range(1000):
        run = runs.get_run(emulator, run_id)
        if run is not None and run["status"] == "Running":
            return step_of(emulator, run)
        slow.emulator.advance(0.5)
    raise AssertionError(run)


def test_a_queued_job_may_be_cancelled(slow: Jobs) -> None:
    """It gives its place in the queue away and takes nothing from the one that runs."""
    inputs = cluster(slow, most=1)
    slow.emulator.advance(60)
    for name in ("ft-1", "ft-2", "ft-3"):
        slow.submit(name, body(inputs))
    slow.emulator.advance(10)
    slow.wire("POST", "jobs/ft-2/cancel")

    assert "Completed" == slow.advance_until("ft-3", "Completed")[-1]
    assert ("Canceled", "Completed") == (slow.status("ft-2"), slow.status("ft-1"))


def test_more_nodes_than_the_cluster_has_fail_the_step(jobs: Jobs) -> None:
    """It would wait for ever otherwise."""
    jobs.submit("ft-1", body({**cluster(jobs, most=1), "num_nodes_finetune": "2"}))

    message = jobs.steps("ft-1")["chat_completion_finetune"]["error"]["error"]["message"]
    assert "Requested 2 nodes but AzureMLCompute cluster only has 1" in message
    assert "Failed" == jobs.status("ft-1")


def test_a_job_for_a_cluster_that_is_being_made_waits_for_it(slow: Jobs) -> None:
    """It is queued until the cluster has Succeeded, and then goes on by itself."""
    inputs = cluster(slow, most=1)
    slow.submit("ft-1", body(inputs))
    slow.emulator.advance(13)
    waiting = slow.steps("ft-1")[STEPS[0]]["status"]
    meters = slow.emulator.open_meters()
    slow.advance_until("ft-1", "Completed")

    assert ("Queued", []) == (waiting, meters)


def test_a_job_for_a_cluster_that_cannot_be_made_fails(slow: Jobs) -> None:
    """It would wait for ever otherwise; the message names the cluster and its state."""
    error = {"code": "ClusterCoreQuotaReached", "message": "No quota."}
    rule = {"match": {"path": "/computes/"}, "nth": [1], "effect": {"operation_error": error}}
    slow.emulator.faults(rule)
    slow.submit("ft-1", body(cluster(slow, most=1)))
    slow.advance_until("ft-1", "Failed")

    message = slow.steps("ft-1")[STEPS[0]]["error"]["error"]["message"]
    assert "Compute target 'big' is in the state Failed" in message


def test_a_cluster_that_grows_takes_who_waits(slow: Jobs) -> None:
    """Nobody has to end for it: the second job starts when the update is done."""
    inputs = cluster(slow, most=1)
    slow.emulator.advance(60)
    for name in ("ft-1", "ft-2"):
        slow.submit(name, body(inputs))
    slow.emulator.advance(15)
    before = slow.steps("ft-2")[STEPS[0]]["status"]
    cluster(slow, most=2)
    slow.emulator.advance(5)
    slow.emulator.advance(12)

    assert ("Queued", "Running") == (before, slow.steps("ft-2")[STEPS[0]]["status"])


def test_a_job_whose_cluster_is_deleted_while_it_waits_fails(slow: Jobs) -> None:
    """No node will ever come."""
    inputs = cluster(slow, most=1)
    slow.emulator.advance(60)
    slow.wire(
        "DELETE", "computes/big?api-version=2023-08-01-preview&underlyingResourceAction=Delete"
    )
    slow.submit("ft-1", body(inputs))
    slow.advance_until("ft-1", "Failed")

    message = slow.steps("ft-1")[STEPS[0]]["error"]["error"]["message"]
    assert "Compute target 'big' was not found" in message


def test_nodes_wait_for_cores_that_another_cluster_has(slow: Jobs) -> None:
    """Two clusters of four nodes share a quota of five; the second has its nodes in the end."""
    inputs = {
        name: {**cluster(slow, name, most=4), "num_nodes_finetune": "4"} for name in ("big", "also")
    }
    slow.emulator.advance(60)
    states = []
    for job, name in (("ft-1", "big"), ("ft-2", "also")):
        slow.submit(job, body(inputs[name]))
        while (training := slow.steps(job).get(STEPS[3])) is None:
            slow.emulator.advance(2)
        slow.emulator.advance(1)
        states.append(slow.steps(job)[training["displayName"]]["status"])
    meters = slow.emulator.ledger()["meters"]
    nodes = [meter["quantity"] for meter in meters if meter["stopped"] is None]
    while slow.status("ft-2") != "Completed":
        slow.emulator.advance(20)

    assert ("Queued", [4, 1]) == (states[1], nodes)
    assert "Completed" == slow.status("ft-1")


def test_serverless_nodes_wait_for_cores_in_use(slow: Jobs) -> None:
    """Three and three nodes of 40 cores exceed 200 at once; one after the other they do not."""
    for name in ("ft-1", "ft-2"):
        slow.submit(name, body({"num_nodes_finetune": "3"}))
    while STEPS[3] not in slow.steps("ft-2"):
        slow.emulator.advance(2)
    slow.emulator.advance(11)
    waiting = [slow.steps(name)[STEPS[3]]["status"] for name in ("ft-1", "ft-2")]
    meters = slow.emulator.ledger()["meters"]
    nodes = [meter["quantity"] for meter in meters if meter["stopped"] is None]
    while slow.status("ft-2") != "Completed":
        slow.emulator.advance(10)

    assert "Queued" == waiting[1] != waiting[0]
    assert [3] == nodes
    assert [] == slow.emulator.open_meters()


def test_more_nodes_than_the_quota_ever_has_fail_the_step(slow: Jobs) -> None:
    """On a cluster as on serverless: it would wait for ever otherwise."""
    inputs = {**cluster(slow, most=8), "num_nodes_finetune": "8"}
    slow.submit("ft-1", body(inputs))
    while slow.status("ft-1") != "Failed":
        slow.emulator.advance(10)

    message = slow.steps("ft-1")[STEPS[3]]["error"]["error"]["message"]
    assert "vCPU quota of 200, which 8 nodes of Standard_ND40rs_v2 exceed" in message


def test_a_deleted_deployments_cores_go_to_who_waits(slow: Jobs) -> None:
    """Whatever was billed and is no more: the step that waits for its cores is served."""
    kept = slow.emulator.server.emulator
    sku = "Standard_ND40rs_v2"
    kept.ledger.open("/demo", "deployment", at=kept.now(), sku=sku, quantity=5, usd_per_hour=22)
    slow.submit("ft-1", body())
    while STEPS[3] not in slow.steps("ft-1"):
        slow.emulator.advance(2)
    slow.emulator.advance(60)
    waiting = slow.steps("ft-1")[STEPS[3]]["status"]
    with kept.store.transaction():
        kept.ledger.close("/demo", at=kept.now(), reason="deleted")
    slow.emulator.advance(15)

    assert "Queued" == waiting
    assert "Running" == slow.steps("ft-1")[STEPS[3]]["status"]
