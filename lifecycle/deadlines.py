"""When a job has waited, or run, for too long: judged only by what is positively seen.

ARM knows no queueing, so what a job waits for is read off its steps. Where these cannot be read,
nobody can say whether it waits or runs: then only both deadlines together end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from lifecycle.job import JobSpec
from lifecycle.logs import ENDED, WAITING, Run

SKEW = timedelta(minutes=5)
"""By so much our clock and Azure's may differ without a job being canceled too early."""

WORKING = frozenset({"Running", "Finalizing"})
# Between two steps a healthy job shows neither for a moment.
_UNCLEAR = timedelta(minutes=10)


class Deadlines:
    """The deadlines of one job.

    What earlier calls have seen of it counts as well, as far as the times tell that Azure gives.

    Args:
        spec: The deadlines.
        job: The job's name.
        began: When this call began to follow it.
        is_adopted: Whether it was there before: only then Azure's times count beside our own.
    """

    def __init__(self, spec: JobSpec, job: str, began: datetime, *, is_adopted: bool) -> None:
        self._queue = timedelta(minutes=spec.queue_deadline_minutes)
        self._run = timedelta(minutes=spec.run_deadline_minutes)
        self._job = job
        self._began = self._counted = began
        self._is_adopted = is_adopted
        self._waited = self._ran = timedelta(0)
        self._was_waiting = self._was_running = False
        self._unclear_since = began

    def exceeded(
        self,
        now: datetime,
        steps: Sequence[Run],
        created_at: datetime | None,
        *,
        is_whole: bool = True,
    ) -> str | None:
        """Say which deadline has passed, as a sentence; None where none has.

        Args:
            now: The time.
            steps: The steps whose states were just read; none where they cannot be read.
            created_at: When Azure took the job, as far as it says so.
            is_whole: Whether these are all the steps that there are.
        """
        going = [step for step in steps if step.status not in ENDED]
        is_running = any(step.status in WORKING for step in going)
        is_waiting = is_whole and bool(going) and all(step.status in WAITING for step in going)
        self._count(now, is_waiting=is_waiting, is_running=is_running)
        if is_waiting and self._queue:
            waited = max(self._waited, self._since(now, _waits_since(steps, created_at)))
            if waited > self._queue:
                return (
                    f"No step of the job {self._job} has been running for {_minutes(self._queue)}."
                )
        ran = max(self._ran, self._worked(now, steps, created_at)) if is_running else self._ran
        if is_running and self._run and ran > self._run:
            return f"The job {self._job} has been running for more than {_minutes(self._run)}."
        both = self._queue + self._run
        is_unclear = now - self._unclear_since >= min(_UNCLEAR, both)
        if is_unclear and self._queue and self._run:
            lasted = max(now - self._began, self._since(now, created_at))
            if lasted > both:
                return (
                    f"The job {self._job} has not ended for {_minutes(lasted)}, and its steps do "
                    "not show whether it waits or runs."
                )
        return None

    def _count(self, now: datetime, *, is_waiting: bool, is_running: bool) -> None:
        """Count the time since the last look, where both looks saw the same."""
        passed = max(now - self._counted, timedelta(0))
        self._counted = now
        if is_running and self._was_running:
            self._ran += passed
        if is_running:
            self._waited = timedelta(0)
        elif is_waiting and self._was_waiting:
            self._waited += passed
        self._was_waiting, self._was_running = is_waiting, is_running
        if is_waiting or is_running:
            self._unclear_since = now

    def _since(self, now: datetime, moment: datetime | None) -> timedelta:
        if moment is None or not self._is_adopted:
            return timedelta(0)
        return max(now - moment - SKEW, timedelta(0))

    def _worked(
        self, now: datetime, steps: Sequence[Run], created_at: datetime | None
    ) -> timedelta:
        """Return for how long any step has run, by Azure's times; not before there was a job."""
        if not self._is_adopted or created_at is None:
            return timedelta(0)
        spans = sorted(
            (max(step.began_at, created_at), step.ended_at or now)
            for step in steps
            if step.began_at
        )
        worked, until = timedelta(0), None
        for began, ended in spans:
            start = began if until is None else max(began, until)
            worked += max(ended - start, timedelta(0))
            until = ended if until is None else max(ended, until)
        return worked - SKEW


def _waits_since(steps: Sequence[Run], created_at: datetime | None) -> datetime | None:
    """Return when a step last began or ended, or else when the job was taken.

    One that has begun and waits has lost its node, and waits since then at the earliest.
    """
    moments = [created_at, *(at for step in steps for at in (step.began_at, step.ended_at))]
    return max((at for at in moments if at is not None), default=None)


def _minutes(span: timedelta) -> str:
    return f"{span / timedelta(minutes=1):.3g} minutes"
