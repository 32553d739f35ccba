"""How :func:`lifecycle.job.stream_job` follows a job: polls, deadlines, outages, and the end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from lifecycle import clients
from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import (
    JobCanceled,
    JobDeadlineExceeded,
    JobError,
    JobFailed,
    JobNotResponding,
    ServiceError,
)
from lifecycle.job import JobRef, JobResult, JobSpec, JobStep, cancel_job, status_of
from lifecycle.logs import LIVE, JobLogs, LogLine, Run
from lifecycle.waiting import Clock, growing

FIRST_PAUSE_SECONDS = 0.5
PAUSE_AFTER_NEWS_SECONDS = 3.0
LONGEST_PAUSE_SECONDS = 15.0
HEARTBEAT_SECONDS = 60.0
OUTAGE_SECONDS = 1800.0
NOT_THERE_YET_SECONDS = 120.0

_ERRORS: dict[str, type[JobError]] = {"Failed": JobFailed, "Canceled": JobCanceled}
_WORKING = frozenset({"Running", "Finalizing"})
_LAST_READS = 3


class Following:
    """One job, followed from now to its end.

    The pauses between looks grow by a fifth while nothing happens, so that what happens is seen
    after about a fifth of the time that it took, and begin anew with each line.

    Args:
        ref: The workspace.
        job: The job.
        spec: Its deadlines.
        emit: Called with each line.
        watch: Called with the job's steps after each look.
        clock: Whose time passes; the wall clock, so that a laptop's sleep counts.
    """

    def __init__(
        self,
        ref: WorkspaceRef,
        job: JobRef,
        spec: JobSpec,
        emit: Callable[[LogLine], None],
        watch: Callable[[list[JobStep]], None],
        clock: Clock,
    ) -> None:
        self._ref = ref
        self._job = job
        self._spec = spec
        self._sink = emit
        self._watch = watch
        self._clock = clock
        self._began = self._counted = self._spoke = clock.now()
        self._waited = self._ran = 0.0
        self._outage: datetime | None = None
        self._last_reads = 0
        self._logs: JobLogs | None = None
        self._run = Run(job.name, job.display_name, status=job.status)

    def to_the_end(self) -> JobResult:
        """Follow the job; see :func:`lifecycle.job.stream_job`."""
        pauses = growing(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, 1.2)
        while True:
            news = False
            try:
                news = self._look()
                self._watch([_step(run) for run in self._steps()])
                if self._run.status not in LIVE and self._is_read():
                    result = self._true_end()
                    if result is not None:
                        return result
            except ServiceError as error:
                self._wait_out(error)
            else:
                self._answered()
            self._keep_deadlines()
            self._keep_talking()
            if news:
                pauses = growing(PAUSE_AFTER_NEWS_SECONDS, LONGEST_PAUSE_SECONDS, 1.2)
            self._clock.sleep(next(pauses))

    def _look(self) -> bool:
        if self._logs is None:
            with translated("finding the workspace's data plane"):
                plane = clients.data_plane(self._ref)
            self._logs = JobLogs(plane, self._ref.arm_id, self._run, self._emit)
        return self._logs.look()

    def _is_read(self) -> bool:
        """Say whether the logs are read to their end, or have been unreadable for long enough."""
        unreadable = self._logs.unreadable if self._logs else None
        if unreadable is None:
            return True
        self._last_reads += 1
        if self._last_reads < _LAST_READS:
            return False
        self._say(f"The end of a log is missing: {unreadable.message}")
        return True

    def _true_end(self) -> JobResult | None:
        """Ask the job itself how it ended; None where it has not, whatever its history says."""
        with translated(f"reading the job {self._job.name}", where=self._job.name):
            job = clients.ml_client(self._ref).jobs.get(self._job.name)
            status = status_of(job)
            created_at = job.creation_context.created_at if job.creation_context else None
        if status in LIVE:
            # The history is ahead of the job, or wrong, and may have more to tell.
            self._run.is_read = False
            return None
        if status != "Completed":
            raise self._failure(status)
        if created_at is None:
            raise ServiceError(
                "Azure does not say when it took the job.", where=self._job.name, transient=True
            )
        elapsed = (self._clock.now() - self._began).total_seconds()
        return JobResult(
            name=self._job.name,
            status=status,
            attempts=self._job.attempt,
            display_name=self._job.display_name,
            studio_url=self._job.studio_url,
            owner=self._job.owner,
            base_model=self._job.base_model,
            created_at=created_at,
            seconds=max(0.0, elapsed if self._run.seconds is None else self._run.seconds),
        )

    def _failure(self, status: str) -> JobError:
        culprits = [run for run in self._run.walk() if run.status == status]
        culprit = culprits[-1] if culprits else self._run
        step = f" in its step {culprit.name}" if culprit is not self._run else ""
        error = (culprit.error or self._run.error or "").removesuffix(".")
        reason = f": {error}" if error else ""
        tail = "".join(f"\n    {line}" for line in culprit.tail or self._run.tail)
        return _ERRORS.get(status, JobNotResponding)(
            f"The job {self._job.name} ({self._job.display_name}) is {status}{step}{reason}."
            + (f"\nThe last lines of the log of {culprit.name}:{tail}\n" if tail else ""),
            where=self._job.name,
            remedy=self._with_studio(_ERRORS.get(status, JobNotResponding).default_remedy),
        )

    def _wait_out(self, error: ServiceError) -> None:
        """Bear with an error that may pass.

        Raises:
            ServiceError: It will not, or has lasted for too long.
        """
        patience = 0.0
        if error.transient or error.status == 401:
            patience = OUTAGE_SECONDS
        elif error.status == 404:
            patience = NOT_THERE_YET_SECONDS  # The run history learns of a new job a little later.
        now = self._clock.now()
        if self._outage is None and patience:
            self._outage = now
            self._say(f"{error.message} Trying for another {patience / 60:g} minutes.")
        if self._outage is None or (now - self._outage).total_seconds() >= patience:
            raise error

    def _answered(self) -> None:
        if self._outage is not None:
            lasted = (self._clock.now() - self._outage).total_seconds()
            self._outage = None
            self._say(f"Azure answers again, after {lasted:.0f} s.")

    def _keep_deadlines(self) -> None:
        """Count the time since the last look to waiting or running, and cancel what took too long.

        Raises:
            JobDeadlineExceeded: The job has been canceled.
            StillBilling: The cancel was not confirmed.
        """
        now = self._clock.now()
        passed = max(0.0, (now - self._counted).total_seconds())
        self._counted = now
        if any(run.status in _WORKING for run in self._steps()):
            self._ran += passed
            self._waited = 0.0
        else:
            self._waited += passed
        exceeded = self._exceeded()
        if exceeded is None:
            return
        self._say(f"{exceeded} Canceling it.")
        status = cancel_job(self._ref, self._job.name, clock=self._clock)
        if status != "Completed":
            raise JobDeadlineExceeded(
                f"{exceeded} It is {status} now.",
                where=self._job.name,
                remedy=self._with_studio(JobDeadlineExceeded.default_remedy),
            )

    def _exceeded(self) -> str | None:
        queue, run = self._spec.queue_deadline_minutes, self._spec.run_deadline_minutes
        if queue and self._waited > queue * 60:
            return f"No step of the job {self._job.name} has been running for {queue:g} minutes."
        if run and self._ran > run * 60:
            return f"The job {self._job.name} has been running for more than {run:g} minutes."
        return None

    def _steps(self) -> list[Run]:
        """Return the runs that do the work: those with none below them, the job itself left out."""
        return [run for run in self._run.walk() if not run.children and run is not self._run]

    def _keep_talking(self) -> None:
        silent = (self._clock.now() - self._spoke).total_seconds()
        if silent < HEARTBEAT_SECONDS:
            return
        waiting_for = [run for run in self._steps() if run.status in LIVE] or [self._run]
        steps = ", ".join(f"{run.name} ({run.status})" for run in waiting_for)
        minutes = (self._clock.now() - self._began).total_seconds() / 60
        self._say(f"Nothing new for {silent:.0f} s, {minutes:.0f} min in; waiting for {steps}.")

    def _with_studio(self, remedy: str) -> str:
        return f"{remedy} {self._job.studio_url}" if self._job.studio_url else remedy

    def _say(self, text: str) -> None:
        self._emit(LogLine(source=self._job.display_name, text=text, remark=True))

    def _emit(self, line: LogLine) -> None:
        self._spoke = self._clock.now()
        self._sink(line)


def _step(run: Run) -> JobStep:
    return JobStep(name=run.name, status=run.status, began_at=run.began_at, ended_at=run.ended_at)
