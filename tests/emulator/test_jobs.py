"""The jobs service: what it accepts, how a job goes on, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator import settings as names

from tests.conftest import RunningEmulator
from tests.emulator.submitting import MODEL_ID, NODE, STEPS, TRAIN, Jobs, body, jobs_catalog


@pytest.fixture
def jobs(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """Jobs that end at once."""
    return Jobs(start_emulator(catalog=jobs_catalog(tmp_path)))


@pytest.fixture
def slow(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> Jobs:
    """Jobs that go on when the test says so."""
    return Jobs(start_emulator(catalog=jobs_catalog(tmp_path), latency="manual"))


def test_the_tutorials_pipeline_completes(jobs: Jobs) -> None:
    """The pipeline, the component in it and its five steps are runs of their own, in order."""
    jobs.submit("ft-1")

    assert "Completed" == jobs.status("ft-1")
    assert [NODE] == list(jobs.children("ft-1"))
    steps = jobs.steps("ft-1")
    assert STEPS == list(steps)
    assert {"Completed"} == {step["status"] for step in steps.values()}
    starts = [step["startTimeUtc"] for step in steps.values()]
    assert sorted(starts) == starts


def test_a_completed_job_says_where_its_output_is(jobs: Jobs) -> None:
    """The bound output has an address in the workspace's blob store."""
    jobs.submit("ft-1")

    output = jobs.properties("ft-1")["outputs"]["trained_model"]
    place = "azureml://datastores/workspaceblobstore/paths/azureml/ft-1/trained_model/"
    assert (place, "mlflow_model") == (output["uri"], output["jobOutputType"])


def test_states_are_passed_in_order(slow: Jobs) -> None:
    """A job is Preparing, Running and Finalizing before it is Completed; steps queue first."""
    slow.submit("ft-1")
    seen: dict[str, list[str]] = {step: [] for step in STEPS}
    states = ["Preparing"]
    while states[-1] != "Completed":
        slow.emulator.advance(0.25)
        if (status := slow.status("ft-1")) != states[-1]:
            states.append(status)
        for key, step in slow.steps("ft-1").items():
            if [step["status"]] != seen[key][-1:]:
                seen[key].append(step["status"])

    assert ["Preparing", "Running", "Finalizing", "Completed"] == states
    assert ["Queued", "Preparing", "Running", "Finalizing", "Completed"] == seen[STEPS[0]]
    assert ["Preparing", "Running", "Finalizing", "Completed"] == seen[STEPS[1]]


def test_children_appear_as_they_are_scheduled(slow: Jobs) -> None:
    """A young job has no children, and a step is there only when those before it are done."""
    slow.submit("ft-1")

    assert {} == slow.children("ft-1")
    slow.emulator.advance(3)
    assert STEPS[:1] == list(slow.steps("ft-1"))


def test_the_same_put_again_makes_no_second_job(jobs: Jobs) -> None:
    """A client may repeat a submit whose answer it never saw."""
    jobs.submit("ft-1")
    again = jobs.put("ft-1")

    assert 200 == again.status_code
    assert 1 == len(jobs.wire("GET", "jobs").json()["value"])
    assert len(STEPS) == len(jobs.emulator.ledger()["meters"])


def test_a_lost_answer_leaves_the_job_behind(jobs: Jobs) -> None:
    """An error that comes after the change has made the job all the same."""
    rule = {"match": {"method": "PUT"}, "effect": {"status": 503, "after": True}}
    jobs.emulator.faults(rule)
    lost = jobs.put("ft-1")

    assert 503 == lost.status_code
    assert "Completed" == jobs.status("ft-1")


def test_another_job_under_a_taken_name_is_refused(jobs: Jobs) -> None:
    """What a job does cannot be changed: Azure's code for it is two levels deep."""
    jobs.submit("ft-1")
    other = jobs.put("ft-1", body({"num_train_epochs": "4"}))

    error = other.json()["error"]
    inner = error["additionalInfo"][0]["info"]["value"]
    assert (400, "UserError") == (other.status_code, error["code"])
    assert "the existing job's Jobs cannot be changed" in error["message"]
    assert ("Immutable", "JobPropertyImmutable") == (inner["code"], inner["innerError"]["code"])


