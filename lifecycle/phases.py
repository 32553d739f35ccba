"""The run as a person sees it: a few phases, each of some steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["waiting", "running", "done", "failed"]

# Phase, its steps, and what each step is about while it runs.
PHASES: Mapping[str, Mapping[str, str]] = {
    "Start": {
        "start_prefect": "starting Prefect",
    },
    "Check": {
        "authenticate": "signing in",
        "select_model": "finding the model",
        "get_component": "finding the component",
        "list_sizes": "listing sizes",
        "check_compute": "looking at the cluster",
        "download_data": "reading the data",
        "check_plan": "checking the plan",
    },
    "Train": {
        "ensure_compute": "preparing the cluster",
        "submit_job": "submitting the job",
        "stream_job": "training",
    },
    "Register": {
        "review_metrics": "reading the metrics",
        "register_model": "registering the model",
    },
    "Serve": {
        "create_endpoint": "creating the endpoint",
        "deploy_model": "deploying",
        "route_traffic": "routing the traffic",
        "invoke_endpoint": "asking",
        "evaluate_replies": "comparing the replies",
        "keep_endpoint": "marking the endpoint as kept",
    },
    "Clean up": {
        "delete_endpoint": "deleting the endpoint",
    },
}


@dataclass(frozen=True)
class Phase:
    """One phase of a run, as far as it has come.

    Args:
        name: Its name.
        state: How it stands.
        seconds: How long its steps took, side by side counted once.
        steps: The report's entries of its steps.
    """

    name: str
    state: State
    seconds: float
    steps: list[Mapping[str, Any]]

    @property
    def doing(self) -> str:
        """What it is about now, in a few words; empty when it is about nothing."""
        words = PHASES[self.name]
        running = [words[step["name"]] for step in self.steps if step["state"] == "Running"]
        return ", ".join(dict.fromkeys(running))


def read_phases(report: Mapping[str, Any]) -> list[Phase]:
    """Return all phases of a report, in order.

    Args:
        report: The report as JSON, of a run that has ended or goes on.
    """
    has_ended, until = report["state"] != "Running", end_of(report)
    chosen = {
        name: [step for step in list(report["steps"]) if step["name"] in steps]
        for name, steps in PHASES.items()
    }
    begun = [name for name, steps in chosen.items() if steps]
    return [
        Phase(
            name,
            _state(steps, is_over=has_ended or name != begun[-1]) if steps else "waiting",
            _covered(steps, until),
            steps,
        )
        for name, steps in chosen.items()
    ]


def moment(written: str) -> datetime:
    """Return a time of the report."""
    return datetime.fromisoformat(written)


def end_of(report: Mapping[str, Any]) -> datetime:
    """Return when the run ended, or now for one that goes on."""
    return moment(report["ended_at"]) if report["ended_at"] else datetime.now(UTC)


def seconds_of(entry: Mapping[str, Any], until: datetime) -> float:
    """Return how long a step took, one that was not seen to end until *until*."""
    began, ended = _interval(entry, until)
    return max(0.0, (ended - began).total_seconds())


def _state(steps: list[Mapping[str, Any]], *, is_over: bool) -> State:
    if any(step["state"] == "Running" for step in steps):
        return "running"
    if not is_over:
        return "running"  # between two steps, or between two tries
    last = {step["name"]: step["state"] for step in steps}
    return "done" if set(last.values()) == {"Completed"} else "failed"


def _covered(steps: Iterable[Mapping[str, Any]], until: datetime) -> float:
    """Return the seconds in which at least one of the steps was running."""
    total, end = 0.0, datetime.min.replace(tzinfo=UTC)
    for began, ended in sorted(_interval(step, until) for step in steps):
        total += max(0.0, (ended - max(began, end)).total_seconds())
        end = max(end, ended)
    return total


def _interval(entry: Mapping[str, Any], until: datetime) -> tuple[datetime, datetime]:
    return moment(entry["began_at"]), moment(entry["ended_at"]) if entry["ended_at"] else until
