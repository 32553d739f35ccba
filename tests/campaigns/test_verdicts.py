"""Verdicts: what the guarantees forbid is named, and so is what a run says that is not so."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from campaigns.verdicts import (
    Seen,
    broken_promises,
    outstayed,
    retrained,
    unclear,
    untrue_end,
    untruths,
)
from lifecycle.names import endpoint_name

ENDPOINT = "/subscriptions/s/onlineEndpoints/local-x-a1"
MODEL = {"name": "m", "version": "1", "job": "ft-x-a1"}
ERROR = {"code": "JobFailed", "message": "It failed.", "remedy": "Look."}
UNCLEAR = {"code": "KeyError", "message": "x", "remedy": None}
COMPLETED: dict[str, Any] = {
    "state": "Completed",
    "error": None,
    "still_billing": [],
    "job": {"name": "ft-x-a1"},
    "registered_model": MODEL,
    "endpoint": {"name": "local-x-a1", "deleted": True},
    "responses": [{"reply": "yes"}],
}


def _job(attempt: int, status: str, created: str, ended: str | None) -> dict[str, Any]:
    return {
        "name": f"ft-x-a{attempt}",
        "status": status,
        "tags": {"finetune-owner": "x"},
        "created": created,
        "ended": ended,
    }


def _meter(stopped: str | None = "10:09") -> dict[str, Any]:
    return {"resource": ENDPOINT, "kind": "endpoint", "stopped": stopped}


GOOD = Seen([_meter()], [_job(1, "Completed", "10:00", "10:05")], [MODEL])


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (_job(1, "Failed", "10:00", "10:05"), _job(2, "Running", "10:06", None), None),
        (_job(1, "Failed", "10:00", "10:05"), _job(2, "Running", "10:04", None), "was live"),
        (_job(1, "Running", "10:00", None), _job(2, "Running", "10:04", None), "was live"),
        (_job(1, "Completed", "10:00", "10:05"), _job(2, "Running", "10:06", None), "completed"),
    ],
    ids=["anew-after-failure", "overlap", "two-live", "again-after-success"],
)
def test_a_job_too_many_is_named(first: Any, second: Any, problem: str | None) -> None:
    """Never two live jobs for one run, never a second after a success."""
    found = broken_promises(Seen([], [first, second], []))

    assert (problem is not None) == bool(found)
    assert problem is None or problem in found[0]


def test_jobs_of_two_runs_may_live_side_by_side() -> None:
    """One run's job is nothing to another's."""
    other = {**_job(1, "Running", "10:01", None), "tags": {"finetune-owner": "y"}}

    assert [] == broken_promises(Seen([], [_job(1, "Running", "10:00", None), other], []))


def test_an_open_meter_is_named() -> None:
    """What is billed at the end."""
    assert ["still billed: local-x-a1"] == broken_promises(Seen([_meter(None)], [], []))


def test_a_true_report_is_believed() -> None:
    """What it says was seen."""
    assert [] == untruths(0, COMPLETED, GOOD)
    assert [] == untruths(1, {"state": "Failed", "error": ERROR, "still_billing": []}, GOOD)


@pytest.mark.parametrize(
    ("code", "report", "seen", "problem"),
    [
        (1, COMPLETED, GOOD, "exit code 1"),
        (0, COMPLETED, GOOD._replace(jobs=[]), "is not Completed"),
        (0, COMPLETED, GOOD._replace(models=[]), "is not registered"),
        (0, COMPLETED, GOOD._replace(meters=[]), "never was"),
        (0, COMPLETED, GOOD._replace(meters=[_meter(None)]), "is there"),
        (0, {**COMPLETED, "responses": []}, GOOD, "nothing was replied"),
        (3, {**COMPLETED, "still_billing": ["x"]}, GOOD, "none is"),
        (2, {**COMPLETED, "state": "Refused", "error": ERROR}, GOOD, "something was made"),
        (1, {**COMPLETED, "state": "Failed", "error": UNCLEAR}, GOOD, "no clear"),
    ],
)
def test_an_untruth_is_named(code: int, report: Any, seen: Seen, problem: str) -> None:
    """Whatever the report or the exit code says that is not so."""
    found = untruths(code, report, seen)

    assert any(problem in one for one in found), found


RUN = "00000000-0000-4000-8000-000000000001"
OWNED = {"finetune-owner": RUN}


def _seen(status: str = "Completed", ended: str | None = "10:05") -> Seen:
    name = endpoint_name("local", RUN, 2)
    return Seen(
        [{"resource": f"/onlineEndpoints/{name}", "kind": "endpoint", "stopped": "10:09"}],
        [{**_job(1, status, "10:00", ended), "tags": OWNED}],
        [{**MODEL, "tags": OWNED}],
    )


def test_a_true_state_is_believed() -> None:
    """Also where the endpoint was a later attempt's."""
    assert [] == untrue_end("completed", RUN, "local", _seen())
    assert [] == untrue_end("cancelled", RUN, "local", _seen("Canceled")._replace(models=[]))


@pytest.mark.parametrize(
    ("state", "seen", "problem"),
    [
        ("completed", _seen("Canceled"), "its job is not"),
        ("completed", _seen()._replace(jobs=[]), "its job is not"),
        ("completed", _seen()._replace(models=[]), "no model"),
        ("completed", _seen()._replace(meters=[]), "never had an endpoint"),
        ("cancelled", _seen("Running", None), "goes on"),
    ],
)
def test_an_untrue_state_is_named(state: str, seen: Seen, problem: str) -> None:
    """What Prefect shows is what was seen."""
    found = untrue_end(state, RUN, "local", seen)

    assert any(problem in one for one in found), found


def test_a_run_that_comes_back_has_one_job() -> None:
    """Canceled and trained anew is no coming back."""
    one, two = _job(1, "Completed", "10:00", "10:05"), _job(2, "Completed", "10:06", "10:09")

    assert [] == retrained(Seen([], [one], []), "x")
    assert [] != retrained(Seen([], [_job(1, "Canceled", "10:00", "10:05"), two], []), "x")
    assert [] != retrained(Seen([], [], []), "x")


@pytest.mark.parametrize(
    ("began", "stopped", "is_found"),
    [
        ("10:00:00", "10:01:29", False),
        ("10:00:00", "10:01:31", True),
        ("10:00:00", None, True),
        ("09:50:00", "09:59:00", False),
        ("10:00:02", "10:01:31", False),
        ("10:00:02", "10:01:33", True),  # Its create was in flight at the blow.
    ],
)
def test_an_endpoint_that_outstays_its_bound_is_named(
    began: str, stopped: str | None, is_found: bool
) -> None:
    """Those that were there at the blow, by the ledger's clock."""
    day = "2026-11-21T{}+00:00"
    meter = _meter() | {
        "began": day.format(began),
        "stopped": None if stopped is None else day.format(stopped),
    }
    struck = datetime.fromisoformat(day.format("10:00:00")).timestamp()

    assert is_found == bool(outstayed(Seen([meter], [], []), struck, 90))
    theirs = meter | {"resource": meter["resource"].replace("-a1", "-a2")}
    assert [] == outstayed(Seen([theirs], [], []), struck, 90)


def test_a_failed_run_says_an_error_of_ours() -> None:
    """Prefect's message has the class of what was raised."""
    said = "Flow run encountered an exception: EndpointError: local-x: it is gone"

    assert [] == unclear(said)
    assert [] != unclear("Flow run encountered an exception: KeyError: 'x'")
