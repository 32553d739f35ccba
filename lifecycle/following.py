"""How :func:`lifecycle.job.stream_job` follows a job: polls, deadlines, outages, and the end.

The job's own status, asked of the job, is the one judge of whether it lives and how it ended. The
run history informs: lines, steps, errors. Where it cannot be read, the run goes on without.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from lifecycle import clients
from lifecycle.azure import REFUSED_SECONDS, translated
from lifecycle.clients import WorkspaceRef
from lifecycle.courtesy import warn, what_failed
from lifecycle.deadlines import Deadlines
from lifecycle.errors import (
    FinetuneError,
    JobCanceled,
    JobDeadlineExceeded,
    JobError,
    JobFailed,
    JobNotResponding,
    ServiceError,
)
from lifecycle.job import JobRef, JobResult, JobSpec, JobStep, cancel_job, status_of
from lifecycle.logs import ENDED, LIVE, JobLogs, LogLine, Run
from lifecycle.loose import as_moment
from lifecycle.waiting import Clock, growing

FIRST_PAUSE_SECONDS = 0.5
PAUSE_AFTER_NEWS_SECONDS = 3.0
LONGEST_PAUSE_SECONDS = 15.0
HEARTBEAT_SECONDS = 60.0
# How often the job is asked while its history says that it is at work.
JOB_SECONDS = 30.0
OUTAGE_SECONDS = 1800.0
# For so long a job may be NotResponding, Paused, or in a state that we do not know.
UNCLEAR_SECONDS = 600.0
# What the history still has to tell when its job has ended is waited for no longer.
LAST_WORDS_SECONDS = 60.0

_ERRORS: dict[str, type[JobError]] = {"Failed": JobFailed, "Canceled": JobCanceled}
_LAST_READS = 3
_WORTH_A_WARNING_SECONDS = 30.0


class _Status(NamedTuple):
    """What the job itself says."""

    status: str
    created_at: datetime | None


class JobFollower:
    """Follows one job, from now to its end.

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
        self._sink = emit
        self._watch = watch
        self._clock = clock
        self._began = self._spoke = clock.now()
        self._deadlines = Deadlines(spec, job.name, self._began, is_adopted=job.adopted)
        self._run = Run(job.name, job.display_name, status=job.status)
        self._history = _History(ref, self._run, self._emit, clock)
        self._said: _Status | None = None
        self._asked_at: datetime | None = None
        self._outage: datetime | None = None
        self._unclear: datetime | None = None
        self._ended_at: datetime | None = None
        self._last_reads = 0

    def run(self) -> JobResult:
        """Follow the job to its end; see :func:`lifecycle.job.stream_job`."""
        pauses = growing(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, 1.2)
        while True:
            news = self._history.look(is_last=self._ended_at is not None)
            self._watch([_step(run) for run in self._history.steps()])
            if self._has_ended() and self._is_read():
                return self._result()
            self._keep_deadlines()
            self._keep_talking()
            if news:
                pauses = growing(PAUSE_AFTER_NEWS_SECONDS, LONGEST_PAUSE_SECONDS, 1.2)
            self._clock.sleep(next(pauses))

    def _has_ended(self) -> bool:
        """Ask the job, where that is due, and say whether it has ended.

        Raises:
            JobNotResponding: It is neither live nor ended, and has been so for too long.
            ServiceError: Azure could not be asked for too long.
        """
        if self._ended_at is not None:
            return True
        if not self._is_due():
            return False
        try:
            self._said = self._ask()
        except ServiceError as error:
            self._wait_out(error)
            return False
        self._answered()
        status = self._said.status
        if status in ENDED:
            self._ended_at = self._clock.now()
            return True
        if not self._history.is_readable and status != self._run.status:
            self._run.status = status
            self._emit(LogLine(source=self._run.name, text=f"Status: {status}"))
        # Its history is ahead of it, or wrong, and may have more to tell.
        self._run.is_read = False
        self._require_clarity(status)
        return False

    def _is_due(self) -> bool:
        """Say whether the job is to be asked: seldom while its history says that it is at work."""
        if self._asked_at is None or self._outage is not None or self._unclear is not None:
            return True
        if not self._history.is_readable or self._run.status not in LIVE:
            return True
        return (self._clock.now() - self._asked_at).total_seconds() >= JOB_SECONDS

    def _ask(self) -> _Status:
        self._asked_at = self._clock.now()
        with translated(f"reading the job {self._job.name}", where=self._job.name):
            job = clients.ml_client(self._ref).jobs.get(self._job.name)
            said = job.creation_context.created_at if job.creation_context else None
            created_at = said if isinstance(said, datetime) else as_moment(said)
            return _Status(status_of(job), created_at)

    def _is_read(self) -> bool:
        """Say whether the logs are read to their end, or that is waited for no longer."""
        if self._run.is_read:
            return True
        trouble = self._history.trouble
        self._last_reads += trouble is not None
        assert self._ended_at is not None
        waited = (self._clock.now() - self._ended_at).total_seconds()
        if self._last_reads < _LAST_READS and waited < LAST_WORDS_SECONDS:
            return False
        behind = f"the run history says {self._run.status} of the job"
        self._say(f"The end of a log is missing: {trouble.message if trouble else behind}")
        self._history.give_up()
        return True

    def _result(self) -> JobResult:
        assert self._said is not None
        status, created_at = self._said
        if status != "Completed":
            raise self._failure(status)
        if created_at is None:
            created_at = self._run.began_at or self._began
            warn(
                f"Azure does not say when it took the job {self._job.name}: the version of its "
                f"model is made of {created_at:%Y-%m-%d %H:%M:%S} UTC instead."
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

    def _require_clarity(self, status: str) -> None:
        """Bear with a state that is neither live nor an end; Azure may add one, or find it again.

        Raises:
            JobNotResponding: It has lasted for too long.
        """
        if status in LIVE:
            self._unclear = None
            return
        now = self._clock.now()
        if self._unclear is None:
            self._unclear = now
            self._say(f"The job is {status}. Looking for another {UNCLEAR_SECONDS / 60:g} minutes.")
        if (now - self._unclear).total_seconds() >= UNCLEAR_SECONDS:
            raise self._failure(status)

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
        """Bear with an error about the job itself that may pass.

        Raises:
            ServiceError: It will not, or has lasted for too long.
        """
        patience = OUTAGE_SECONDS if error.transient or error.status == 401 else REFUSED_SECONDS
        now = self._clock.now()
        if self._outage is None and not error.permanent:
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
        """Cancel a job that has waited, or run, for too long.

        Raises:
            JobDeadlineExceeded: The job has been canceled.
            StillBilling: The cancel was not confirmed.
        """
        if self._ended_at is not None:
            return
        created_at = self._said.created_at if self._said else None
        seen = self._history.steps_seen()
        exceeded = self._deadlines.exceeded(
            self._clock.now(),
            seen,
            created_at,
            is_whole=len(seen) == len(self._history.steps()),
        )
        if exceeded is None:
            return
        self._say(f"{exceeded} Canceling it.")
        status = cancel_job(self._ref, self._job.name, clock=self._clock)
        self._asked_at = None
        if status != "Completed":
            raise JobDeadlineExceeded(
                f"{exceeded} It is {status} now.",
                where=self._job.name,
                remedy=self._with_studio(JobDeadlineExceeded.default_remedy),
            )

    def _keep_talking(self) -> None:
        silent = (self._clock.now() - self._spoke).total_seconds()
        if silent < HEARTBEAT_SECONDS:
            return
        waiting_for = [run for run in self._history.steps() if run.status in LIVE] or [self._run]
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


class _History:
    """The job's run history, a courtesy: warned of once where it cannot be read, and tried again.

    Args:
        ref: The workspace.
        job: The job; filled in place.
        emit: Called with each line.
        clock: Whose time passes.
    """

    def __init__(
        self, ref: WorkspaceRef, job: Run, emit: Callable[[LogLine], None], clock: Clock
    ) -> None:
        self.is_readable = False
        self.trouble: FinetuneError | None = None
        self._ref = ref
        self._job = job
        self._emit = emit
        self._clock = clock
        self._logs: JobLogs | None = None
        self._lost: datetime | None = None
        self._troubled: datetime | None = None
        self._is_warned = False
        self._next_at = clock.now()
        self._pauses = growing(2.0, 60.0)

    def look(self, *, is_last: bool) -> bool:
        """Read what is new, where it is time to, and say whether anything was.

        Args:
            is_last: Whether the job has ended, and the history is asked for its end.
        """
        now = self._clock.now()
        if now < self._next_at and not is_last:
            return False
        try:
            logs = self._logs = self._logs or self._found()
            news = logs.look()
        except FinetuneError as error:
            self._lose(error, now)
            return False
        self.is_readable = True
        self._find_again(now)
        self._note(logs.unreadable, now)
        return news

    def give_up(self) -> None:
        """Warn of what could not be read, if that has not been done."""
        if self.trouble is not None and not self._is_warned:
            self._is_warned = True
            warn(
                f"{what_failed(self.trouble, 'reading the run history')} The run goes on by the "
                "job's own status; steps, logs and progress may be missing."
            )

    def steps(self) -> list[Run]:
        """Return the job's steps, as they were last seen."""
        return self._logs.steps() if self._logs else []

    def steps_seen(self) -> list[Run]:
        """Return the steps whose state is known now."""
        return self._logs.steps_seen() if self._logs and self.is_readable else []

    def _found(self) -> JobLogs:
        with translated("finding the workspace's data plane"):
            plane = clients.data_plane(self._ref)
        return JobLogs(plane, self._ref.arm_id, self._job, self._emit)

    def _lose(self, error: FinetuneError, now: datetime) -> None:
        self.is_readable = False
        self._lost = self._lost or now
        self._next_at = now + timedelta(seconds=next(self._pauses))
        self._note(error, now)

    def _note(self, trouble: FinetuneError | None, now: datetime) -> None:
        self.trouble = trouble
        self._troubled = (self._troubled or now) if trouble else None
        # A history learns of a new job a little later, and a moment's trouble is no loss.
        lasted = (now - self._troubled).total_seconds() if self._troubled else 0.0
        if lasted >= _WORTH_A_WARNING_SECONDS:
            self.give_up()

    def _find_again(self, now: datetime) -> None:
        if self._lost is not None:
            lasted = (now - self._lost).total_seconds()
            self._lost, self._pauses = None, growing(2.0, 60.0)
            text = f"The run history can be read again, after {lasted:.0f} s."
            self._emit(LogLine(source=self._job.name, text=text, remark=True))


def _step(run: Run) -> JobStep:
    return JobStep(name=run.name, status=run.status, began_at=run.began_at, ended_at=run.ended_at)