def test_tags_and_names_of_a_job_may_change(jobs: Jobs) -> None:
    """Tags are added, the display name is replaced, and the job is not submitted again."""
    jobs.submit("ft-1")
    changed = jobs.put("ft-1", body(displayName="better", tags={"more": "yes"}))

    properties = changed.json()["properties"]
    assert (200, "better") == (changed.status_code, properties["displayName"])
    assert {"finetune-owner": "run-1", "more": "yes"} == properties["tags"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (body({"learning_rate_min": "5e-7"}), "learning_rate_min"),
        (body({"compute_finetune": "nowhere"}), "'nowhere'"),
        (body(jobs={}), "at least one job"),
        (body(outputs={}), "'trained_model'"),
    ],
    ids=["unknown input", "unknown compute", "no jobs", "unknown output"],
)
def test_what_azure_refuses_at_submit(jobs: Jobs, content: dict[str, Any], said: str) -> None:
    """A 400 that names the thing, and no job."""
    refused = jobs.put("ft-1", content)

    assert 400 == refused.status_code
    assert said in refused.json()["error"]["message"]
    assert 404 == jobs.wire("GET", "jobs/ft-1").status_code


def test_a_bad_name_is_refused(jobs: Jobs) -> None:
    """Names are letters, digits, underscores and dashes."""
    assert 400 == jobs.put("-ft").status_code


def test_a_command_job_is_not_emulated(jobs: Jobs) -> None:
    """What the emulator cannot carry out is a 501 that says so, not a job that never ends."""
    refused = jobs.put("ft-1", body(jobType="Command"))

    assert 501 == refused.status_code
    assert "Command" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"apply_lora": "True"}, "'apply_lora': 'True' is not one of"),
        ({"num_train_epochs": "0"}, "'num_train_epochs': 0 is less than the minimum 1"),
        ({"num_train_epochs": "abc"}, "'num_train_epochs': 'abc' is not of type integer"),
        ({"deepspeed_stage": "5"}, "'deepspeed_stage'"),
        ({"train_file_path": TRAIN + "l"}, "'train_file_path': there is nothing at"),
        ({"mlflow_model_path": "azureml://registries/azureml/models/None/versions/1"}, "'mlflow"),
    ],
    ids=["enum", "minimum", "type", "enum of numbers", "missing file", "missing model"],
)
def test_a_bad_value_fails_in_the_validation_step(
    jobs: Jobs, inputs: dict[str, str], said: str
) -> None:
    """Azure accepts it at submit; the first child fails and its error names the input."""
    jobs.submit("ft-1", body(inputs))

    steps = jobs.steps("ft-1")
    assert STEPS[:1] == list(steps)
    assert said in steps[STEPS[0]]["error"]["error"]["message"]
    assert "Failed" == jobs.status("ft-1")
    assert said in jobs.log(steps[STEPS[0]]["runId"])


def test_more_gpus_than_the_node_has_fail_the_training_step(jobs: Jobs) -> None:
    """Nobody notices before the training step asks for the device."""
    jobs.submit("ft-1", body({"number_of_gpu_to_use_finetuning": "9"}))

    step = jobs.steps("ft-1")["chat_completion_finetune"]
    assert ("Failed", True) == (step["status"], "CUDA" in step["error"]["error"]["message"])


def test_a_failed_step_fails_its_parents_by_name(jobs: Jobs) -> None:
    """The pipeline's error names the step that failed, and no later step is begun."""
    fault = {"status": "Failed", "step": "datapreprocess", "message": "row 7 has no messages"}
    jobs.emulator.faults({"match": {"method": "PUT"}, "effect": {"job": fault}})
    jobs.submit("ft-1")

    details = jobs.details("ft-1")
    assert "Failed" == details["status"]
    message = details["error"]["error"]["message"]
    assert f"Failed nodes: /{NODE}/chat_completion_datapreprocess" in message
    steps = jobs.steps("ft-1")
    assert STEPS[:3] == list(steps)
    assert "row 7 has no messages" == steps[STEPS[2]]["error"]["error"]["message"]
    assert "row 7 has no messages" in jobs.log(steps[STEPS[2]]["runId"])


