"""How far the training is, as a progress artifact of its task run."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from lifecycle.courtesy import warn, what_failed
from lifecycle.job import JobStep
from lifecycle.logs import LIVE, LogLine
from lifecycle.metrics import thinned
from lifecycle.pulse import TrainingPulse, sparkline
from lifecycle.wording import duration, figure

from .briefly import briefly

KEY = "training"

# Hours of training are some hundreds of updates: each waits for a hundredth of the time so far.
_FEWEST_SECONDS = 5.0
_SHARE = 0.01
_AFTER_TROUBLE_SECONDS = 60.0
_SPARKS = 20


class TrainingBar:
    """The bar of one training job, which follows its log.

    A Prefect server that does not answer is a warning, and asked again a minute later; it never
    costs the run.

    Args:
        now: When the following began.
    """

    def __init__(self, now: datetime) -> None:
        self._began = now
        self._shown_at: datetime | None = None
        self._shown = ""
        self._artifact: UUID | None = None
        self._pulse = TrainingPulse()
        self._is_lost = False

    def read(self, line: LogLine, now: datetime) -> None:
        """Take a line of the job's log; those of the fine-tuning step tell how far it is."""
        if not line.remark and "finetune" in line.source:
            self._pulse.read(line.text, now)

    def show(self, steps: list[JobStep], now: datetime) -> None:
        """Bring the artifact up to date, if there is something new and it is not too soon.

        Args:
            steps: The job's steps.
            now: The time.
        """
        spent = (now - self._began).total_seconds()
        fewest = _AFTER_TROUBLE_SECONDS if self._is_lost else _FEWEST_SECONDS
        pause = max(fewest, _SHARE * spent)
        if self._shown_at is not None and (now - self._shown_at).total_seconds() < pause:
            return
        self._put(told(self._pulse, steps, now), now)

    def end(self, status: str, now: datetime) -> None:
        """Say how the job ended.

        Args:
            status: Its last state; the bar is full where that is Completed.
            now: The time.
        """
        if status == "Completed" and self._pulse.total:
            self._pulse.done = self._pulse.total
        spent = duration((now - self._began).total_seconds())
        self._put(f"{status} after {spent}{_losses(self._pulse)}", now, status == "Completed")

    def curve(self) -> list[tuple[int, float]]:
        """Return step and value of the losses so far, of many a selection."""
        return thinned(self._pulse.curve)

    def _put(self, text: str, now: datetime, is_full: bool = False) -> None:
        if text == self._shown:
            return
        # One decimal: Prefect's page writes the number as it is.
        share = round(100 * self._pulse.done / self._pulse.total, 1) if self._pulse.total else 0.0
        progress = 100.0 if is_full else share
        try:
            self._artifact = briefly(lambda: _sent(self._artifact, progress, text))
            self._is_lost = False
        except Exception as error:
            if not self._is_lost:
                what = what_failed(error, "showing the progress of the training")
                warn(f"{what} The run's page lacks its bar until Prefect takes it again.")
            self._is_lost = True
        self._shown, self._shown_at = text, now


def _sent(artifact: UUID | None, progress: float, text: str) -> UUID:
    if artifact is None:
        made = create_progress_artifact(progress, key=KEY, description=text)
        assert isinstance(made, UUID)
        return made
    update_progress_artifact(artifact, progress, description=text)
    return artifact


def told(pulse: TrainingPulse, steps: list[JobStep], now: datetime) -> str:
    """Say in a line how far the job is.

    Args:
        pulse: What the log of the fine-tuning step has told.
        steps: The job's steps.
        now: The time.
    """
    live = [step for step in steps if step.status in LIVE]
    if not pulse.total or not any("finetune" in step.name for step in live):
        states = ", ".join(f"{step.name} {step.status.lower()}" for step in live)
        return states or "Waiting for the job's first step"
    # The page cuts what is long: the curve comes last.
    left = pulse.seconds_left(now)
    is_known = left is not None and pulse.done < pulse.total
    remains = f", {duration(left or 0.0)} left" if is_known else ""
    return f"Step {pulse.done} of {pulse.total}{remains}{_losses(pulse)}"


def _losses(pulse: TrainingPulse) -> str:
    if not pulse.losses:
        return ""
    return f", loss {figure(pulse.losses[-1])} {sparkline(pulse.losses, _SPARKS)}".rstrip()
