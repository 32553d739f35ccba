"""The phases of a run: every step has its place, and each phase tells how it stands."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prefect import Task

from lifecycle.phases import PHASES, read_phases
from lifecycle.report import RunReport

Make = Callable[..., dict[str, Any]]


def test_every_step_of_the_run_has_its_phase() -> None:
    """A new step is not left out of the board, the summary and the page."""
    tasks = set()
    for path in sorted(Path("tasks").glob("*.py")):
        module = import_module(f"tasks.{path.stem}" if path.stem != "__init__" else "tasks")
        tasks |= {value.name for value in vars(module).values() if isinstance(value, Task)}
    shown = {step for steps in PHASES.values() for step in steps}

    assert tasks - {"sweep_expired"} == shown - {"start_prefect"}


def test_the_phases_of_a_completed_run(make_report: Make) -> None:
    """All done; steps side by side are counted once."""
    phases = {phase.name: phase for phase in read_phases(make_report())}

    assert {"done"} == {phase.state for phase in phases.values()}
    assert [4.0, 62.0, 2.0] == [phases[name].seconds for name in ("Check", "Train", "Register")]


def test_a_run_that_failed_has_phases_that_were_never_begun(make_report: Make) -> None:
    """The phase in which it failed, and those after it."""
    steps = make_report()["steps"][:8]
    steps[-1]["state"] = "Failed"
    phases = read_phases(make_report(state="Failed", steps=steps))

    assert ["done", "done", "failed", "waiting", "waiting", "waiting"] == [
        phase.state for phase in phases
    ]


def test_a_step_that_was_tried_again_counts_as_it_ended_last(make_report: Make) -> None:
    """A failed first try is no failed phase."""
    steps = make_report()["steps"]
    steps.insert(1, {**steps[1], "state": "Failed"})

    assert "done" == read_phases(make_report(steps=steps))[1].state


def test_a_phase_goes_on_between_two_of_its_steps() -> None:
    """Between two steps nothing runs, and the phase is not over."""
    report = RunReport()
    seen = []

    def look() -> None:
        train = read_phases(report.as_dict())[2]
        seen.append((train.state, train.doing))

    with report.timing("ensure_compute"):
        look()
    look()
    with report.timing("review_metrics"):
        look()

    assert [("running", "preparing the cluster"), ("running", ""), ("done", "")] == seen


@pytest.mark.parametrize("steps", [[], [{"name": "unknown", "state": "Running"}]])
def test_a_run_that_did_nothing_yet_is_all_waiting(
    make_report: Make, steps: list[dict[str, Any]]
) -> None:
    """No step, or one that no phase knows, is no error."""
    assert {"waiting"} == {phase.state for phase in read_phases(make_report(steps=steps))}
