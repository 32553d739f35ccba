"""Submit the training job, follow it to its end, and cancel it where nobody will."""

from __future__ import annotations

from collections.abc import Callable

from prefect import get_run_logger

from lifecycle import job as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.component import TrainingSpec
from lifecycle.errors import FinetuneError
from lifecycle.job import JobRef, JobResult, JobSpec
from lifecycle.logs import LogLine
from lifecycle.preflight import Plan
from lifecycle.signals import deferred_signals

from .step import step


@step(run_name="submit {plan.display_name}")
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
    """Follow the job's logs, and its children's, until it has ended; only Completed is success."""
    logger = get_run_logger()

    def emit(line: LogLine) -> None:
        logger.info("[%s] %s", line.source, line.text)

    result = lifecycle.stream_job(workspace, job, limits, emit)
    logger.info("Job %s: %s after %.0f s", result.name, result.status, result.seconds)
    return result


def put_away_job(
    workspace: WorkspaceRef,
    flow_run_id: str,
    *,
    outcome: BaseException | None,
    on_ended: Callable[[str], None],
    on_left: Callable[[str], None],
) -> None:
    """Cancel, in a ``finally``, a job that this run leaves unfinished, without hiding its outcome.

    A run that fails, or that a person interrupts, will not come back for its job. One that is
    terminated from outside may: its job goes on, and the next attempt adopts it.

    Args:
        workspace: The workspace.
        flow_run_id: The flow run that owns the job.
        outcome: The exception in flight, or None; a note is added where the job may go on.
        on_ended: Called with the status in which the job has ended.
        on_left: Called with the name of a job that may go on. Both are called before the signals
            that waited are delivered.
    """
    if not isinstance(outcome, Exception | KeyboardInterrupt):
        return
    job = None
    with deferred_signals():
        try:
            job = lifecycle.find_job(workspace, flow_run_id)
            if job is not None:
                on_ended(lifecycle.cancel_job(workspace, job.name))
        except FinetuneError as problem:
            outcome.add_note(str(problem))
            name = lifecycle.job_name(flow_run_id, 1) if job is None else job.name
            on_left(f"jobs/{name}")