@pytest.mark.parametrize("status", ["Canceled", "NotResponding", "Paused"])
def test_other_states_are_neither_failures_nor_completions(jobs: Jobs, status: str) -> None:
    """Such a job has no error and no output; only a canceled one is no longer billed."""
    jobs.emulator.faults({"match": {"method": "PUT"}, "effect": {"job": {"status": status}}})
    jobs.submit("ft-1")

    assert status == jobs.status("ft-1")
    assert status == jobs.steps("ft-1")["chat_completion_finetune"]["status"]
    assert None is jobs.details("ft-1")["error"]
    assert None is jobs.properties("ft-1")["outputs"]["trained_model"]["uri"]
    assert (0 if status == "Canceled" else 1) == len(jobs.emulator.open_meters())


@pytest.mark.parametrize("status", ["NotResponding", "Paused"])
def test_a_stalled_job_is_billed_until_it_is_canceled(jobs: Jobs, status: str) -> None:
    """It holds its nodes, as Azure's does; a cancel ends it and its meter."""
    jobs.emulator.faults({"match": {"method": "PUT"}, "effect": {"job": {"status": status}}})
    jobs.submit("ft-1")

    assert 202 == jobs.wire("POST", "jobs/ft-1/cancel").status_code
    assert "Canceled" == jobs.status("ft-1")
    assert [] == jobs.emulator.open_meters()


def test_a_fault_for_no_such_step_is_refused(jobs: Jobs) -> None:
    """A test that misspells the step must not pass."""
    fault = {"status": "Failed", "step": "fintune"}
    jobs.emulator.faults({"match": {"method": "PUT"}, "effect": {"job": fault}})

    assert 400 == jobs.put("ft-1").status_code


def test_inputs_of_the_pipeline_reach_the_component(jobs: Jobs) -> None:
    """A component's input may be bound to one of the job's own."""
    bound = {"job_input_type": "literal", "value": "${{parent.inputs.epochs}}"}
    outer = {"epochs": {"jobInputType": "literal", "value": "0"}}
    jobs.submit("ft-1", body({"num_train_epochs": bound}, inputs=outer))
    refused = jobs.put("ft-2", body({"num_train_epochs": bound}))

    message = jobs.steps("ft-1")[STEPS[0]]["error"]["error"]["message"]
    assert "0 is less than the minimum" in message
    assert (400, True) == (refused.status_code, "'epochs'" in refused.json()["error"]["message"])


def test_the_sdk_submits_once(jobs: Jobs, tmp_path: Path) -> None:
    """The tutorial's own way, twice: one job, with the file that the SDK uploaded."""
    from azure.ai.ml import Input, MLClient
    from azure.ai.ml.dsl import pipeline
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    place = (names.SUBSCRIPTION_ID, names.RESOURCE_GROUP, names.WORKSPACE_NAME)
    client = MLClient(credential, *place, enable_telemetry=False)
    registry = MLClient(credential, registry_name="azureml", enable_telemetry=False)
    component = registry.components.get("chat_completion_pipeline", label="latest")
    file = tmp_path / "train.jsonl"
    file.write_text('{"messages": []}\n')

    def submit() -> Any:
        @pipeline(name="shown")
        def create_pipeline() -> Any:
            made = component(
                mlflow_model_path=MODEL_ID,
                train_file_path=Input(type="uri_file", path=str(file)),
                instance_type_finetune="Standard_ND40rs_v2",
                num_train_epochs=1,
            )
            return {"trained_model": made.outputs.mlflow_model_folder}

        job = create_pipeline()
        job.name = "ft-1"
        job.settings.force_rerun = True
        job.settings.continue_on_step_failure = False
        return client.jobs.create_or_update(job, experiment_name="chat")

    names_seen = {submit().name, submit().name}
    job = client.jobs.get("ft-1")

    assert ({"ft-1"}, ["ft-1"]) == (names_seen, [one.name for one in client.jobs.list()])
    assert ("Completed", "shown") == (job.status, job.display_name)
    assert str(job.studio_url).startswith("https://ml.azure.localhost/runs/ft-1?wsid=")


