"""Submit the training job, follow it to its end, and cancel it where nobody will."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from prefect import get_run_logger
from prefect.runtime import flow_run, task_run

from lifecycle import job as lifecycle
from lifecycle import leftovers
from lifecycle.clients import WorkspaceRef
from lifecycle.component import TrainingSpec
from lifecycle.errors import (
    FinetuneError,
    JobCanceled,
    JobDeadlineExceeded,
    JobError,
    JobFailed,
    ServiceError,
)
from lifecycle.job import JobRef, JobResult, JobSpec, JobStep
from lifecycle.logs import LogLine
from lifecycle.preflight import Plan
from lifecycle.report import RunReport, current_report

from .progress import TrainingBar
from .runs import has_retries_left, is_cancelled, logged_by
from .step import step

# How long a submit that was interrupted may still take effect.
UNANSWERED_SECONDS = 20.0

_SHORT_ID = 8


def _submitting() -> str:
    """Name the task run: ``submit ft-3f2a… to gpu-cluster-big``."""
    parameters = task_run.parameters
    name = lifecycle.job_name(parameters["flow_run_id"], 1)[: len("ft-") + _SHORT_ID]
    return f"submit {name}… to {parameters['plan'].compute.label}"


@step(run_name=_submitting)
def submit_job(
    workspace: WorkspaceRef, plan: Plan, training: TrainingSpec, flow_run_id: str
) -> JobRef:
    """Submit this run's training job, or adopt the one that is live or complete."""
    job = lifecycle.submit_job(workspace, plan, training, flow_run_id)
    get_run_logger().info(
        "%s job %s (%s) %s",
        "Adopted" if job.adopted else "Submitted",
        job.name,
        job.display_name,
        job.studio_url or "",
    )
    return job


@step(run_name="stream {job.name}")
def stream_job(workspace: WorkspaceRef, job: JobRef, limits: JobSpec) -> JobResult:
    """Follow the job's logs, and its children's, until it has ended; only Completed is success.

    The logs are read from their beginning by every attempt of the run that comes back to the job.
    What an earlier attempt has logged is not logged again.
    """
    logger, report = get_run_logger(), current_report()
    is_first = not job.adopted and task_run.run_count == 1
    logged = Counter([] if is_first else logged_by(flow_run.id, f"stream {job.name}"))

    bar = TrainingBar(datetime.now(UTC))

    def emit(line: LogLine) -> None:
        if report is not None:
            report.go_on()
        bar.read(line, datetime.now(UTC))
        text = f"[{line.source}] {line.text}"
        if not line.remark and logged[text]:
            logged[text] -= 1
        else:
            logger.info("%s", text, extra={"source": line.source, "line": line.text})

    def watch(steps: list[JobStep]) -> None:
        if report is not None and report.job is not None:
            report.job["steps"] = [step.model_dump(mode="json") for step in steps]
        bar.show(steps, datetime.now(UTC))

    try:
        # The deadlines go on counting where an earlier try has followed the job.
        followed = job if is_first else job.model_copy(update={"adopted": True})
        result = lifecycle.stream_job(workspace, followed, limits, emit, watch=watch)
    except JobError as error:
        bar.end(error.code, datetime.now(UTC))
        raise
    finally:
        # What the metrics step replaces, where the run comes to it.
        if report is not None and (curve := bar.curve()):
            report.metric_history = {"loss": list(curve)}
    bar.end(result.status, datetime.now(UTC))
    logger.info("Job %s: %s after %.0f s", result.name, result.status, result.seconds)
    return result


def put_away_job(
    workspace: WorkspaceRef, report: RunReport, *, outcome: BaseException | None
) -> bool:
    """Cancel a job that this run leaves unfinished, without hiding how the run ended.

    A run that fails for good, or that a person interrupts or cancels, will not come back for its
    job. One that is terminated from outside may, and one with retries left will: its job goes on,
    and the next attempt adopts it.

    Args:
        workspace: The workspace.
        report: The run, and the job as far as it is known. A job that may go on is named in
            ``still_billing``.
        outcome: The exception in flight, or None; a note is added where the job may go on.

    Returns:
        Whether the job has ended.
    """
    if outcome is None:
        return True
    assert report.flow_run_id is not None
    logger = get_run_logger()
    name = report.job["name"] if report.job else lifecycle.job_name(report.flow_run_id, 1)
    report.may_bill(f"jobs/{name}")
    if report.resumable and _comes_back(report.flow_run_id, outcome):
        report.is_gone(f"jobs/{name}")
        logger.warning("The job, if there is one, goes on: the next attempt adopts it")
        return False
    has_ended = isinstance(outcome, (JobFailed, JobCanceled, JobDeadlineExceeded))
    if not has_ended:
        logger.info("Canceling job %s; Ctrl-C waits until it has ended", name)
    try:
        if report.job is not None:
            report.job["status"] = _cancelled(workspace, name)
        else:
            # A submit that was interrupted, or not answered, may take effect yet.
            is_refused = isinstance(outcome, FinetuneError) and not outcome.transient
            leftovers.put_away_job(
                workspace,
                report.flow_run_id,
                window_seconds=0.0 if is_refused else UNANSWERED_SECONDS,
            )
        report.is_gone(f"jobs/{name}")
    except FinetuneError as problem:
        logger.error("%s", problem)
        report.add_trouble(problem, outcome)
        return False
    return True


def _cancelled(workspace: WorkspaceRef, name: str) -> str:
    try:
        return lifecycle.cancel_job(workspace, name)
    except ServiceError as error:
        if not error.gone:
            raise
        return "Not found"


def _comes_back(flow_run_id: str, outcome: BaseException) -> bool:
    if isinstance(outcome, Exception):
        return has_retries_left()
    return not isinstance(outcome, KeyboardInterrupt) and not is_cancelled(flow_run_id)
