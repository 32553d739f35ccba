"""One live job for a run, followed to its true end: names, wiring, adoption, logs, deadlines."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import pytest

from lifecycle import clients
from lifecycle.clients import WorkspaceRef, data_plane, ml_client
from lifecycle.component import TrainingSpec
from lifecycle.compute import ComputeSpec
from lifecycle.errors import (
    JobCanceled,
    JobDeadlineExceeded,
    JobError,
    JobFailed,
    JobNotResponding,
    ServiceError,
    StillBilling,
)
from lifecycle.job import (
    JobRef,
    JobResult,
    JobSpec,
    JobStep,
    cancel_job,
    compute_inputs,
    display_name,
    find_job,
    job_name,
    stream_job,
    submit_job,
)
from lifecycle.logs import LogLine
from lifecycle.preflight import Plan

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
SOON = {"Retry-After": "0.01"}

MakePlan = Callable[[WorkspaceRef], Plan]


class TurnedClock(Protocol):
    """The fixture ``clock``: time passes by sleeping alone."""

    slept: list[float]
    on_sleep: Callable[[float], None]

    def monotonic(self) -> float: ...
    def now(self) -> datetime: ...
    def sleep(self, seconds: float) -> None: ...


@pytest.mark.parametrize(
    ("parameters", "gpus", "nodes", "name"),
    [
        ({}, 1, 1, "Phi-ultrachat-bs1-linear-nods-nolora-save_limit-1-seqlen-1"),
        (
            {
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 3,
                "lr_scheduler_type": "cosine",
                "apply_deepspeed": "true",
                "deepspeed_stage": "3",
                "apply_lora": "true",
                "save_total_limit": 1,
                "max_seq_length": 2048,
            },
            8,
            2,
            "Phi-ultrachat-bs96-cosine-ds3-lora-save_limit1-seqlen2048",
        ),
        (
            {"apply_deepspeed": "false", "deepspeed_stage": "2", "apply_lora": "false"},
            4,
            1,
            "Phi-ultrachat-bs4-linear-nods-nolora-save_limit-1-seqlen-1",
        ),
    ],
)
def test_display_name_is_the_tutorials(
    parameters: dict[str, Any], gpus: int, nodes: int, name: str
) -> None:
    """Batch is per device × accumulation × GPUs × nodes; limits that are missing are −1."""
    assert name == display_name("Phi", "ultrachat", parameters, gpus=gpus, nodes=nodes)


def test_job_name_is_the_runs_and_the_attempts() -> None:
    """The same in every retry, another for every attempt, and one that Azure takes."""
    assert "ft-rjhqyur7dzfgbhion6odw6q5eq-a1" == job_name(RUN, 1)
    assert "ft-rjhqyur7dzfgbhion6odw6q5eq-a12" == job_name(RUN.upper(), 12)


@pytest.mark.parametrize(("run", "attempt"), [(RUN, 0), ("no-uuid", 1)])
def test_no_name_is_made_of_nonsense(run: str, attempt: int) -> None:
    """A job that could not be found again is not submitted."""
    with pytest.raises(ValueError, match=r"attempt|UUID"):
        job_name(run, attempt)


def test_a_cluster_is_named_for_each_step() -> None:
    """All three steps run on the cluster, and training on all its GPUs."""
    assert {
        "compute_model_import": "gpu",
        "compute_preprocess": "gpu",
        "compute_finetune": "gpu",
        "number_of_gpu_to_use_finetuning": 8,
        "num_nodes_finetune": 2,
    } == compute_inputs(
        ComputeSpec(name="gpu", size="Standard_ND96asr_v4", nodes=2), size_name="", gpus=8
    )


def test_serverless_compute_is_given_the_size_for_each_step() -> None:
    """There is no cluster to name."""
    size = "Standard_NC24ads_A100_v4"
    wired = compute_inputs(ComputeSpec(name=None, size=size), size_name=size, gpus=1)

    assert "serverless" == wired["compute_finetune"]
    assert {size} == {value for name, value in wired.items() if name.startswith("instance_type")}


def sent(emulator: Any, method: str, ending: str) -> list[int]:
    """Statuses of the requests of this method to paths with this ending."""
    return [
        row["status"]
        for row in emulator.requests()
        if row["method"] == method and row["path"].lower().endswith(ending.lower())
    ]


def fault(method: str, path: str, nth: list[int] | None = None, **effect: Any) -> dict[str, Any]:
    """One fault rule."""
    rule = {"match": {"method": method, "path": path}, "effect": effect}
    return rule if nth is None else {**rule, "nth": nth}


def submit(ref: WorkspaceRef, plan: Plan) -> JobRef:
    """Submit, or adopt, the job of the run."""
    return submit_job(ref, plan, TrainingSpec(experiment_name="chats"), RUN)


def stream(
    ref: WorkspaceRef, job: JobRef, clock: TurnedClock, **limits: float
) -> tuple[JobResult, list[LogLine]]:
    """Follow the job and gather its lines."""
    lines: list[LogLine] = []
    return stream_job(ref, job, JobSpec(**limits), lines.append, clock), lines


def logged(lines: list[LogLine], source: str) -> list[str]:
    """What a source logged, changes of status left out."""
    return [x.text for x in lines if x.source == source and not x.text.startswith("Status: ")]


def step_log(emulator: Any, ref: WorkspaceRef, job: str, step: str) -> list[str]:
    """The log of a step as it lies in the storage, read whole."""
    plane = data_plane(ref)
    runs = f"history/v1.0{ref.arm_id}/runs"
    (node,) = plane.get_json(f"{runs}/{job}/children")["value"]
    for run in plane.get_json(f"{runs}/{node['runId']}/children")["value"]:
        if run["displayName"] == step:
            details = plane.get_json(f"{runs}/{run['runId']}/details")
            return (
                plane.get_text(details["logFiles"]["user_logs/std_log.txt"]).decode().splitlines()
            )
    raise LookupError(step)


def test_the_job_is_wired_as_the_tutorial_wires_it(
    workspace: WorkspaceRef, make_plan: MakePlan
) -> None:
    """Model, data, compute, parameters, output; no cached results, no going on after failures."""
    submitted = submit(workspace, make_plan(workspace))
    job: Any = ml_client(workspace).jobs.get(submitted.name)
    step = job.jobs["chat_completion_pipeline"]
    inputs = {name: getattr(value, "_data", value) for name, value in step.inputs.items()}

    assert (job_name(RUN, 1), False) == (submitted.name, submitted.adopted)
    assert "chats" == job.experiment_name
    assert submitted.display_name == job.display_name
    assert job.settings.force_rerun is True
    assert job.settings.continue_on_step_failure is False
    assert RUN == job.tags["finetune-owner"]
    assert "mlflow_model" == job.outputs["trained_model"].type
    assert inputs["mlflow_model_path"].path.endswith("/models/Phi-4-mini-instruct/versions/1")
    assert inputs["train_file_path"].path.endswith("/train_sft.jsonl")
    assert inputs["test_file_path"].path.endswith("/test_sft.jsonl")
    assert "serverless" == inputs["compute_finetune"]
    assert "1" == inputs["number_of_gpu_to_use_finetuning"]
    assert "true" == inputs["apply_lora"]


def test_a_live_or_completed_job_is_adopted(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """A retried run meets its own job again; one PUT in all."""
    plan = make_plan(slow_workspace)
    first = submit(slow_workspace, plan)
    again = submit(slow_workspace, plan)
    stream(slow_workspace, again, clock)
    after = submit(slow_workspace, plan)

    assert [(first.name, True)] * 2 == [(job.name, job.adopted) for job in (again, after)]
    assert "Completed" == after.status
    assert [201] == sent(slow_emulator, "PUT", f"/jobs/{first.name}")


@pytest.mark.parametrize("status", ["Failed", "Canceled"])
def test_after_an_unsuccessful_end_the_next_attempt_is_submitted(
    status: str,
    emulator: Any,
    workspace: WorkspaceRef,
    make_plan: MakePlan,
    clock: TurnedClock,
) -> None:
    """Only a job that is over and did not complete makes room for another."""
    plan = make_plan(workspace)
    emulator.faults(fault("PUT", "/jobs/", job={"status": status}))
    first = submit(workspace, plan)
    with pytest.raises(JobError):
        stream(workspace, first, clock)
    emulator.faults()
    second = submit(workspace, plan)
    result, _ = stream(workspace, second, clock)

    assert (job_name(RUN, 2), 2, False) == (second.name, second.attempt, second.adopted)
    assert ("Completed", 2) == (result.status, result.attempts)


@pytest.mark.parametrize(
    "status", ["NotResponding", pytest.param("Paused", marks=pytest.mark.long)]
)
def test_a_job_that_may_be_alive_is_never_doubled(
    status: str,
    emulator: Any,
    workspace: WorkspaceRef,
    make_plan: MakePlan,
    clock: TurnedClock,
) -> None:
    """It is an error that says so, also at the next try, until somebody cancels it."""
    plan = make_plan(workspace)
    emulator.faults(fault("PUT", "/jobs/", job={"status": status}))
    first = submit(workspace, plan)
    with pytest.raises(JobNotResponding, match=status):
        stream(workspace, first, clock)
    again = submit(workspace, plan)

    assert (first.name, True) == (again.name, again.adopted)
    with pytest.raises(JobNotResponding, match="may still be running"):
        stream(workspace, again, clock)


def test_a_lost_answer_to_the_submit_makes_no_second_job(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan
) -> None:
    """Azure took the job and the answer never came: the job is met, not sent again."""
    emulator.faults(
        fault("PUT", "/jobs/[^/]+$", [1, 2, 3, 4], status=503, after=True, headers=SOON)
    )
    job = submit(workspace, make_plan(workspace))

    assert (job_name(RUN, 1), True) == (job.name, job.adopted)
    assert [1] == [job.attempt]


def test_a_submit_that_was_not_taken_is_a_passing_error(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan
) -> None:
    """Nothing was made, so the same submit may be made again, under the same name."""
    plan = make_plan(workspace)
    emulator.faults(fault("PUT", "/jobs/[^/]+$", [1, 2, 3, 4], status=503, headers=SOON))
    with pytest.raises(ServiceError) as failure:
        submit(workspace, plan)

    assert failure.value.transient
    assert job_name(RUN, 1) == submit(workspace, plan).name


def test_a_job_completes_with_every_line_logged_once(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Over minutes of queue and steps: no line lost, none doubled, each under its step's name."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    result, lines = stream(slow_workspace, job, clock)

    assert "Completed" == result.status
    assert 0 < result.seconds <= sum(clock.slept)
    assert RUN == result.owner
    steps = {line.source for line in lines} - {job.display_name, "chat_completion_pipeline"}
    assert 5 == len(steps)
    for step in steps:
        assert step_log(slow_emulator, slow_workspace, job.name, step) == logged(lines, step)
    outline = logged(lines, job.display_name)
    assert any("Finishing experiment" in line for line in outline)
    assert len(outline) == len(set(outline))


def test_the_steps_of_a_job_are_shown_while_it_runs_and_when_it_has_ended(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """One after the other, each from its beginning to its end: what a timeline is drawn from."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    seen: list[list[JobStep]] = []
    stream_job(slow_workspace, job, JobSpec(), lambda line: None, clock, watch=seen.append)

    assert any(step.status == "Running" for steps in seen for step in steps)
    assert ["Completed"] * 5 == [step.status for step in seen[-1]]
    spans = [(step.began_at, step.ended_at) for step in seen[-1] if step.began_at and step.ended_at]
    assert 5 == len(spans)
    assert sorted(spans) == spans
    assert all(began and ended and began < ended for began, ended in spans)