def test_cancel_stops_the_job_and_its_steps(slow: Jobs) -> None:
    """CancelRequested until the operation is done, then Canceled throughout; nothing is billed."""
    slow.submit("ft-1")
    slow.emulator.advance(30)
    begun = slow.wire("POST", "jobs/ft-1/cancel")
    on_the_way = slow.status("ft-1")
    operation = slow.wire("GET", begun.headers["Azure-AsyncOperation"]).json()["status"]
    slow.emulator.advance(4)

    assert (202, "CancelRequested", "InProgress") == (begun.status_code, on_the_way, operation)
    assert "Canceled" == slow.status("ft-1")
    assert "Canceled" == list(slow.steps("ft-1").values())[-1]["status"]
    assert [] == slow.emulator.open_meters()
    done = slow.wire("GET", begun.headers["Azure-AsyncOperation"]).json()["status"]
    assert "Succeeded" == done
    before = slow.steps("ft-1")
    slow.emulator.advance(1000)
    assert before == slow.steps("ft-1")


def test_a_job_may_be_cancelled_before_it_runs(slow: Jobs) -> None:
    """Nothing was begun, and nothing begins afterwards."""
    slow.submit("ft-1")
    slow.wire("POST", "jobs/ft-1/cancel")
    slow.emulator.advance(100)

    assert ("Canceled", {}) == (slow.status("ft-1"), slow.children("ft-1"))


def test_a_completed_job_cannot_be_cancelled(jobs: Jobs) -> None:
    """The end is the end."""
    jobs.submit("ft-1")
    refused = jobs.wire("POST", "jobs/ft-1/cancel")

    assert 400 == refused.status_code
    assert "Completed" in refused.json()["error"]["message"]
    assert "Completed" == jobs.status("ft-1")


def test_a_cancel_may_fail(slow: Jobs) -> None:
    """The operation ends Failed and the job goes on to its own end."""
    error = {"code": "InternalServerError", "message": "no"}
    slow.emulator.faults({"match": {"path": "/cancel$"}, "effect": {"operation_error": error}})
    slow.submit("ft-1")
    begun = slow.wire("POST", "jobs/ft-1/cancel")
    slow.emulator.advance(4)

    operation = slow.wire("GET", begun.headers["Azure-AsyncOperation"]).json()
    assert ("Failed", error["message"]) == (operation["status"], operation["error"]["message"])
    assert "Completed" == slow.advance_until("ft-1", "Completed")[-1]


def test_unknown_jobs_are_404(jobs: Jobs) -> None:
    """Get and cancel alike."""
    assert 404 == jobs.wire("GET", "jobs/none").status_code
    assert 404 == jobs.wire("POST", "jobs/none/cancel").status_code


def test_a_child_has_no_properties_among_jobs(jobs: Jobs) -> None:
    """So the SDK knows a child by it and asks run history instead."""
    jobs.submit("ft-1")
    child = jobs.steps("ft-1")[STEPS[0]]["runId"]

    assert None is jobs.wire("GET", f"jobs/{child}").json()["properties"]


def test_jobs_are_listed_newest_first_in_pages(jobs: Jobs) -> None:
    """Only jobs, no children; the link leads to the rest."""
    for number in range(32):
        jobs.submit(f"ft-{number}", body({"num_train_epochs": "abc"}))
    first = jobs.wire("GET", "jobs").json()
    second = jobs.wire("GET", first["nextLink"]).json()

    listed = [job["name"] for job in first["value"] + second["value"]]
    assert [f"ft-{number}" for number in reversed(range(32))] == listed
    assert "nextLink" not in second


def test_a_running_job_outlives_a_restart(
    start_emulator: Callable[..., RunningEmulator], tmp_path: Path
) -> None:
    """The server stops in mid-step; the next one on the same state goes on from there."""
    from azureml_emulator.clock import ManualClock

    clock = ManualClock()
    choices = {"catalog": jobs_catalog(tmp_path), "latency": "manual", "clock": clock}
    first = Jobs(start_emulator(**choices))
    first.submit("ft-1")
    first.emulator.advance(35)
    before = first.log(first.steps("ft-1")[STEPS[1]]["runId"])
    first.emulator.server.stop()
    second = Jobs(start_emulator(**choices))
    second.advance_until("ft-1", "Completed")

    whole = second.log(second.steps("ft-1")[STEPS[1]]["runId"])
    assert (True, True) == (before != "", whole.startswith(before) and whole != before)
