"""The report is true wherever a run ends."""

from __future__ import annotations

import json

import pytest

from lifecycle.errors import JobFailed, SizeNotAllowed
from lifecycle.report import RunReport, current_report, recording

KEYS = {
    "state", "error", "flow_run_id", "workspace", "model", "compute", "dataset", "job", "metrics",
    "registered_model", "endpoint", "responses", "evaluation", "timings",
}  # fmt: skip


def test_the_report_has_the_keys_that_scripts_rely_on() -> None:
    """DESIGN §6: every key is there from the beginning, and it is JSON."""
    document = json.loads(json.dumps(RunReport().as_dict()))

    assert set() == KEYS - set(document)


@pytest.mark.parametrize(
    ("outcome", "spending", "state", "code"),
    [
        (None, True, "Completed", 0),
        (SizeNotAllowed("no"), False, "Refused", 2),
        (SizeNotAllowed("no"), True, "Failed", 1),
        (JobFailed("it failed"), True, "Failed", 1),
        (KeyboardInterrupt(), True, "Interrupted", 130),
        (RuntimeError("a bug"), False, "Failed", 1),
    ],
)
def test_each_end_has_its_state_and_exit_code(
    outcome: BaseException | None, spending: bool, state: str, code: int
) -> None:
    """A refusal after something was created is a failure; what may bill is always exit 3."""
    report = RunReport(spending=spending)
    report.end(outcome)

    assert (state, code) == (report.state, report.exit_code())


def test_what_may_still_bill_outweighs_any_other_end() -> None:
    """An interrupted run whose endpoint was not seen gone does not say that all is clean."""
    report = RunReport(spending=True, still_billing=["onlineEndpoints/x"])
    report.end(KeyboardInterrupt())

    assert ("Interrupted", 3) == (report.state, report.exit_code())


def test_timings_add_up_for_a_step_that_is_tried_again() -> None:
    """The second try of a step does not erase the first."""
    report = RunReport()
    for _ in range(2):
        with report.timing("deploy_model"):
            pass

    assert {"deploy_model"} == set(report.timings)


def test_a_run_that_was_asked_to_stop_goes_no_further() -> None:
    """The exception of a signal may be lost in a finalizer; the wish to stop is not."""
    report = RunReport()
    report.go_on()
    report.interrupted = True

    with pytest.raises(KeyboardInterrupt):
        report.go_on()


def test_recording_ends_with_its_block() -> None:
    """A step outside a run fills no report."""
    with recording(RunReport()) as report:
        assert report is current_report()

    assert current_report() is None