def test_lines_appear_as_they_are_written(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Lines are seen as training goes on, every three seconds, and not all at its end."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    seen: dict[str, float] = {}

    def note(line: LogLine) -> None:
        if line.source == "chat_completion_finetune" and not line.text.startswith("Status"):
            seen[line.text] = clock.monotonic()

    stream_job(slow_workspace, job, JobSpec(), note, clock)

    # Twelve seconds of training, and a look every three while lines come.
    assert 5 == len(set(seen.values()))
    assert max(clock.slept) <= 15
    # Looks at no more than the run history of what is live: a handful of requests each.
    assert len(slow_emulator.requests()) < 10 * len(clock.slept)


def test_silence_is_broken_once_a_minute(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """A log that says nothing for minutes says what is waited for."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    clock.on_sleep = lambda seconds: slow_emulator.advance(seconds if sum(clock.slept) > 200 else 0)
    _, lines = stream(slow_workspace, job, clock)

    beats = [line for line in lines if line.text.startswith("Nothing new for")]
    assert 3 == len(beats)
    assert all("waiting for" in line.text for line in beats)


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 503, "headers": {"Retry-After": "0.01"}},
        {"status": 401},
        {"status": 404},
    ],
)
def test_trouble_with_the_run_history_is_waited_out(
    effect: dict[str, Any],
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    make_plan: MakePlan,
    clock: TurnedClock,
) -> None:
    """An error, an expired token, a job not known yet: no failed run, no lost line."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    details = f"/history/.*/{job.name}/details$"
    slow_emulator.faults(fault("GET", details, list(range(5, 9)), **effect))
    result, lines = stream(slow_workspace, job, clock)

    assert "Completed" == result.status
    assert any("The run history can be read again" in line.text for line in lines)
    step = "chat_completion_finetune"
    assert step_log(slow_emulator, slow_workspace, job.name, step) == logged(lines, step)


@pytest.mark.long
@pytest.mark.parametrize("effect", [{"reset": True}, {"hang": True}, {"truncate": 80}])
def test_connections_that_break_lose_no_line_and_double_none(
    effect: dict[str, Any],
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    make_plan: MakePlan,
    clock: TurnedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of a log or of the history; the SDK has tried again, in vain."""
    monkeypatch.setattr(clients, "READ_SECONDS", 0.5)
    clients.forget()
    job = submit(slow_workspace, make_plan(slow_workspace))
    slow_emulator.faults(
        fault("GET", "std_log", [4, 5, 6, 7], **effect),
        fault("GET", "/history/", [12, 13, 14, 15], **effect),
    )

    result, lines = stream(slow_workspace, job, clock)

    assert "Completed" == result.status
    for step in {line.source for line in lines} - {job.display_name, "chat_completion_pipeline"}:
        assert step_log(slow_emulator, slow_workspace, job.name, step) == logged(lines, step)


def test_the_job_itself_says_how_it_ended(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Not its history, which is another service: that may be ahead of it, or wrong."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    too_early = json.dumps({"runId": job.name, "status": "Completed"})
    slow_emulator.faults(
        fault("GET", f"/runs/{job.name}/details$", [4, 5], status=200, body=too_early)
    )

    result, lines = stream(slow_workspace, job, clock)

    assert slow_emulator.server.emulator.store.get("run", job.name)["status"] == result.status
    step = "chat_completion_finetune"
    assert step_log(slow_emulator, slow_workspace, job.name, step) == logged(lines, step)


def test_an_outage_beyond_measure_ends_the_watch_and_not_the_job(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """After half an hour the run gives up; its job goes on, to be met again."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    clock.on_sleep = lambda seconds: None
    slow_emulator.faults(fault("GET", r"/jobs/[^/]+$", status=503, headers=SOON))
    with pytest.raises(ServiceError) as failure:
        stream(slow_workspace, job, clock)
    slow_emulator.faults()

    assert failure.value.transient
    assert 1800 <= sum(clock.slept) < 1860
    assert submit(slow_workspace, make_plan(slow_workspace)).status not in ("Canceled", "Failed")


def test_an_unreadable_log_does_not_fail_the_job(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """The model is trained all the same; what is missing is told."""
    job = submit(workspace, make_plan(workspace))
    emulator.faults(fault("GET", "std_log", status=403))
    result, lines = stream(workspace, job, clock)

    assert "Completed" == result.status
    assert any("The end of a log is missing" in line.text for line in lines)


def test_a_failed_step_is_named_with_its_words_and_its_log(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Which step, why, the last lines, and where to look: all in one message."""
    effect = {"status": "Failed", "step": "finetune", "message": "CUDA out of memory."}
    emulator.faults(fault("PUT", "/jobs/", job=effect))
    job = submit(workspace, make_plan(workspace))
    with pytest.raises(JobFailed) as failure:
        stream(workspace, job, clock)

    told = str(failure.value)
    assert (
        "is Failed in its step chat_completion_finetune: UserError: CUDA out of memory.\n" in told
    )
    assert "The last lines of the log of chat_completion_finetune:" in told
    assert str(job.studio_url) in told
    assert job.name == failure.value.where


def test_a_job_canceled_by_somebody_is_no_success(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """The SDK's own stream returns normally for it."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    ml_client(slow_workspace).jobs.begin_cancel(job.name, polling=False)

    with pytest.raises(JobCanceled, match="is Canceled"):
        stream(slow_workspace, job, clock)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"queue_deadline_minutes": 0.1}, "No step .* has been running for 0.1 minutes"),
        ({"run_deadline_minutes": 0.2}, "has been running for more than 0.2 minutes"),
    ],
)
def test_a_job_that_takes_too_long_is_canceled(
    limits: dict[str, float],
    words: str,
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    make_plan: MakePlan,
    clock: TurnedClock,
) -> None:
    """Waiting and running have a deadline each, and nothing goes on being billed after it."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    with pytest.raises(JobDeadlineExceeded, match=words):
        stream(slow_workspace, job, clock, **limits)

    assert "Canceled" == cancel_job(slow_workspace, job.name, clock=clock)
    assert [] == slow_emulator.open_meters()


def test_cancel_stops_a_live_job(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Sent at once, confirmed by the job itself, and again without harm."""
    job = submit(slow_workspace, make_plan(slow_workspace))

    assert "Canceled" == cancel_job(slow_workspace, job.name, clock=clock)
    assert "Canceled" == cancel_job(slow_workspace, job.name, clock=clock)
    assert [202] == sent(slow_emulator, "POST", f"/jobs/{job.name}/cancel")
    assert [] == slow_emulator.open_meters()


def test_cancel_leaves_a_completed_job_alone(
    emulator: Any, workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """There is nothing to stop."""
    job = submit(workspace, make_plan(workspace))

    assert "Completed" == cancel_job(workspace, job.name, clock=clock)
    assert [] == sent(emulator, "POST", "/cancel")


def test_a_refused_cancel_is_sent_again(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Azure refuses while a job is Finalizing, and when it is busy."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    slow_emulator.faults(
        fault("POST", "/cancel$", [1], status=400), fault("POST", "/cancel$", [2], status=409)
    )

    assert "Canceled" == cancel_job(slow_workspace, job.name, clock=clock)


def test_a_cancel_without_effect_may_be_billing(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """The job is named, so that a person can stop it."""
    job = submit(slow_workspace, make_plan(slow_workspace))
    clock.on_sleep = lambda seconds: None
    slow_emulator.faults(fault("POST", "/cancel$", status=409))
    with pytest.raises(StillBilling) as alarm:
        cancel_job(slow_workspace, job.name, deadline_seconds=30, clock=clock)

    assert [f"jobs/{job.name}"] == alarm.value.resources


def test_a_job_that_is_not_found_yet_is_canceled(
    slow_emulator: Any, slow_workspace: WorkspaceRef, make_plan: MakePlan, clock: TurnedClock
) -> None:
    """Azure has taken it, and its own next answers are 404."""
    plan = make_plan(slow_workspace)
    slow_emulator.faults(fault("PUT", "/jobs/[^/]+$", hidden=40))
    job = submit(slow_workspace, plan)

    assert "Canceled" == cancel_job(slow_workspace, job.name, clock=clock)
    assert [] == slow_emulator.open_meters()


def test_a_job_that_is_not_there_cannot_be_canceled(
    workspace: WorkspaceRef, clock: TurnedClock
) -> None:
    """A wrong name is no success."""
    with pytest.raises(ServiceError) as failure:
        cancel_job(workspace, "ft-nothing-a1", clock=clock)

    assert 404 == failure.value.status


@pytest.mark.parametrize(
    "missing",
    [
        [1, 2],
        *(pytest.param(one, marks=pytest.mark.long) for one in ([1], [2], [1, 2, 4, 5])),
    ],
)
def test_a_job_that_was_deleted_hides_no_later_one(
    missing: list[int],
    emulator: Any,
    workspace: WorkspaceRef,
    make_plan: MakePlan,
) -> None:
    """Somebody cleans up in Studio: the run's live job is met, and not sent again."""
    live = max(missing) + 1
    plan = make_plan(workspace)
    emulator.faults(fault("PUT", "/jobs/", job={"status": "Failed"}))
    for attempt in range(1, live):
        assert attempt == submit(workspace, plan).attempt
    emulator.faults()
    name = submit(workspace, plan).name
    for attempt in missing:
        emulator.server.emulator.store.delete("job", job_name(RUN, attempt))
        emulator.server.emulator.store.delete("run", job_name(RUN, attempt))

    met = submit(workspace, plan)

    assert (name, True) == (met.name, met.adopted)


def test_a_run_without_a_job_has_none(workspace: WorkspaceRef) -> None:
    """What cleans up after a run asks this first."""
    assert find_job(workspace, RUN) is None
