"""The report of a run: filled step by step, so that it is true wherever the run ends.

Its JSON (:meth:`RunReport.as_dict`) is an interface that scripts outside rely on; fields are added,
never renamed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from .errors import FinetuneError, Refused
from .prices import Rates, price_run

State = Literal["Running", "Completed", "Failed", "Refused", "Interrupted"]

EXIT_CODES = {"Completed": 0, "Failed": 1, "Refused": 2, "Interrupted": 130}
EXIT_STILL_BILLING = 3


@dataclass
class RunReport:
    """What a run did so far.

    Args:
        spending: Whether a step that creates something in Azure has begun: a refusal before that
            is state Refused, after it Failed.
        still_billing: What may be left and costs money, by name.
        resumable: Whether a later attempt of the run can come back for its job. On the command
            line none will.
        interrupted: Whether a person has asked the run to stop. Python may lose the exception of a
            signal (in a finalizer, say), so steps look here as well.
        timings: Seconds by step; steps that run side by side overlap.
        steps: When each step began and ended, in the order in which they began; a step that was
            tried again is there again.
        rates: What an hour costs, known once the plan is checked.
    """

    state: State = "Running"
    error: dict[str, Any] | None = None
    began_at: str = field(default_factory=lambda: _now().isoformat())
    ended_at: str | None = None
    flow_run_id: str | None = None
    workspace: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    compute: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    metrics: dict[str, float | str] = field(default_factory=dict)
    metric_history: dict[str, list[tuple[int, float | str]]] = field(default_factory=dict)
    registered_model: dict[str, Any] | None = None
    endpoint: dict[str, Any] | None = None
    responses: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    still_billing: list[str] = field(default_factory=list)
    spending: bool = False
    resumable: bool = True
    interrupted: bool = False
    rates: Rates | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON."""
        inner = ("spending", "resumable", "interrupted", "rates")
        return {name: value for name, value in vars(self).items() if name not in inner}

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Add the seconds spent inside to ``timings[step]``, and the step to ``steps``."""
        entry: dict[str, Any] = {
            "name": step,
            "state": "Running",
            "began_at": _now().isoformat(),
            "ended_at": None,
        }
        self.steps.append(entry)
        began = time.monotonic()
        try:
            yield
            entry["state"] = "Completed"
        except BaseException as error:
            entry["state"] = "Failed" if isinstance(error, Exception) else "Interrupted"
            raise
        finally:
            entry["ended_at"] = _now().isoformat()
            spent = time.monotonic() - began
            self.timings[step] = round(self.timings.get(step, 0.0) + spent, 3)

    def go_on(self) -> None:
        """Raise KeyboardInterrupt where the run has been asked to stop, or is over already."""
        if self.interrupted or self.ended_at is not None:
            raise KeyboardInterrupt

    def warn(self, text: str) -> bool:
        """Add a warning, and say whether it is new."""
        is_new = text not in self.warnings
        if is_new:
            self.warnings.append(text)
        return is_new

    def may_bill(self, name: str) -> None:
        """Name *name* among what may still be billing, until it is seen gone."""
        if name not in self.still_billing:
            self.still_billing.append(name)

    def is_gone(self, name: str) -> None:
        """Say that *name* is billed no longer."""
        if name in self.still_billing:
            self.still_billing.remove(name)

    def plan_endpoint(self, name: str, deployment: str) -> None:
        """Name the endpoint that will be created."""
        self.endpoint = {
            "name": name,
            "deployment": deployment,
            "deployments": [],
            "created": False,
            "deleted": False,
            "deleted_at": None,
        }

    def deploying(self, name: str, model: str) -> None:
        """Say that a deployment is asked for now, of the model with this asset id."""
        assert self.endpoint is not None
        self.endpoint["deployments"].append(
            {"name": name, "model": model, "began_at": _now().isoformat()}
        )

    def endpoint_is_created(self) -> None:
        """Say that Azure has created the endpoint."""
        assert self.endpoint is not None
        self.endpoint["created"] = True

    def endpoint_is_gone(self, moment: datetime) -> None:
        """Say that the endpoint was seen gone at *moment*."""
        assert self.endpoint is not None
        self.is_gone(f"onlineEndpoints/{self.endpoint['name']}")
        self.endpoint |= {"deleted": True, "deleted_at": moment.isoformat()}

    def add_trouble(self, problem: FinetuneError, outcome: BaseException | None) -> None:
        """Tell of a cleanup that failed, beside how the run ended and never in its place.

        Args:
            problem: What the cleanup met.
            outcome: The exception in flight, which takes it as a note; None where the run has
                nothing else to report, and ``error`` tells it.
        """
        if outcome is not None:
            outcome.add_note(str(problem))
        elif self.error is None:
            self.error = describe(problem)
        else:
            self.error["notes"].append(str(problem))

    def end(self, outcome: BaseException | None) -> None:
        """Set ``state`` and ``error`` from how the run ended, and the cost; None is success.

        A run that succeeded and could not clean up is Completed, with the trouble in ``error``.
        """
        self.ended_at = _now().isoformat()
        try:
            self._price()
        except Exception as error:  # How the run ended is said, whatever it cost.
            self.warn(f"What the run costs could not be reckoned: {error!r}.")
        if outcome is None:
            self.state = "Completed"
            return
        trouble, self.error = self.error, describe(outcome)
        if trouble is not None:
            self.error["notes"].append(trouble["message"])
        if not isinstance(outcome, Exception):
            self.state = "Interrupted"
        elif isinstance(outcome, Refused) and not self.spending:
            self.state = "Refused"
        else:
            self.state = "Failed"

    def exit_code(self) -> int:
        """Return the exit code: 3 whenever something may still be billing, else by state."""
        return EXIT_STILL_BILLING if self.still_billing else EXIT_CODES[self.state]

    def _price(self) -> None:
        """Reckon the cost, where something was asked for that has one."""
        if self.rates is None or not (self.job or self.endpoint):
            return
        trained = (self.job or {}).get("seconds")
        endpoint = self.endpoint or {}
        until = _moment(endpoint.get("deleted_at") or self.ended_at)
        up = [
            max(0.0, (until - _moment(deployment["began_at"])).total_seconds())
            for deployment in endpoint.get("deployments", [])
        ]
        cost = price_run(
            self.rates,
            training_seconds=self.timings.get("stream_job", 0.0) if trained is None else trained,
            serving_seconds=up,
        )
        self.cost = cost.model_dump(mode="json")


def describe(error: BaseException) -> dict[str, Any]:
    """Return *error* as JSON: code, message, where, remedy, transient, and its notes."""
    notes = list(getattr(error, "__notes__", []))
    if isinstance(error, FinetuneError):
        return {**error.as_dict(), "notes": notes}
    stopped = "Ctrl-C, or a signal, stopped the run."
    # Prefect raises one of its own for SIGTERM, which says nothing or its name.
    unsaid = type(error).__name__ if isinstance(error, Exception) else stopped
    return {
        "code": type(error).__name__,
        "message": str(error) or unsaid,
        "where": None,
        "remedy": None,
        "transient": False,
        "notes": notes,
    }


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(written: str | None) -> datetime:
    assert written is not None
    return datetime.fromisoformat(written)


_current: ContextVar[RunReport | None] = ContextVar("finetune_report", default=None)


@contextmanager
def recording(report: RunReport) -> Iterator[RunReport]:
    """Make *report* the one that a flow called inside, and its steps, fill."""
    token = _current.set(report)
    try:
        yield report
    finally:
        _current.reset(token)


def current_report() -> RunReport | None:
    """Return the report being recorded, or None outside a run."""
    return _current.get()
